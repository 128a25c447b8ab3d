"""How much memory glibc may keep for itself: little in an app that runs for months, all of it in a training.

Knows nothing of either.
"""

from __future__ import annotations

import ctypes
import os
import sys

MOST_HEAPS = 2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_MOST = 2**31 - 1


def limit_heaps() -> bool:
    """Let malloc have two heaps, unless the environment says something of its own. False: this is no glibc.

    It gives threads heaps of their own, up to eight a core, each of which keeps what was once freed in it. An app
    whose decoders and encoders come and go in ever new threads spreads over all of them: 120 viewers one after
    another took it from 295 to 380 MB with the 16 of two cores, from 266 to 307 MB with two.

    To be called before there are threads, whose heaps would stay.
    """
    return _told("MALLOC_ARENA_MAX") or _mallopt(_M_ARENA_MAX, MOST_HEAPS)


def keep_freed() -> bool:
    """Let malloc keep what is freed, unless the environment says something of its own. False: this is no glibc.

    A training wants the same large tensors again at every step. Each would be given back to the kernel and asked
    for again, which clears every page of it: half the time of an R-CNN's training on the CPU.
    """
    told = _told("MALLOC_TRIM_THRESHOLD_") or _told("MALLOC_MMAP_THRESHOLD_")
    return told or (_mallopt(_M_TRIM_THRESHOLD, _MOST) and _mallopt(_M_MMAP_THRESHOLD, _MOST))


def _told(name: str) -> bool:
    return name in os.environ or "GLIBC_TUNABLES" in os.environ


def _mallopt(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(option, value) == 1


def give_back() -> bool:
    """Hand to the kernel what is free in malloc's heaps, after much of it was freed at once. False: this is no glibc.

    Of each model that is exchanged some 10 MB would stay otherwise, in holes. Takes a few milliseconds, in which other
    threads may have to wait for memory.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and trim(0) == 1
