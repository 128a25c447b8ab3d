"""What is written to standard error: text or JSON, one record a line, no secret, no flood.

``LOOKOUT_LOG`` (a level) overrules the configuration. Every record passes ``redact`` as it is written, its
traceback too, and so does what would otherwise be printed past the log: exceptions that nobody caught and
warnings. Knows nothing of what is logged but the form of a line about a camera: ``"camera %s: …"``, its id first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from collections import OrderedDict
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from stream.config import LogConfig
from stream.errors import UsageError
from stream.redaction import redact

QUIET_S = 600.0
MOST_REMEMBERED = 1024
_CAMERA = "camera %s: "
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

log = logging.getLogger(__name__)


def configure_logging(config: LogConfig | None = None) -> None:
    """Set the process's log up, once or anew.

    Raises:
        UsageError: ``LOOKOUT_LOG`` is no level.
    """
    config = config or LogConfig()
    level = os.environ.get("LOOKOUT_LOG", config.level).upper()
    if level not in logging.getLevelNamesMapping():
        raise UsageError(f"LOOKOUT_LOG is {level!r}; expected DEBUG, INFO, WARNING or ERROR")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter(_TEXT))
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("aiortc", "aioice", "uvicorn", "onnx_ir", "onnxscript"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.removeFilter(_is_fault)
    uvicorn.addFilter(_is_fault)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


class TextFormatter(logging.Formatter):
    """For people: a line, and a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """For machines: one JSON object a line. ``time`` is UTC (RFC 3339, milliseconds)."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        entry = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if (camera := _camera(record)) is not None:
            entry["camera"] = redact(camera)
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


_TOLD_EACH_TIME = ("stream.live_config",)  # what somebody changed


class RepeatFilter(logging.Filter):
    """What may come without end: each line once in ``QUIET_S``, then with how often it came.

    A camera that is down says the same for months, and strangers can have uvicorn say things as fast as they ask.
    The least recent of ``MOST_REMEMBERED`` lines is forgotten, and so written again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._written: OrderedDict[tuple[str, int, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        comes_by_itself = _camera(record) is not None and record.name not in _TOLD_EACH_TIME
        if not comes_by_itself and not record.name.startswith("uvicorn"):
            return True
        message, now = record.getMessage(), monotonic()
        key = record.name, record.levelno, message
        with self._lock:
            written_at, held_back = self._written.pop(key, (None, 0))
            if written_at is not None and now - written_at < QUIET_S:
                self._written[key] = written_at, held_back + 1
                return False
            self._written[key] = now, 0
            if len(self._written) > MOST_REMEMBERED:
                self._written.popitem(last=False)
        if held_back and written_at is not None:
            record.msg = f"{record.msg} (and {held_back} times more in the last {now - written_at:.0f} s)"
        return True


def _camera(record: logging.LogRecord) -> str | None:
    about_one = isinstance(record.msg, str) and record.msg.startswith(_CAMERA)
    return str(record.args[0]) if about_one and isinstance(record.args, tuple) and record.args else None


def _is_fault(record: logging.LogRecord) -> bool:
    """Not so: requests that were cut off by the end of the app, and WebSockets that were refused with a reason."""
    if record.msg == "ASGI callable returned without completing handshake.":
        return False
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


def _uncaught(kind: Any, error: Any, trace: Any) -> None:
    log.critical("unexpected %s", kind.__name__, exc_info=(kind, error, trace))


def _uncaught_in_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is not None:
        name = caught.thread.name if caught.thread is not None else "a thread"
        error = (caught.exc_type, caught.exc_value, caught.exc_traceback)
        log.critical("%s ended: unexpected %s", name, caught.exc_type.__name__, exc_info=error)
