"""Secrets by reference in a configuration: ``${NAME}`` and ``${file:/path}`` instead of the values.

In any string value ``${NAME}`` stands for an environment variable and ``${file:/run/secrets/cam}`` for what is
in a file, without its last line break. ``$${`` is ``${`` itself.

Give values as they are: between ``://`` and the ``@`` of a URL's address they are percent-encoded, so that a
password may hold ``@``, ``/`` or ``:`` (hence two references for a user and a password). Everywhere else they
are put in as they are: what a camera wants in its path or query, no rule of ours can know.

A document with references is read, shown and saved as it was written; only what is resolved from it holds
values. Callers of the API get no references, or they could have any variable or file sent to a camera of
theirs: what they give is ``literal``. Knows nothing of what can be configured.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

MOST_BYTES = 16 << 10
"""Of a file that a reference names."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN = 80


class Unresolved(ValueError):
    """A reference that stands for nothing; names the variable or file, never a value."""


def resolve(text: str, environment: Mapping[str, str] = os.environ) -> tuple[str, list[str]]:
    """What ``text`` stands for, and the values that were put in.

    Raises:
        Unresolved: a variable or file is missing, empty or of several lines, or a reference is malformed.
    """
    begin, end = _userinfo(text)
    values: list[str] = []
    parts: list[str] = []
    position = 0
    for match in _REFERENCE.finditer(text):
        parts.append(text[position : match.start()])
        position = match.end()
        if match[0] == "$${":
            parts.append("${")
            continue
        value = _value(match[1], environment)
        values.append(value)
        parts.append(quote(value, safe="") if begin <= match.start() < end else value)
    return "".join([*parts, text[position:]]), values


def has_reference(text: str) -> bool:
    return any(match[0] != "$${" for match in _REFERENCE.finditer(text))


def literal(text: str) -> str:
    """``text`` as it has to be written in a document to stand for itself."""
    return text.replace("${", "$${")


def _userinfo(text: str) -> tuple[int, int]:
    """Where the credentials of a URL begin and end (RFC 3986, 3.2.1); (0, 0) where there are none."""
    # Same length, so that what is found is where it is in ``text``: files in references hold slashes.
    plain = _REFERENCE.sub(lambda match: "x" * len(match[0]), text)
    address = re.search(r"^[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)@", plain)
    return address.span(1) if address else (0, 0)


def _value(what: str | None, environment: Mapping[str, str]) -> str:
    if what is not None and what.startswith("file:"):
        return _whole(f"the file {what[5:]}"[:_SHOWN], _read(what[5:]))
    if what is None or not _NAME.fullmatch(what):
        raise Unresolved(
            "a reference is malformed; expected ${NAME} or ${file:/absolute/path}, or $${ for these characters"
        )
    value = environment.get(what)
    if value is None:
        raise Unresolved(
            f"the environment variable {what[:_SHOWN]} is not set; set it, or write $${{ for ${{"
        )
    return _whole(f"the environment variable {what[:_SHOWN]}", value)


def _read(name: str) -> str:
    path, shown = Path(name), name[:_SHOWN]
    if not path.is_absolute():
        raise Unresolved(f"the file {shown!r} is named by a relative path; expected ${{file:/absolute/path}}")
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise Unresolved(f"there is no file {shown}; a secret was expected in it")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise Unresolved(f"the file {shown} is larger than {MOST_BYTES} bytes; expected a secret alone")
        return content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise Unresolved(f"the file {shown} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise Unresolved(f"the file {shown} is not text; expected a secret alone") from None


def _whole(name: str, value: str) -> str:
    if not value:
        raise Unresolved(f"{name} is empty; expected a secret")
    if not value.isprintable():
        raise Unresolved(f"{name} holds line breaks or control characters; expected a secret on one line")
    return value
