"""Slots: where the runs of a queue can go, and the decision which run starts now."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oelm_lib.errors import UserError
from oelm_lib.hardware import open_nvml, visible_gpus
from oelm_lib.launch.devices import IdleWatch, choose_gpus
from oelm_lib.launch.jobs import Job, Writer


@dataclass(frozen=True)
class Slots:
    """Room for runs: `workers` at a time on the CPU, or on GPUs."""

    workers: int = 1
    """Concurrent runs, unless each has a GPU of its own."""
    gpus: tuple[str, ...] = ()
    """GPUs by number, UUID or MIG name; without any, runs choose their device themselves."""
    shared: bool = False
    """Whether several runs may use one GPU; else each run has its own."""
    watch: IdleWatch | None = None
    """Asked before a GPU is used; None: GPUs are used at once."""
    max_wait: float = 24 * 3600.0
    """Seconds without a running run after which the queue gives up."""

    @property
    def width(self) -> int:
        """Concurrent runs at most."""
        return len(self.gpus) if self.gpus and not self.shared else self.workers

    def describe(self) -> str:
        """Return where runs go, for messages."""
        number = f"{self.width} at a time"
        if not self.gpus:
            return number
        where = f"on GPU {', '.join(self.gpus)}"
        return f"{number} {where}" if self.shared else where


def make_slots(
    workers: int,
    gpus: str | None,
    wait_idle: bool = False,
    max_wait: float = 24.0,
    open_driver: Callable[[], Any] = open_nvml,
) -> Slots:
    """Return the slots that the command line asks for.

    Without `gpus`, workers on a machine that has GPUs are spread over them.

    Args:
        max_wait: Hours.
        open_driver: Opens NVML.

    Raises:
        UserError: A GPU does not exist, or the driver cannot tell whether it is idle.
    """
    if wait_idle and not gpus:
        raise UserError("--wait-idle is about GPUs; add --gpus auto or --gpus 2,3")
    if not gpus:
        try:
            visible = tuple(visible_gpus(open_driver()))
        except UserError:
            visible = ()
        return Slots(workers, visible, shared=bool(visible), max_wait=3600 * max_wait)
    try:
        nvml = open_driver()
    except UserError as error:
        raise UserError(f"--gpus {gpus}: {error}, or use --workers N on the CPU") from None
    chosen = tuple(choose_gpus(gpus, nvml))
    watch = IdleWatch(nvml) if wait_idle else None
    for gpu in chosen if watch else ():
        watch.reason(gpu)  # a driver that cannot tell is reported before anything starts
    return Slots(workers, chosen, watch=watch, max_wait=3600 * max_wait)


def check_room(jobs: list[Job], slots: Slots) -> None:
    """Raise UserError where a job needs more GPUs than there are."""
    for job in jobs:
        if slots.gpus and not slots.shared and job.devices > len(slots.gpus):
            raise UserError(
                f"{job.name}: machine.devices = {job.devices}, but --gpus names"
                f" {len(slots.gpus)}; name more"
            )


def decide(
    waiting: list[Job],
    writers: dict[Job, Writer],
    held: list[tuple[str, ...]],
    slots: Slots,
) -> tuple[list[tuple[Job, tuple[str, ...]]], list[str]]:
    """Return which of the waiting jobs start now, each with its GPUs, and why the others wait.

    Args:
        waiting: Jobs that are neither done nor started by this queue.
        writers: Those of them that another process trains now; they are waited for.
        held: GPUs of each run that this queue has started.
    """
    taken = [*held, *(writer.gpus for writer in writers.values() if writer.is_local)]
    load = Counter(gpu for gpus in taken for gpu in gpus)
    watched = [gpu for gpu in slots.gpus if not load[gpu]] if slots.watch else []
    blocked = {gpu: reason for gpu in watched if (reason := slots.watch.reason(gpu))}
    starts: list[tuple[Job, tuple[str, ...]]] = []
    for job in (job for job in waiting if job not in writers):
        free = [gpu for gpu in slots.gpus if gpu not in blocked]
        if slots.gpus and not slots.shared:
            free = [gpu for gpu in free if not load[gpu]]
            if len(free) < job.devices:
                break
        elif len(taken) + len(starts) >= slots.workers:
            break
        elif job.device == "cpu":
            free = []
        gpus = tuple(sorted(free, key=lambda gpu: load[gpu])[: job.devices])
        load.update(gpus)
        starts.append((job, gpus))
    others = [
        f"{job.name} runs as process {writer.pid} on {writer.host}"
        for job, writer in writers.items()
    ]
    return starts, [*blocked.values(), *others]
