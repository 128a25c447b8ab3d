"""Values as they are typed on the command line, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stream.errors import UsageError


def names(given: str | None) -> tuple[str, ...] | None:
    """Class names from a comma-separated list, or from a file with one a line."""
    if given is None:
        return None
    text = given.replace(",", "\n")
    if "," not in given and Path(given).suffix:
        try:
            text = Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--names {given}: cannot be read as a text file with one name a line"
            ) from error
    return tuple(name.strip() for name in text.splitlines() if name.strip())


def renamed(option: str, given: Sequence[str]) -> dict[str, str]:
    """OLD=NEW as many times as it was given, as new names by old ones."""
    pairs: dict[str, str] = {}
    for text in given:
        old, _, new = (part.strip() for part in text.partition("="))
        if not old or not new:
            raise UsageError(f"{option} {text!r}: expected OLD=NEW, such as 'sports utility=car'")
        pairs[old] = new
    return pairs


def triple(option: str, given: str | None, least: float) -> tuple[float, float, float] | None:
    """One number for all channels, or three, on the scale of pixels from 0 to 255."""
    if given is None:
        return None
    try:
        values = [float(part) for part in given.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3) or not all(least <= value <= 255.0 for value in values):
        raise UsageError(
            f"{option} {given!r}: expected one number or three with commas, for pixels from 0 to 255 and so "
            f"between {least:g} and 255 (multiply figures for pixels from 0 to 1 by 255)"
        )
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue


def ranks(given: str | None) -> tuple[int, ...] | None:
    """Whole numbers from 1 on, separated by commas."""
    if given is None:
        return None
    values = given.split(",")
    if not all(value.isdecimal() and int(value) for value in values):
        raise UsageError(f"--ranks {given!r}: expected whole numbers with commas, such as 1024,256")
    return tuple(map(int, values))


def input_size(given: str | None) -> tuple[int, int] | None:
    """WIDTHxHEIGHT as height, width."""
    if given is None:
        return None
    width, _, height = given.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 8192 and 0 < int(height) <= 8192):
        raise UsageError(f"--input-size {given!r}: expected WIDTHxHEIGHT in pixels, such as 640x384")
    return int(height), int(width)
