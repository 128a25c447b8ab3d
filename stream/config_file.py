"""Configuration files and command lines -> ``AppConfig``.

Unknown keys and wrong values are refused by their path and line; nothing is guessed. A document keeps its
references to secrets (``stream/references.py``); the ``AppConfig`` made of it holds their values, and every
secret in it is ``remember``ed, so that nothing says it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stream.config import (
    DEFAULT_DETECTOR,
    AppConfig,
    CameraConfig,
    DetectorConfig,
    EncoderConfig,
    LogConfig,
    ServerConfig,
)
from stream.errors import ConfigError, redact
from stream.redaction import remember, url_secrets
from stream.references import Unresolved, resolve

_HIDDEN = {"token", "credential", "secret"}
# Places that hold no secrets, even by reference: what is there is printed.
_SHOWN_SECTIONS = ("log", "detector", "detectors", "encoder")
_SHOWN_KEYS = (["server", "host"], ["server", "port"])
MAX_CONFIG_BYTES = 1 << 20


def load_config(path: Path) -> AppConfig:
    """Read a YAML file.

    Raises:
        ConfigError: as ``read_document`` and ``config_of`` do.
    """
    return config_of(read_document(path), str(path))


def read_document(path: Path) -> Any:
    """A YAML file as it was written: a mapping with its comments, lines and references.

    Raises:
        ConfigError: the file cannot be read, or is not YAML.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"{path}: larger than {MAX_CONFIG_BYTES} bytes; expected a lookout YAML configuration"
            )
        yaml = YAML()
        yaml.preserve_quotes = True  # for who writes it again
        document = yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); expected a YAML configuration"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text; expected a YAML configuration") from error
    except YAMLError as error:
        raise ConfigError(f"{path}{_yaml_fault(error)}") from None
    except (ValueError, LookupError):  # a number, date or !!tag that ruamel cannot make a value of
        raise ConfigError(f"{path}: a value in it cannot be read; quote it if it is text") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply; expected a lookout YAML configuration") from None
    if not isinstance(document, Mapping):
        raise ConfigError(
            f"{path}: expected keys such as 'cameras:' at the top level, got {type(document).__name__}"
        )
    return document


def config_of(document: Mapping[str, Any], origin: str) -> AppConfig:
    """What a document says, its references resolved; it is left as it is.

    Raises:
        ConfigError: a reference stands for nothing, or a key or value is wrong; one line a fault, each with its
            line number and key path.
    """
    resolved = _Resolved(document)
    if resolved.faults:
        raise ConfigError("\n".join(resolved.lines(origin)))
    return _validate(resolved.document, origin, document)


def config_from_sources(
    sources: Sequence[str],
    settings: Mapping[str, Mapping[str, object]],
    camera: Mapping[str, object] | None = None,
) -> AppConfig:
    """The configuration of a command line: its sources, values by section, and for every camera.

    Raises:
        ConfigError: a value is wrong.
    """
    cameras: dict[str, dict[str, object]] = {}
    for source in sources:
        cameras[_camera_name(source, cameras)] = {"source": source, **(camera or {})}
    return _validate({**settings, "cameras": cameras}, "command line")


def camera_of(camera_id: str, camera: Mapping[str, Any], config: AppConfig) -> CameraConfig:
    """A camera that a caller of the API gives: its values stand for themselves, references are none.

    Raises:
        ConfigError: its name, a key or a value is wrong, or it names a detector that ``config`` has not.
    """
    document = {"cameras": {camera_id: camera}, "detectors": {name: {} for name in config.detectors}}
    return _validate(document, "request").cameras[camera_id]


def detector_of(name: str, detector: Mapping[str, Any]) -> DetectorConfig:
    """A detector's values that a caller of the API gives: they stand for themselves, references are none.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    if name == DEFAULT_DETECTOR:
        return _validate({"cameras": {}, "detector": detector}, "request").detector
    return _validate({"cameras": {}, "detectors": {name: detector}}, "request").detectors[name]


def override(config: AppConfig, settings: Mapping[str, Mapping[str, object]]) -> AppConfig:
    """``config`` with single values replaced, section by section, and validated again."""
    document = config.model_dump()
    for section, values in settings.items():
        document[section] = {**document[section], **values}
    return _validate(document, "command line")


class _Resolved:
    """A copy of a document with what its references stand for, and those that stand for nothing."""

    def __init__(self, written: Mapping[str, Any]) -> None:
        self.faults: list[tuple[list[str], str]] = []
        self._written = written
        self._copies: dict[int, Any] = {}  # by identity: YAML's aliases may make cycles
        self.document = self._copy(written, [])

    def lines(self, origin: str) -> list[str]:
        """One line a fault."""
        return [
            f"{_where(self._written, origin, path)}: {'.'.join(path)}: {fault}" for path, fault in self.faults
        ]

    def _copy(self, value: Any, path: list[str]) -> Any:
        if isinstance(value, str):
            return self._text(value, path)
        if not isinstance(value, Mapping | list):
            return value
        if id(value) not in self._copies:
            if isinstance(value, Mapping):
                copy: Any = self._copies.setdefault(id(value), {})
                copy.update({key: self._copy(each, [*path, str(key)]) for key, each in value.items()})
            else:
                copy = self._copies.setdefault(id(value), [])
                copy.extend(self._copy(each, [*path, str(index)]) for index, each in enumerate(value))
        return self._copies[id(value)]

    def _text(self, text: str, path: list[str]) -> str:
        try:
            resolved, values = resolve(text)
        except Unresolved as fault:
            self.faults.append((path, str(fault)))
            return text
        if path[0] not in _SHOWN_SECTIONS and path not in _SHOWN_KEYS:
            remember(values)
        return resolved


def _secrets(config: AppConfig) -> Iterator[str]:
    """Everything in it that must not be said."""
    for camera in config.cameras.values():
        yield from url_secrets(camera.source)
    hidden = [config.server.token]
    for server in config.server.ice_servers:
        hidden += [server.credential, server.secret]
    yield from (each.get_secret_value() for each in hidden if each is not None)


def _validate(
    document: Mapping[str, Any], origin: str, written: Mapping[str, Any] | None = None
) -> AppConfig:
    """The configuration that ``document`` is; faults are told by the lines of what was ``written``."""
    written = document if written is None else written
    token = os.environ.get("LOOKOUT_TOKEN")
    server = document.get("server", {})
    if token and isinstance(server, Mapping) and not server.get("token"):
        document = {**document, "server": {**server, "token": token}}
    try:
        config = AppConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(_fault(written, origin, fault) for fault in error.errors())) from None
    remember(_secrets(config))
    return config


def _fault(document: Mapping[str, Any], origin: str, fault: Any) -> str:
    """One line for one pydantic error: where, what was expected, what came."""
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    where = _where(document, origin, path)
    key = ".".join(path) or "configuration"
    if fault["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
        return f"{where}: {key}: unknown key; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{where}: {key}: is missing"
    given = _at(document, path, fault["input"])
    shown = f" (got {redact(repr(given))[:80]})" if isinstance(given, str | int | float | bool) else ""
    return redact(f"{where}: {key}: {message[0].lower()}{message[1:]}{'' if _HIDDEN & set(path) else shown}")


def _known_keys(path: list[str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "server": ServerConfig,
        "log": LogConfig,
        "detector": DetectorConfig,
        "detectors": DetectorConfig,
        "encoder": EncoderConfig,
        "cameras": CameraConfig,
    }
    return list((sections[path[0]] if path else AppConfig).model_fields)


def _where(document: Mapping[str, Any], origin: str, path: list[str]) -> str:
    line = _line_of(document, path)
    return f"{origin}:{line}" if line else origin


def _line_of(document: Any, path: list[str]) -> int | None:
    """The 1-based line of the deepest key of ``path`` that the YAML document has."""
    line: int | None = None
    for part in path:
        positions = getattr(document, "lc", None)
        if not isinstance(document, Mapping) or part not in document or positions is None:
            break
        line = positions.data[part][0] + 1 if part in (positions.data or {}) else line
        document = document[part]
    return line


def _at(document: Any, path: list[str], otherwise: object) -> object:
    """What was written there: a reference, where what was judged is what it stands for."""
    for part in path:
        if isinstance(document, Mapping) and part in document:
            document = document[part]
        elif isinstance(document, list) and part.isdecimal() and int(part) < len(document):
            document = document[int(part)]
        else:
            return otherwise
    return document


def _yaml_fault(error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        problem = str(error.problem).partition(" with value ")[
            0
        ]  # of a key that is there twice: it may be secret
        return f":{error.problem_mark.line + 1}: not valid YAML: {problem}"
    return ": not valid YAML"


def _camera_name(source: str, taken: Mapping[str, object]) -> str:
    """A short name for a source: the file's stem, the host, ``demo``, ``camera`` for a device."""
    source = redact(source)
    if "://" in source:
        stem = re.sub(r"^.*?://(?:\*\*\*@)?([^/:?]*).*$", r"\1", source)
    elif source.isdigit():
        stem = f"camera{source}"
    else:
        stem = (
            re.split(r"[:@]", source, maxsplit=1)[0] if source.startswith("synthetic") else Path(source).stem
        )
    stem = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:32] or "camera"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name
