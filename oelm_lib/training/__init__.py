"""Training: the loop, optimizer, checkpoints, precision."""

from oelm_lib.training.loop import train
