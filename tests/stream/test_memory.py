"""What glibc's malloc says of its heaps, and what the kernel says of its pages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stream.memory import MOST_HEAPS

# Eight threads that allocate at once, and then glibc's own account of its heaps.
HEAPS = """
import ctypes, sys, threading
from stream.memory import limit_heaps
if sys.argv[1] == "told":
    assert limit_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
together = threading.Barrier(8)
def allocate():
    together.wait()
    for _ in range(200):
        libc.malloc(ctypes.c_size_t(1000))
threads = [threading.Thread(target=allocate) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
"""
# The same 64 MB again and again, and how many pages the kernel had to give for it.
PAGES = """
import ctypes, resource, sys
from stream.memory import keep_freed
if sys.argv[1] == "told":
    assert keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size = ctypes.c_size_t(64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    block = ctypes.c_void_p(libc.malloc(size))
    ctypes.memset(block, 1, size.value)
    libc.free(block)
with open(sys.argv[2], "w") as file:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, file=file)
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")


def _ran(program: str, how: str, told: Path) -> str:
    """What a program wrote to a file, in a process whose environment says nothing of malloc."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "GLIBC"))}
    subprocess.run([sys.executable, "-c", program, how, str(told)], check=True, env=clean, timeout=30)
    return told.read_text()


def test_threads_share_two_heaps(tmp_path: Path) -> None:
    heaps = [_ran(HEAPS, how, tmp_path / "heaps").count("<heap nr=") for how in ("told", "as it is")]
    assert heaps[0] <= MOST_HEAPS < heaps[1]


def test_what_is_freed_is_there_the_next_time(tmp_path: Path) -> None:
    kept, anew = (int(_ran(PAGES, how, tmp_path / "pages")) for how in ("told", "as it is"))
    assert kept < anew / 5, f"{kept} pages, {anew} where nothing is kept"
