"""A trained model taken from its run folder, to be read and never to be written."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from oelm_lib.data.tokenizer import Ids, Tokenizer, load_tokenizer
from oelm_lib.errors import UserError
from oelm_lib.model.generation import generate
from oelm_lib.model.gpt import GPT
from oelm_lib.runs.folder import Run, reopen
from oelm_lib.runs.logs import find_run
from oelm_lib.runs.reading import CHECKPOINTS
from oelm_lib.seeds import named_generator
from oelm_lib.training import checkpoint


@dataclass(frozen=True, eq=False)  # one is itself alone, so that what is computed of it can be kept
class Trained(Run):
    """A run with the model of one checkpoint, on the CPU and in evaluation mode.

    Attributes:
        step: Updates it has had.
    """

    step: int
    model: GPT
    tokenizer: Tokenizer | Ids

    def encode(self, prompt: str) -> Tensor:
        """Ids (1, T) of a prompt. Raises UserError where it is empty or longer than the context."""
        ids = self.tokenizer.encode_documents([prompt])[0]
        most = self.config.model.max_seq_len
        if len(ids) and max(ids) >= self.corpus.vocab_size:
            raise UserError(
                f"the prompt has the id {max(ids)}; ids of {self.corpus.name} are 0 .. {self.corpus.vocab_size - 1}"
            )
        if not len(ids):
            raise UserError("the prompt is empty; give at least one word, e.g. 'Once upon a time'")
        if len(ids) > most:
            raise UserError(
                f"the prompt has {len(ids)} tokens, the context {most}; leave out {len(ids) - most}"
            )
        return torch.from_numpy(ids.astype("int64"))[None]

    def continued(
        self, prompt: str, count: int = 200, samples: int = 1, seed: int = 0, **how
    ) -> list[str]:
        """Texts that go on from the prompt, each until end-of-text, `count` tokens or a full context.

        Args:
            how: temperature, top_k and top_p, as model.generate takes them.
        """
        tokens = self.encode(prompt).expand(samples, -1)
        drawn = generate(
            self.model, tokens, count, named_generator(seed, "sampling"), **how
        ).tolist()
        eot = self.corpus.eot
        return [
            self.tokenizer.decode(row[: row.index(eot)] if eot in row else row) for row in drawn
        ]


def open_trained(
    name: str | Path, which: str = CHECKPOINTS[0], outputs: str | Path = ""
) -> Trained:
    """Load a run's checkpoint; `name` and `outputs` are as for runs.logs.find_run.

    Raises:
        UserError: No such run or checkpoint, a damaged one, one of another architecture, or another corpus now.
    """
    if which not in CHECKPOINTS:
        raise UserError(f"checkpoint {which!r} is unknown; allowed: {', '.join(CHECKPOINTS)}")
    run = reopen(path := find_run(str(name), outputs))
    others = [
        f"use --checkpoint {other}"
        for other in CHECKPOINTS
        if other != which and (path / f"{other}.pt").is_file()
    ]
    remedy = " or ".join([*others, f"oelm run {run.config.id} --seed {run.seed}"])
    try:
        state = checkpoint.load(path / f"{which}.pt")
    except FileNotFoundError:
        raise UserError(f"{path}: has no {which}.pt; {remedy}") from None
    except checkpoint.DamagedError as error:
        raise UserError(f"{error}; {remedy}") from None
    model = GPT(run.config.model, run.seed).eval()
    try:
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        found = next((line.strip() for line in str(error).splitlines()[1:]), type(error).__name__)
        raise UserError(
            f"{path}/{which}.pt: holds another architecture than config.yaml ({found[:150]}); {remedy}"
        ) from None
    return Trained(
        **vars(run), step=state["step"], model=model, tokenizer=load_tokenizer(run.corpus)
    )
