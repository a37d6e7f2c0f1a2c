"""Short texts drawn while a run trains, where they cost next to nothing."""

import time
from typing import TYPE_CHECKING

import torch

from oelm_lib.data.tokenizer import Tokenizer, load_tokenizer
from oelm_lib.model.generation import generate
from oelm_lib.seeds import named_generator

if TYPE_CHECKING:
    from oelm_lib.training.session import Session

SHARE = 0.002
"""Of the session's wall time, at most, for samples."""
PROMPT_TOKENS, TRIAL_TOKENS, SAMPLE_TOKENS = 8, 8, 64


class Sampler:
    """Continues the first tokens of the validation split; each step's generator has a name, so none is saved.

    The first call draws a few tokens, to know what one costs; later ones draw nothing while a sample is too dear.
    """

    def __init__(self, session: "Session"):
        self._session, self._corpus = session, session.run.corpus
        length = min(PROMPT_TOKENS, session.cfg.model.max_seq_len - 1)  # a token must fit behind it
        self._prompt = torch.from_numpy(self._corpus.tokens("val")[:length].astype("int64"))[None]
        self._tokenizer: Tokenizer | None = None
        self._started, self._spent, self._token_seconds = time.perf_counter(), 0.0, 0.0

    def __call__(self) -> tuple[str, str] | None:
        """A prompt and how the model goes on, or None where there is no time for it."""
        start, session, sample = time.perf_counter(), self._session, None
        if self._spent + SAMPLE_TOKENS * self._token_seconds > SHARE * (start - self._started):
            return None
        count = SAMPLE_TOKENS if self._token_seconds else TRIAL_TOKENS
        generator = named_generator(session.run.seed, f"sampling at step {session.step}")
        drawn = generate(session.model, self._prompt.to(session.device), count, generator)
        self._token_seconds = (time.perf_counter() - start) / drawn.shape[1]
        if count == SAMPLE_TOKENS:
            self._tokenizer = self._tokenizer or load_tokenizer(self._corpus)
            sample = tuple(
                self._tokenizer.decode(tokens[0].tolist()) for tokens in (self._prompt, drawn)
            )
        self._spent += time.perf_counter() - start
        return sample
