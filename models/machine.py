"""What a training wants of the machine, and one line with the remedy where that falls short."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import LookoutError

_TOO_LITTLE_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "shared memory",
    "No space left",  # workers hand over batches in shared memory, which is a file system
)


# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


class TrainingStopped(LookoutError):
    """The machine ran out of memory, or ended a worker process."""


@contextmanager
def machine_limits() -> Iterator[None]:
    """One line with the remedy where the machine, not the training, is at fault."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        lines = str(error).splitlines() or [""]
        if str(error).startswith("DataLoader worker"):
            what = f"a worker process was ended ({lines[0].strip()})"
        elif isinstance(error, MemoryError) or any(sign in str(error) for sign in _TOO_LITTLE_MEMORY):
            what = f"out of memory ({lines[-1].strip()})"
        else:
            raise
        raise TrainingStopped(
            f"{what}; lower schedule.batch or workers, then continue with the same command"
        ) from error


def keep_freed_memory() -> bool:
    """Have this process keep the memory it frees for what it needs next; whether that was possible.

    The C library gives large blocks back to the system at once, which then has to clear them anew for every output of
    every layer: most of the time of the early layers of a network on a CPU. Only glibc has these settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no C library by that name, no such function, not POSIX
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings.items())
