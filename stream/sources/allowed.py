"""What callers of the API may name: sources by ``server.allow_sources``, models by ``server.allow_models``.

A source is a way to make this machine connect somewhere or open something, so what comes from outside is held
against a list of what is allowed, never against one of what is not. Nothing is opened or connected to. FFmpeg's
own ways to get from an allowed source to another (playlists, redirects) end at ``protocol_whitelist``, in
``stream/sources/__init__.py``.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from stream.errors import SignallingError, redact
from stream.sources import NETWORK

_DEVICE = re.compile(r"(/dev/video)?[0-9]{1,4}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


def check_source(source: str, allowed: Sequence[str]) -> None:
    """Let ``source`` pass if ``allowed`` has its scheme (in any case), its word, or a folder that it lies in.

    Files and folders of pictures count by their real paths, symbolic links resolved, as they are at this moment:
    whoever may write to an allowed folder decides what is played from there. Patterns, which could follow links,
    are not for callers, nor are files that are called like one.

    Raises:
        SignallingError: 403, it is none of those; says what is allowed.
    """
    if source.isprintable() and _is_allowed(source, allowed):
        return
    raise SignallingError(
        f"the source {redact(source)[:80]!r} may not be added here; server.allow_sources allows: {_told(allowed)}",
        403,
    )


def allowed_model(model: str, folders: Sequence[str]) -> str:
    """What a caller may have a detector run: a model's name as it is, or the absolute path of a file in a folder.

    A path that is not absolute is looked for in each of ``folders``. Links are resolved as by ``check_source``.

    Raises:
        SignallingError: 403, it is a file elsewhere, or none; says what is allowed.
    """
    if _MODEL_NAME.fullmatch(model) and not model.endswith(".onnx"):
        return model
    places = [model] if model.startswith("/") else [f"{folder.rstrip('/')}/{model}" for folder in folders]
    for place in places if model.isprintable() else []:
        if _is_inside(place, folders) and os.path.isfile(place):
            return place
    raise SignallingError(
        f"the model {redact(model)[:80]!r} may not be run here; expected the name of a model (lookout models), or "
        f"a file that server.allow_models allows: {_told(folders)}",
        403,
    )


def _is_allowed(source: str, allowed: Sequence[str]) -> bool:
    scheme, is_url, rest = source.partition("://")
    scheme = scheme.lower()
    if is_url and scheme != "file":
        return scheme in NETWORK and scheme in allowed
    if is_url:  # as ``open_source`` reads it: what stands for a host does not matter
        return _is_inside("/" + unquote(rest.partition("/")[2]), allowed)
    if source in ("demo", "whip"):
        return source in allowed
    if source.partition(":")[0] == "synthetic":
        return "synthetic" in allowed
    if _DEVICE.fullmatch(source):
        return "device" in allowed
    return _is_inside(source, allowed)


def _is_inside(path: str, allowed: Sequence[str]) -> bool:
    """Whether an absolute path, without steps up, really lies in one of the folders."""
    if not path.startswith("/") or "\0" in path or ".." in PurePosixPath(path).parts:
        return False
    if glob.has_magic(path):
        return False
    real = os.path.realpath(path)
    folders = (os.path.realpath(folder) for folder in allowed if folder.startswith("/"))
    return any(os.path.commonpath((real, folder)) == folder != real for folder in folders)


def _told(allowed: Sequence[str]) -> str:
    words = (
        f"files in {each}" if each.startswith("/") else f"{each}://" if each in NETWORK else each
        for each in allowed
    )
    return ", ".join(words) or "none"
