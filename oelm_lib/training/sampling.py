"""Short texts sampled while a run trains, at a small share of its time."""

import time

import torch

from oelm_lib.data.tokenizer import load_tokenizer
from oelm_lib.model.generation import generate
from oelm_lib.seeds import named_generator
from oelm_lib.training.state import TrainingState

SHARE = 0.002
"""Largest share of the session's wall time that samples may take."""
PROMPT_TOKENS, TRIAL_TOKENS, SAMPLE_TOKENS = 8, 8, 64


class Sampler:
    """Continues the first tokens of the validation split.

    Each step has a named generator, so no random state is saved. The first call draws a few tokens
    to measure what one costs; later calls draw nothing while a sample costs more than SHARE.
    """

    def __init__(self, state: TrainingState):
        self._state = state
        corpus = state.run.corpus
        length = min(PROMPT_TOKENS, state.cfg.model.max_seq_len - 1)  # leaves room for one token
        self._prompt = torch.from_numpy(corpus.tokens("val")[:length].astype("int64"))[None]
        self._tokenizer = None
        self._started = time.perf_counter()
        self._spent = 0.0
        self._token_seconds = 0.0

    def __call__(self) -> str | None:
        """Return the prompt and its continuation, or None where there is no time for it."""
        start = time.perf_counter()
        allowed = SHARE * (start - self._started)
        if self._spent + SAMPLE_TOKENS * self._token_seconds > allowed:
            return None
        count = SAMPLE_TOKENS if self._token_seconds else TRIAL_TOKENS
        state = self._state
        generator = named_generator(state.run.seed, f"sampling at step {state.step}")
        drawn = generate(state.model, self._prompt.to(state.device), count, generator)
        self._token_seconds = (time.perf_counter() - start) / drawn.shape[1]
        sample = self._decode(drawn) if count == SAMPLE_TOKENS else None
        self._spent += time.perf_counter() - start
        return sample

    def _decode(self, drawn: torch.Tensor) -> str:
        """Return the text of the prompt and of the tokens drawn after it."""
        self._tokenizer = self._tokenizer or load_tokenizer(self._state.run.corpus)
        prompt, text = (self._tokenizer.decode(ids[0].tolist()) for ids in (self._prompt, drawn))
        return prompt + text
