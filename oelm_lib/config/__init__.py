"""Experiments as typed, frozen configs: load, override, compare.

`__all__` is what a notebook or a script may rely on; the other names serve the library itself.
"""

from oelm_lib.config.changes import (
    change_problems,
    change_warnings,
    change_words,
    confound_warning,
    diff_configs,
    diff_science,
    extra_changes,
)
from oelm_lib.config.experiment import (
    CORPUS_PATTERN,
    CORPUS_WORDS,
    SECTIONS,
    TOKENIZER_PATTERN,
    DataConfig,
    Experiment,
    MachineConfig,
    OptimConfig,
    ParameterGroup,
    TrainConfig,
    flatten,
)
from oelm_lib.config.fields import Count, Flag, Real, Section, SplitCounts, Whole, matches
from oelm_lib.config.load import (
    experiment_ids,
    experiment_path,
    find_id,
    load_config,
    overrides_text,
    parse_experiment,
    parse_overrides,
    read_yaml,
    skipped_files,
    validated,
    with_values,
)
from oelm_lib.config.model import ModelConfig
from oelm_lib.config.new import (
    check_new_id,
    experiment_yaml,
    new_experiment,
    save_experiment,
)
from oelm_lib.config.paths import PARAMS, ROOT, data_dir, fix_folders, outputs_dir

__all__ = [
    "PARAMS",
    "ROOT",
    "DataConfig",
    "Experiment",
    "MachineConfig",
    "ModelConfig",
    "OptimConfig",
    "ParameterGroup",
    "TrainConfig",
    "change_problems",
    "data_dir",
    "diff_configs",
    "experiment_ids",
    "experiment_yaml",
    "flatten",
    "load_config",
    "new_experiment",
    "outputs_dir",
]
