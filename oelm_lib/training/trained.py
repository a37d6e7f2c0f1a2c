"""Trained models read from run folders."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oelm_lib.data.tokenizer import Ids, Tokenizer, load_tokenizer
from oelm_lib.errors import UserError
from oelm_lib.model.generation import generate
from oelm_lib.model.gpt import GPT
from oelm_lib.runs.find import find_run
from oelm_lib.runs.folder import Run, reopen
from oelm_lib.runs.reading import RunFolder
from oelm_lib.runs.schema import CHECKPOINTS
from oelm_lib.seeds import named_generator
from oelm_lib.training import checkpoint


@dataclass(frozen=True, eq=False)  # compared by identity, so that results can be cached by it
class Trained(Run):
    """A run with the model of one checkpoint, on the CPU and in evaluation mode.

    Attributes:
        step: Updates that the model has had.
    """

    step: int
    model: GPT
    tokenizer: Tokenizer | Ids

    def encode(self, prompt: str) -> Tensor:
        """Return the ids (1, T) of a prompt.

        Raises:
            UserError: It is empty, longer than the context, or has ids beyond the vocabulary.
        """
        ids = self.tokenizer.encode_documents([prompt])[0]
        limit, vocab_size = self.config.model.max_seq_len, self.corpus.vocab_size
        if not len(ids):
            raise UserError("the prompt is empty; give at least one word, e.g. 'Once upon a time'")
        if max(ids) >= vocab_size:
            raise UserError(
                f"the prompt has the id {max(ids)}; ids of {self.corpus.name} are"
                f" 0 .. {vocab_size - 1}"
            )
        if len(ids) > limit:
            raise UserError(
                f"the prompt has {len(ids)} tokens, the context {limit};"
                f" leave out {len(ids) - limit}"
            )
        return torch.from_numpy(ids.astype("int64"))[None]

    def continued(
        self, prompt: str, count: int = 200, samples: int = 1, seed: int = 0, **sampling: Any
    ) -> list[str]:
        """Return continuations of the prompt.

        Each ends at end-of-text, after `count` tokens, or where the context is full.

        Args:
            sampling: temperature, top_k and top_p, as `oelm_lib.model.generate` takes them.
        """
        tokens = self.encode(prompt).expand(samples, -1)
        generator = named_generator(seed, "sampling")
        rows = generate(self.model, tokens, count, generator, **sampling).tolist()
        eot = self.corpus.eot
        texts = [row[: row.index(eot)] if eot in row else row for row in rows]
        return [self.tokenizer.decode(text) for text in texts]


def open_trained(name: RunFolder, which: str = "latest") -> Trained:
    """Load the model of a run.

    Args:
        name: A run, or a name or folder as for `oelm_lib.runs.find_run`.
        which: One of CHECKPOINTS: latest, best, latest.prev.

    Raises:
        UserError: There is no such run or checkpoint, the checkpoint is damaged or of another
            architecture, or the corpus has changed since.
    """
    if which not in CHECKPOINTS:
        raise UserError(f"checkpoint {which!r} is unknown; allowed: {', '.join(CHECKPOINTS)}")
    path = find_run(os.fspath(name))
    run = reopen(path)
    present = [kind for kind in CHECKPOINTS if (path / f"{kind}.pt").is_file() and kind != which]
    choices = [f"use --checkpoint {kind}" for kind in present]
    remedy = " or ".join([*choices, f"oelm run {run.config.id} --seed {run.seed}"])
    try:
        saved = checkpoint.load(path / f"{which}.pt")
    except FileNotFoundError:
        raise UserError(f"{path}: has no {which}.pt; {remedy}") from None
    except checkpoint.DamagedError as error:
        raise UserError(f"{error}; {remedy}") from None
    model = GPT(run.config.model, run.seed).eval()
    try:
        model.load_state_dict(saved["model"])
    except checkpoint.BROKEN as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [type(error).__name__]
        raise UserError(
            f"{path}/{which}.pt: holds another architecture than config.yaml ({lines[0][:150]});"
            f" {remedy}"
        ) from None
    tokenizer = load_tokenizer(run.corpus)
    return Trained(**vars(run), step=saved["step"], model=model, tokenizer=tokenizer)
