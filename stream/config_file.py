"""Configuration files and command lines -> ``AppConfig``.

Unknown keys and wrong values are refused by their path and line; nothing is guessed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stream.config import AppConfig, CameraConfig, DetectorConfig, EncoderConfig, LogConfig, ServerConfig
from stream.errors import ConfigError, redact

_HIDDEN = {"token", "credential", "secret"}
MAX_CONFIG_BYTES = 1 << 20


def load_config(path: Path) -> AppConfig:
    """Read a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or a key or value is wrong; one line a
            fault, each with its line number and key path.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"{path}: larger than {MAX_CONFIG_BYTES} bytes; expected a lookout YAML configuration"
            )
        document = YAML().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); expected a YAML configuration"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text; expected a YAML configuration") from error
    except YAMLError as error:
        raise ConfigError(f"{path}{_yaml_fault(error)}") from error
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply; expected a lookout YAML configuration") from None
    if not isinstance(document, Mapping):
        raise ConfigError(
            f"{path}: expected keys such as 'cameras:' at the top level, got {type(document).__name__}"
        )
    return _validate(document, str(path))


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


def override(config: AppConfig, settings: Mapping[str, Mapping[str, object]]) -> AppConfig:
    """``config`` with single values replaced, section by section, and validated again."""
    document = config.model_dump()
    for section, values in settings.items():
        document[section] = {**document[section], **values}
    return _validate(document, "command line")


def _validate(document: Mapping[str, Any], origin: str) -> AppConfig:
    token = os.environ.get("LOOKOUT_TOKEN")
    server = document.get("server", {})
    if token and isinstance(server, Mapping) and not server.get("token"):
        document = {**document, "server": {**server, "token": token}}
    try:
        return AppConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(_fault(document, origin, fault) for fault in error.errors())) from None


def _fault(document: Mapping[str, Any], origin: str, fault: Any) -> str:
    """One line for one pydantic error: where, what was expected, what came."""
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    line = _line_of(document, path)
    where = f"{origin}:{line}" if line else origin
    key = ".".join(path) or "configuration"
    if fault["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
        return f"{where}: {key}: unknown key; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{where}: {key}: is missing"
    given = fault["input"]
    shown = f" (got {redact(repr(given))[:80]})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {key}: {message[0].lower()}{message[1:]}{'' if _HIDDEN & set(path) else shown}"


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


def _yaml_fault(error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f":{error.problem_mark.line + 1}: not valid YAML: {error.problem}"
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
