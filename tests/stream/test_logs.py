"""What is written: JSON that machines read, no secret in any form, no flood. In processes of their own."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys

import pytest

from stream import logs
from stream.logs import JsonFormatter, RepeatFilter, TextFormatter
from stream.redaction import remember

SCRIPT = """
import logging, sys, threading, warnings
from stream.config import LogConfig
from stream.logs import configure_logging
from stream.redaction import remember
configure_logging(LogConfig(format=sys.argv[1], level="debug"))
remember(['pl4nted "secret"/1'])
log = logging.getLogger("stream.camera")
log.warning("camera %s: %s", "front", 'it said pl4nted "secret"/1 and pl4nted%20%22secret%22%2F1')
log.debug("two\\nlines")
try:
    raise ValueError('pl4nted "secret"/1')
except ValueError:
    log.exception("camera %s: failed", "yard")
warnings.warn("pl4nted \\"secret\\"/1", stacklevel=1)
def fail(): raise RuntimeError(repr('pl4nted "secret"/1'))
thread = threading.Thread(target=fail, name="worker"); thread.start(); thread.join()
raise OSError('rtsp://admin:pl4nted@192.0.2.1/')
"""


def written(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.returncode == 1
    return done.stderr


def test_json_is_one_object_a_line_and_knows_the_camera() -> None:
    text = written("json")
    assert "pl4nted" not in text
    entries = [json.loads(line) for line in text.splitlines()]
    first, second, failed, warning, thread, last = entries
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "warning",
        "logger": "stream.camera",
        "camera": "front",
        "message": "camera front: it said *** and ***",
    }
    assert second["message"] == "two\nlines"
    assert (failed["camera"], failed["level"]) == ("yard", "error")
    assert failed["exception"].endswith("ValueError: ***")
    assert "UserWarning" in warning["message"]
    assert thread["message"] == "worker ended: unexpected RuntimeError"
    assert last["exception"].endswith("OSError: rtsp://***@192.0.2.1/")


def test_text_is_for_people_and_the_environment_overrules() -> None:
    text = written("text")
    assert "pl4nted" not in text
    assert "WARNING stream.camera: camera front: it said *** and ***" in text
    assert "Traceback" in text
    quiet = written("text", LOOKOUT_LOG="error")
    assert "camera front" not in quiet
    assert "camera yard: failed" in quiet


def record(text: str, *values: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("stream.camera", level, "camera.py", 1, text, values, None)


def test_a_line_that_repeats_is_written_once_in_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(logs, "monotonic", lambda: now)
    repeats, plain = RepeatFilter(), TextFormatter("%(message)s")
    down, other = "camera %s: unreachable", "camera %s: unreachable too"
    assert repeats.filter(record(down, "front"))
    for _ in range(40):
        now += 14
        assert not repeats.filter(record(down, "front"))
    assert repeats.filter(record(down, "yard")), "of another camera"
    assert repeats.filter(record(other, "front")), "another line"
    assert repeats.filter(record(down, "front", level=logging.INFO)), "another level"
    now += 50
    again = record(down, "front")
    assert repeats.filter(again)
    assert plain.format(again) == "camera front: unreachable (and 40 times more in the last 610 s)"
    assert not repeats.filter(record(down, "front"))
    for _ in range(3):
        assert repeats.filter(record("no camera: %s", "x")), "what is about no camera is always written"


def test_what_somebody_changed_is_told_each_time() -> None:
    repeats = RepeatFilter()
    for _ in range(3):
        line = record("camera %s: %s through the API", "front", "changed", level=logging.INFO)
        line.name = "stream.live_config"
        assert repeats.filter(line)


def test_strangers_cannot_flood_the_log() -> None:
    repeats = RepeatFilter()
    invalid = [
        logging.LogRecord("uvicorn.error", logging.WARNING, "", 1, "Invalid HTTP request received.", (), None)
        for _ in range(100)
    ]
    assert sum(map(repeats.filter, invalid)) == 1


def test_what_the_filter_remembers_is_bounded() -> None:
    repeats = RepeatFilter()
    for number in range(5000):
        assert repeats.filter(record("camera %s: %s", "front", number))
    assert len(repeats._written) == logs.MOST_REMEMBERED


def test_arguments_that_are_no_strings_and_short_secrets() -> None:
    remember(["abc", "p4ssw0rd"])
    plain = TextFormatter("%(message)s")
    assert (
        plain.format(record("%s %d %s", ["p4ssw0rd"], 7, {"abc": b"p4ssw0rd"})) == "['***'] 7 {'abc': b'***'}"
    )
    assert json.loads(JsonFormatter().format(record("ü %s", "p4ssw0rd")))["message"] == "ü ***"
