"""Packages that import a public name when it is first used, so that importing them stays light."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, file_of: dict[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: Its `__name__`.
        file_of: Public name -> the file of the package that defines it, or the full name of a
            module of another package.
    """

    def get(name: str) -> Any:
        if name not in file_of:
            offered = ", ".join(names)  # for a notebook that was written for an older version
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {offered}")
        home = file_of[name]
        return getattr(import_module(home if "." in home else f"{package}.{home}"), name)

    names = sorted(file_of)
    return get, lambda: names, names
