"""Training of `bpe-<N>`, a byte-level BPE, on the train split of a corpus."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait

from oelm_lib.data.progress import PROGRESS_SECONDS, in_background, print_line
from oelm_lib.data.spec import tokenizer_size
from oelm_lib.errors import UserError

WORD_BYTES = 1000
"""Longest word that training counts as one: the time of the library grows with its square."""


class TooLittleTextError(UserError):
    """The text yields fewer tokens than the tokenizer should have."""


def train_bpe(tokenizer: str, texts: Iterator[str]) -> str:
    """Train a byte-level BPE with GPT-2's word pattern; print a line every five seconds.

    Args:
        tokenizer: `bpe-<N>`; N counts the end-of-text token.
        texts: Documents, or parts of them.

    Returns:
        A tokenizer.json of the `tokenizers` library, the same for the same text.

    Raises:
        TooLittleTextError: The text is too small for N.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    size = tokenizer_size(tokenizer)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library = Tokenizer(models.BPE())
    library.decoder = decoders.ByteLevel()
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.FixedLength(length=WORD_BYTES)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    start, stopped = time.monotonic(), threading.Event()
    # The library releases Python's lock, so that this thread hears Ctrl-C.
    training = in_background(lambda: library.train_from_iterator(_until(stopped, texts), trainer))
    try:
        while not wait([training], PROGRESS_SECONDS).done:
            print_line(f"training {tokenizer}: {time.monotonic() - start:.0f} s so far")
        training.result()
    finally:
        stopped.set()
    library.pre_tokenizer = words
    found = library.get_vocab_size() + 1
    if found < size:
        raise TooLittleTextError(
            f"tokenizer = {tokenizer}: the train split yields {found} tokens; use at most"
            f" bpe-{found}"
        )
    return library.to_str()


def _until(stopped: threading.Event, texts: Iterator[str]) -> Iterator[str]:
    """Yield texts until the event is set."""
    for text in texts:
        if stopped.is_set():
            return
        yield text
