"""Training of `bpe-<N>`, a byte-level BPE, on the train split of a corpus."""

import threading
from collections.abc import Callable, Iterator

from oelm_lib.data.console import print_line
from oelm_lib.data.spec import tokenizer_size
from oelm_lib.errors import UserError

WORD_BYTES = 1000
"""Longest word that training counts as one: the time of the library grows with its square."""
PROGRESS_SECONDS = 5.0
"""Time between lines of progress."""


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
    _run_interruptible(
        lambda stopped: library.train_from_iterator(_until(stopped, texts), trainer),
        lambda seconds: print_line(f"training {tokenizer}: {seconds:.0f} s so far"),
    )
    library.pre_tokenizer = words
    found = library.get_vocab_size() + 1
    if found < size:
        raise TooLittleTextError(
            f"tokenizer = {tokenizer}: the train split yields {found} tokens; use at most"
            f" bpe-{found}"
        )
    return library.to_str()


def _run_interruptible(
    task: Callable[[threading.Event], None], tick: Callable[[float], None]
) -> None:
    """Run a task that holds no lock of Python's in a thread, so that Ctrl-C is heard meanwhile."""
    stopped, errors = threading.Event(), []

    def run() -> None:
        try:
            task(stopped)
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    seconds = 0.0
    try:
        while thread.is_alive():
            thread.join(PROGRESS_SECONDS)
            seconds += PROGRESS_SECONDS
            if thread.is_alive():
                tick(seconds)
    finally:
        stopped.set()
    if errors:
        raise errors[0]


def _until(stopped: threading.Event, texts: Iterator[str]) -> Iterator[str]:
    """Yield texts until the event is set."""
    for text in texts:
        if stopped.is_set():
            return
        yield text
