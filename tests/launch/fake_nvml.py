"""A stand-in for NVML over GPUs described by lists; the functions are those that the code calls."""

import types


class FakeNvml:
    """GPUs of 24 GiB, each with its processes, used memory (GiB) and UUID."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818
        pass

    def __init__(self, count, unsupported=()):
        self.pids = [[] for _ in range(count)]
        self.used = [0.3] * count
        self.unsupported = unsupported
        self.lost = set()

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.pids)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        if index in self.lost:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        if not name.startswith("MIG-GPU-0000/"):
            raise self.NVMLError("not found")
        return 0

    def nvmlDeviceGetUUID(self, device):  # noqa: N802
        return f"GPU-{device}a0e-77f1"

    def nvmlDeviceGetName(self, device):  # noqa: N802
        return "Fake A100"

    def nvmlDeviceGetComputeRunningProcesses(self, device):  # noqa: N802
        if "processes" in self.unsupported:
            raise self.NVMLError_NotSupported
        return [types.SimpleNamespace(pid=pid) for pid in self.pids[device]]

    def nvmlDeviceGetMemoryInfo(self, device):  # noqa: N802
        if "memory" in self.unsupported:
            raise self.NVMLError_NotSupported
        used = int(self.used[device] * 2**30)
        return types.SimpleNamespace(used=used, total=24 * 2**30, free=24 * 2**30 - used)
