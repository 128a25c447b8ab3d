"""``lookout watch`` in a process of its own, and waiting for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OPEN = re.compile(r"open\s+(http://[^\s/]+)")


class App:
    """A running ``lookout watch``; ``url`` is where its page is."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.url = self._await_address()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=5) as response:
            return json.loads(response.read())

    def camera(self, name: str) -> dict[str, Any]:
        return {camera["id"]: camera for camera in self.get("api/cameras")}[name]

    def tell(self) -> None:
        """Print what the server thinks, for the report of a failed test."""
        with contextlib.suppress(OSError):
            print(json.dumps(self.get("api/cameras"), indent=1))
        print(self.log.read_text(errors="replace")[-4000:])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def _await_address(self) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            text = self.log.read_text(errors="replace")
            if found := OPEN.search(text):
                url = found[1]
                if self._answers(url):
                    return url
            if self.process.poll() is not None:
                raise AssertionError(f"lookout watch ended with {self.process.returncode}:\n{text}")
            time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"lookout watch printed no address that answers:\n{self.log.read_text()}")

    def _answers(self, url: str) -> bool:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=2):
                return True
        except OSError:
            return False


@contextmanager
def running(*arguments: str, log: Path) -> Iterator[App]:
    """``lookout watch`` with these arguments on a free port (or the one given), until the block ends."""
    command = [str(Path(sys.executable).with_name("lookout")), "watch", *arguments]
    command += [] if "--port" in arguments else ["--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200"},
            process_group=0,  # Ctrl-C is for whoever started it, who then stops it
        )
    try:
        app = App(process, log)
        try:
            yield app
        except BaseException:
            app.tell()
            raise
        app.stop()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(5)


def wait_until(what: Callable[[], bool], timeout_s: float, hint: Callable[[], object] = lambda: "") -> float:
    """Poll ``what`` until it holds; returns the seconds that it took."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > timeout_s:
            raise AssertionError(f"not within {timeout_s} s: {hint()}")
        time.sleep(0.05)
    return time.monotonic() - began
