"""The heaps of glibc's malloc, counted by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stream.memory import MOST_HEAPS

# Eight threads that allocate at once, and then glibc's own account of its heaps.
PROGRAM = """
import ctypes, sys, threading
from stream.memory import limit_heaps
if sys.argv[1] == "limited":
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")
def test_threads_share_two_heaps(tmp_path: Path) -> None:
    def heaps(how: str) -> int:
        told = tmp_path / how
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "GLIBC"))
        }
        subprocess.run([sys.executable, "-c", PROGRAM, how, str(told)], check=True, env=clean, timeout=30)
        return told.read_text().count("<heap nr=")

    assert heaps("limited") <= MOST_HEAPS < heaps("as it is")
