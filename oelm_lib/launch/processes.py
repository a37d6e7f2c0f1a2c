"""End processes with everything they have started."""

import psutil


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants; those that are gone already are skipped."""
    try:
        root = psutil.Process(pid)
        processes = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
