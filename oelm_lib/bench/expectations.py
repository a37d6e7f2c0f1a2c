"""What to expect of an experiment before it runs: hours and rates by the cost model."""

from dataclasses import dataclass

import pandas as pd

from oelm_lib.config import load_config
from oelm_lib.hardware import GPU_FLOPS
from oelm_lib.model.cost import step_flops, training_hours


@dataclass(frozen=True)
class Device:
    """A device with its peak in FLOP/s and the share of it that training steps may reach."""

    name: str
    peak: float
    low: float
    high: float


LAPTOP = Device("laptop CPU", 0.5e12, 0.4, 0.8)
"""fp32 on about eight cores; the share is that of this workbook's CPU bench."""
DEVICES = [LAPTOP, *(Device(name, peak, 0.2, 0.4) for name, peak in GPU_FLOPS.items())]
"""GPUs: half precision, compiled. Published figures for models of this size are 20 to 40 %."""


def expected_hours(exps: list[str]) -> pd.DataFrame:
    """Tabulate hours of training, one row an experiment, one column a device, as ranges."""
    rows = []
    for exp in exps:
        cfg = load_config(exp)
        hours = {
            device.name: _range(
                training_hours(cfg, device.peak * device.high),
                training_hours(cfg, device.peak * device.low),
            )
            for device in DEVICES
        }
        rows.append({"experiment": exp, **hours, "measured": "not measured"})
    return pd.DataFrame(rows)


def expected_rates(exp: str) -> dict[str, str]:
    """Device -> thousand tokens per second of an experiment's step, as a range."""
    cfg = load_config(exp)
    flops = step_flops(cfg.model, cfg.train.batch_size)["fast"]
    tokens = cfg.step_tokens
    return {
        device.name: _range(
            tokens * device.peak * device.low / flops / 1e3,
            tokens * device.peak * device.high / flops / 1e3,
        )
        for device in DEVICES
    }


def _range(low: float, high: float) -> str:
    return f"{_two_digits(low)}–{_two_digits(high)}"


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.10g}"
