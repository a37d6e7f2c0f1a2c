"""Whether an experiment and its corpus fit each other."""

from oelm_lib.config import Experiment
from oelm_lib.data import Corpus, check_has_test, open_corpus
from oelm_lib.errors import UserError


def open_fitting_corpus(cfg: Experiment, test: bool = False) -> Corpus:
    """Open the corpus of an experiment, and check that both fit.

    Args:
        test: Whether the corpus must have a test split.

    Raises:
        UserError: As `open_corpus`, `check_fit` and `check_has_test`.
    """
    corpus = open_corpus(cfg.data.corpus, cfg.data.tokenizer, cfg)
    check_fit(cfg, corpus)
    if test:
        check_has_test(corpus)
    return corpus


def check_fit(cfg: Experiment, corpus: Corpus) -> None:
    """Check that the experiment fits its corpus, and its batch the number of devices.

    Raises:
        UserError: It does not fit; the message names the key to change.
    """
    name = corpus.name
    if cfg.model.vocab_size != corpus.vocab_size:
        raise UserError(
            f"model.vocab_size = {cfg.model.vocab_size}, but {name} prepared with"
            f" {corpus.tokenizer} has {corpus.vocab_size} tokens; set"
            f" model.vocab_size={corpus.vocab_size} or another data.tokenizer"
        )
    length, batch, devices = cfg.model.max_seq_len, cfg.train.batch_size, cfg.machine.devices
    if batch % devices:
        raise UserError(
            f"machine.devices = {devices} does not divide train.batch_size = {batch}; use a divisor"
        )
    if corpus.recall and length != corpus.recall.length:
        raise UserError(
            f"model.max_seq_len = {length}: examples of {name} have {corpus.recall.length} tokens;"
            " set it to that"
        )
    sizes = {split: facts["tokens"] for split, facts in corpus.manifest["splits"].items()}
    tokens = sizes["train"]
    windows = (tokens - 1) // length
    needs = f"needs {batch * length + 1} tokens, the train split of {name} has {tokens}"
    if not windows:
        raise UserError(
            f"model.max_seq_len = {length} x train.batch_size = {batch} {needs};"
            f" allowed max_seq_len: up to {(tokens - 1) // batch}"
        )
    if windows < batch:
        raise UserError(
            f"train.batch_size = {batch} x model.max_seq_len = {length} {needs};"
            f" allowed batch_size: up to {windows}; lower one of them"
        )
    if sizes["val"] <= length:
        raise UserError(
            f"the val split of {name} has {sizes['val']} tokens, less than one window of"
            f" {length + 1}; set model.max_seq_len to at most {sizes['val'] - 1} or prepare a"
            " larger corpus"
        )
