"""A real headless Firefox, driven over WebDriver BiDi (https://w3c.github.io/webdriver-bidi/).

Playwright would want a Firefox of its own making; this takes the one that is installed. What it offers is
what an offline Firefox offers: no OpenH264, addresses hidden behind mDNS names.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("firefox-esr", "firefox")
START_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 20.0

PREFS = {
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": True,
    "media.gmp-manager.updateEnabled": False,
    "media.gmp-gmpopenh264.enabled": False,
    # Nothing but the page is fetched.
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "",
    "toolkit.telemetry.server": "",
}


def find_firefox() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Firefox:
    """One tab. ``faults`` are what its scripts and its security policy complained of."""

    def __init__(self, socket: ClientConnection) -> None:
        self.faults: list[str] = []
        self._socket = socket
        self._ids = itertools.count(1)
        self.call("session.new", capabilities={})
        self.call("session.subscribe", events=["log.entryAdded"])
        self._tab = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method: str, **params: Any) -> Any:
        """One command and its result.

        Raises:
            RuntimeError: Firefox refused it.
            TimeoutError: no answer.
        """
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv(timeout=ANSWER_TIMEOUT_S))
            if said["type"] == "event":
                self._note(said)
            elif said.get("id") == number:
                if said["type"] == "error":
                    raise RuntimeError(f"{method}: {said['error']}: {said['message']}")
                return said["result"]

    def before_each_page(self, script: str) -> None:
        """Run ``script`` in every page before anything of its own."""
        self.call("script.addPreloadScript", functionDeclaration=f"() => {{ {script} }}")

    def goto(self, url: str) -> None:
        self.call("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of what it promises."""
        answer = self.call(
            "script.evaluate",
            expression=f"(async () => JSON.stringify([await ({expression})]))()",
            target={"context": self._tab},
            awaitPromise=True,
        )
        if answer["type"] != "success":
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['text']}")
        return json.loads(answer["result"]["value"])[0]

    def wait_for(self, expression: str, timeout_s: float = 20.0) -> None:
        """Until the expression holds; raises AssertionError."""
        deadline = time.monotonic() + timeout_s
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {expression}; {self.faults}"
            time.sleep(0.05)

    def _note(self, event: dict[str, Any]) -> None:
        entry = event["params"]
        if entry.get("level") == "error":
            self.faults.append(str(entry.get("text")))


@contextmanager
def running(profile: Path, **prefs: bool) -> Iterator[Firefox]:
    """Firefox with a new profile in an empty folder, until the block ends."""
    lines = (
        f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in (PREFS | prefs).items()
    )
    (profile / "user.js").write_text("\n".join(lines))
    executable = find_firefox()
    assert executable is not None
    command = [executable, "--headless", "--no-remote", "--profile", str(profile)]
    with (profile / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--remote-debugging-port", "0", "about:blank"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        with connect(f"{_address(profile, process)}/session", proxy=None, max_size=1 << 24) as socket:
            yield Firefox(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Where it listens; Firefox writes that into its profile."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            said = json.loads((profile / "WebDriverBiDiServer.json").read_text())
            return f"ws://{said['ws_host']}:{said['ws_port']}"
        except (OSError, ValueError):
            time.sleep(0.05)
    raise AssertionError(f"Firefox did not listen:\n{(profile / 'log.txt').read_text()[-2000:]}")
