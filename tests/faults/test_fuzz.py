"""Bits flipped in a real clip's packets never end, or stop, the process. ``LOOKOUT_FUZZ_S`` fuzzes for longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SECONDS = float(os.environ.get("LOOKOUT_FUZZ_S", "4"))


@pytest.mark.timeout(SECONDS + 90)
def test_damaged_packets_neither_crash_nor_hang_the_process(bikes: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.fuzz", str(bikes), str(SECONDS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 60)
    lines = run.stdout.splitlines()
    assert run.returncode == 0, f"seed {lines[-1:]}: {run.stderr[-2000:]}"
    said = json.loads(lines[-1])
    print(said)
    assert said["clips"] >= 5
    assert said["pictures"] > 20 * said["clips"], "they were damaged, not useless"
    assert said["bad packets"] > 0
