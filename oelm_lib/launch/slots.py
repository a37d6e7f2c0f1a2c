"""Slots: where the runs of a queue can go, and the decision which run starts now."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from oelm_lib.errors import UserError
from oelm_lib.hardware import gpu_handle, open_nvml, query_gpu, visible_gpus
from oelm_lib.launch.jobs import Job, Writer

IDLE_SECONDS = 60.0
"""How long a GPU must have been idle before it is used: jobs of others pause between epochs."""
FREE_SHARE = 0.05
"""Share of a GPU's memory that the driver itself may hold."""


class IdleWatch:
    """Tells whether GPUs that this process does not use have been idle for IDLE_SECONDS.

    Args:
        nvml: hardware.open_nvml(), or an object with its functions.
        clock: Returns seconds that only grow.
    """

    def __init__(self, nvml: Any, clock: Callable[[], float] = time.monotonic):
        self._nvml, self._clock = nvml, clock
        self._idle_since: dict[str, float] = {}

    def check(self, gpu: str) -> None:
        """Raise UserError where the driver does not report whether the GPU is idle."""
        self._usage(gpu)

    def reason(self, gpu: str) -> str | None:
        """Return why the GPU cannot be used now, or None. Every call counts as one observation."""
        try:
            usage = self._usage(gpu)
        except UserError as error:  # a GPU that the driver has lost must not end the queue
            self._idle_since.pop(gpu, None)
            return str(error)
        if usage:
            self._idle_since.pop(gpu, None)
            return f"GPU {gpu}: {usage}"
        since = self._idle_since.setdefault(gpu, self._clock())
        if self._clock() - since >= IDLE_SECONDS:
            return None
        return f"GPU {gpu}: idle, watched for {IDLE_SECONDS:.0f} s"

    def forget(self, gpu: str) -> None:
        """Reset the idle time of a GPU that a run of this queue is about to use."""
        self._idle_since.pop(gpu, None)

    def _usage(self, gpu: str) -> str | None:
        """Return who uses a GPU, or None. Raises UserError where the driver does not report it."""
        processes = query_gpu(self._nvml, "nvmlDeviceGetComputeRunningProcesses", gpu)
        if processes:
            return f"used by {', '.join(_owner(process.pid) for process in processes)}"
        memory = query_gpu(self._nvml, "nvmlDeviceGetMemoryInfo", gpu)
        if memory is None and processes is None:
            raise UserError(
                f"GPU {gpu}: the driver reports neither processes nor memory; leave out --wait-idle"
            )
        # In a container the processes of others can be hidden, but their memory is not.
        if memory is not None and memory.used > FREE_SHARE * memory.total:
            return f"{memory.used / 2**30:.1f} of {memory.total / 2**30:.1f} GiB in use"
        return None


def _owner(pid: int) -> str:
    """Return a process number with its user where that is known."""
    try:
        return f"process {pid} ({psutil.Process(pid).username()})"
    except (psutil.Error, KeyError):
        return f"process {pid}"


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
    """Seconds without any active run after which the queue gives up."""

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


def choose_gpus(text: str, nvml: Any) -> list[str]:
    """Return the GPUs meant by `auto` (all that CUDA_VISIBLE_DEVICES allows) or by "2,3".

    Raises:
        UserError: A named GPU does not exist, or there is none.
    """
    if text == "auto":
        chosen = visible_gpus(nvml)
        if not chosen:
            raise UserError(
                "--gpus auto: CUDA_VISIBLE_DEVICES allows no GPU of this machine; unset it, name"
                " GPUs as in --gpus 0,1, or use --workers N on the CPU"
            )
        return chosen
    chosen = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not chosen:
        raise UserError(f"--gpus {text!r}: no GPU named; use auto, or numbers as in --gpus 0,1")
    for gpu in chosen:
        try:
            gpu_handle(nvml, gpu)
        except UserError as error:
            raise UserError(f"--gpus {text}: {error}") from None
    return chosen


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
    if wait_idle and gpus is None:
        raise UserError("--wait-idle is about GPUs; add --gpus auto or --gpus 2,3")
    if gpus is None:
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
    if watch:
        for gpu in chosen:
            watch.check(gpu)  # a driver that cannot tell is reported before anything starts
    return Slots(workers, chosen, watch=watch, max_wait=3600 * max_wait)


def check_room(jobs: list[Job], slots: Slots) -> None:
    """Raise UserError where a job needs more GPUs than there are, or names one itself."""
    for job in jobs:
        if slots.gpus and job.device.startswith("cuda:"):
            raise UserError(
                f"{job.name}: machine.device = {job.device}, but a queue gives each run its GPU;"
                " leave the key out, and name the GPUs by --gpus"
            )
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
        writers: Waiting jobs that another process is training, with that process.
        held: GPUs of each run that this queue has started.
    """
    taken = [*held, *(writer.gpus for writer in writers.values() if writer.is_local)]
    load = Counter(gpu for gpus in taken for gpu in gpus)
    watched = [gpu for gpu in slots.gpus if not load[gpu]] if slots.watch else []
    blocked = {gpu: reason for gpu in watched if (reason := slots.watch.reason(gpu))}
    starts: list[tuple[Job, tuple[str, ...]]] = []
    for job in waiting:
        if job in writers:
            continue
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
