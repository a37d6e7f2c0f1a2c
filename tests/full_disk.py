"""A limit of file sizes, which stands for a full disk."""

import contextlib
import resource
import sys


@contextlib.contextmanager
def file_size_limit(size):
    """Let no file of this process grow beyond `size` bytes.

    Bytecode is not written meanwhile: a module imported for the first time would leave a cut .pyc,
    with which every later import of it fails.
    """
    limits, writes_none = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_none
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
