"""A camera or a detector written into a YAML file, or a camera taken out; its comments, order and references stay.

Knows nothing of what runs.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

from stream.config import DEFAULT_DETECTOR, AppConfig, CameraConfig, DetectorConfig
from stream.config_file import config_of, read_document
from stream.errors import ConfigError
from stream.references import Unresolved, has_reference, literal, resolve

Signature = tuple[int, int, int]

_WIDE = 4096  # no line is broken that was none
_AFTER_KEY = r":[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*"
_NESTED = re.compile(rf"^[\w-]+{_AFTER_KEY}( +)[^\s#-]", re.MULTILINE)
_LISTED = re.compile(rf"^( *)[\w-]+{_AFTER_KEY}( *)(- +)\S", re.MULTILINE)


def save_camera(
    path: Path, camera_id: str, camera: Mapping[str, Any] | None, before: CameraConfig | None = None
) -> AppConfig:
    """Write a camera into the file, or take it out.

    Args:
        path: of a configuration; replaced at once, so that nobody reads half of it.
        camera_id: its key under ``cameras``.
        camera: its keys and values, in which ``${`` stands for itself; None takes it out. A value that is
            there already, if only by a reference, is left as it is written.
        before: as it was in force. What has not changed since, and stands in the file by a reference, stays one,
            even if that stands for something else by now: a secret is not written out because it was renewed.

    Returns:
        What the file says now.

    Raises:
        ConfigError: the file is wrong as it is, cannot be written, or takes this camera's keys for others, too.
    """
    as_read = signature(path)
    document = read_document(path)
    wanted = {**config_of(document, str(path)).cameras}
    wanted.pop(camera_id, None)
    cameras = document.get("cameras")
    if camera is None:
        cameras.pop(camera_id, None)
    else:
        camera = {**camera, **_renewed(cameras.get(camera_id), camera, before)}
        wanted[camera_id] = CameraConfig.model_validate(camera)
        _set(cameras, camera_id, camera, CameraConfig)
    return _write(path, document, as_read, {"cameras": wanted}, f"camera {camera_id}")


def save_detector(path: Path, name: str, detector: Mapping[str, Any], before: DetectorConfig) -> AppConfig:
    """Write the values of a detector into the file; all else as ``save_camera``.

    Args:
        path: of a configuration.
        name: its key under ``detectors``, or ``default`` for the section ``detector``.
        detector: its keys and values.
        before: as it was in force.
    """
    as_read = signature(path)
    document = read_document(path)
    config = config_of(document, str(path))
    section, parent = (
        ("detector", document) if name == DEFAULT_DETECTOR else (name, document.get("detectors"))
    )
    if parent is None:
        raise ConfigError(f"{path}: has no detectors by name any more; add {name} by hand")
    detector = {**detector, **_renewed(parent.get(section), detector, before)}
    _set(parent, section, detector, DetectorConfig)
    wanted = DetectorConfig.model_validate(detector)
    expected = (
        {"detector": wanted, "detectors": config.detectors}
        if name == DEFAULT_DETECTOR
        else {"detector": config.detector, "detectors": {**config.detectors, name: wanted}}
    )
    return _write(path, document, as_read, expected, f"detector {name}")


def _write(
    path: Path, document: Any, as_read: Signature | None, wanted: Mapping[str, Any], what: str
) -> AppConfig:
    """Give the file what the document says, in which these sections are to be as ``wanted``."""
    text = _text(path, document)
    config = config_of(YAML().load(text), str(path))  # as it will be read, not as it was put together
    for section, values in wanted.items():
        if getattr(config, section) != values:  # YAML's anchors and merge keys
            raise ConfigError(
                f"{path}: {section} there take keys over from one another, so that {what} cannot be saved by "
                "itself; edit the file by hand"
            )
    if signature(path) != as_read:
        raise ConfigError(f"{path}: was edited meanwhile; save it again")
    _replace(path, text)
    return config


def signature(path: Path) -> Signature | None:
    """What differs once a file has been written or replaced; None: it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _renewed(written: Any, values: Mapping[str, Any], before: BaseModel | None) -> dict[str, Any]:
    """What references of a section in the file stand for by now, where ``values`` have it as it was ``before``."""
    if before is None or not isinstance(written, Mapping):
        return {}
    was = before.model_dump(mode="json")
    return {
        key: _meant(value)
        for key, value in written.items()
        if key in values and values[key] == was.get(key) and isinstance(value, str) and has_reference(value)
    }


def _set(parent: Any, name: str, values: Mapping[str, Any], kind: type[BaseModel]) -> None:
    written = parent.get(name)
    if not isinstance(written, Mapping):
        parent[name] = {key: _literal(value) for key, value in values.items()}
        return
    kept: Any = written
    defaults = kind.model_validate(values).model_dump(mode="json")
    for key in [key for key in kept if key not in values and _meant(kept[key]) != defaults.get(key)]:
        with suppress(KeyError):  # taken over from another
            del kept[key]
    for key, value in values.items():
        if key not in kept or _meant(kept[key]) != value:
            kept[key] = _literal(value)


def _meant(written: Any) -> Any:
    """What a value in the file stands for."""
    if isinstance(written, str):
        with suppress(Unresolved):
            return resolve(written)[0]
    return written


def _literal(value: Any) -> Any:
    """A value as it has to be written to stand for itself."""
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, Mapping):
        return {key: _literal(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(each) for each in value]
    return value


def _text(path: Path, document: Any) -> str:
    """The document in the manner of the file: its indentation and quotes."""
    yaml = YAML()
    yaml.width = _WIDE
    written = path.read_text(encoding="utf-8")
    if nested := _NESTED.search(written):
        yaml.map_indent = len(nested[1])
    if listed := _LISTED.search(written):
        dash = len(listed[2]) - len(listed[1])
        yaml.sequence_dash_offset, yaml.sequence_indent = dash, dash + len(listed[3])
    text = io.StringIO()
    yaml.dump(document, text)
    return text.getvalue()


def _replace(path: Path, text: str) -> None:
    """Give the file another content, whole or not at all.

    Raises:
        ConfigError: the disk or the folder does not take it.
    """
    real = Path(os.path.realpath(path))  # a link stays a link
    scratch = None
    try:
        handle, scratch = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(real, scratch)
        os.replace(scratch, real)
    except OSError as error:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); expected a file in a folder that this user may "
            "write to (mount the folder, not the file alone)"
        ) from error
