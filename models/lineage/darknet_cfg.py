"""Darknet's ``.cfg`` files: the sections of a network, each key read as what it is or refused.

The format is a list of ``[kind]`` sections of ``key=value`` lines; ``#`` and ``;`` begin comments. A layer's
number is its section's place after ``[net]``, from 0. Keys that only training uses are known and left out;
any other unknown key is an error, because it would change what the network computes.

Knows nothing of tensors or weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from models.errors import LookoutError

Value = TypeVar("Value")


class DarknetError(LookoutError):
    """A ``.cfg`` or ``.weights`` file that is not one, or has what this reader does not know."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEYS = {
    "net": (
        _words("width height channels"),
        _words(
            "batch subdivisions momentum decay angle saturation exposure hue learning_rate burn_in max_batches "
            "policy steps scales max_crop min_crop aspect mosaic letter_box optimized_memory flip power gamma "
            "step scale time_steps"
        ),
    ),
    "convolutional": (
        _words("batch_normalize filters size stride pad padding groups activation"),
        _words("stopbackward"),
    ),
    "maxpool": (_words("size stride padding"), _words("")),
    "route": (_words("layers"), _words("")),
    "reorg": (_words("stride"), _words("")),
    "upsample": (_words("stride"), _words("")),
    "shortcut": (_words("from activation"), _words("")),
    "region": (
        _words("anchors classes coords num softmax"),
        _words(
            "jitter rescore object_scale noobject_scale class_scale coord_scale absolute thresh random bias_match"
        ),
    ),
    "yolo": (
        _words("mask anchors classes"),
        _words(
            "jitter ignore_thresh truth_thresh random num iou_thresh iou_normalizer cls_normalizer "
            "obj_normalizer iou_loss nms_kind beta_nms resize max label_smooth_eps"
        ),
    ),
    "detection": (_words(""), _words("")),
}
"""Of every kind, the keys that say what it computes, and those of training."""


@dataclass(frozen=True, slots=True)
class Section:
    """One ``[kind]`` and its lines. What reads a value raises a DarknetError, with the line, where it is none such."""

    kind: str
    line: int
    values: dict[str, str]

    def fail(self, what: str) -> DarknetError:
        """The error to raise of what is wrong with it."""
        return DarknetError(f"line {self.line}, [{self.kind}]: {what}")

    def text(self, key: str, default: str) -> str:
        """A value as it stands there."""
        return self.values.get(key, default)

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number, ``default`` where it is not given (and that is allowed)."""
        if key not in self.values and default is not None:
            return default
        (value,) = self._numbers(key, int, "one whole number", 1)
        if value < least:
            raise self.fail(f"{key} is {value}, expected at least {least}")
        return value

    def switch(self, key: str) -> bool:
        """0 or 1; 0 where it is not given."""
        value = self.whole(key, 0, 0)
        if value > 1:
            raise self.fail(f"{key} is {value}, expected 0 or 1")
        return bool(value)

    def wholes(self, key: str) -> list[int]:
        """``1,2,3`` as [1, 2, 3]."""
        return self._numbers(key, int, "whole numbers with commas")

    def pairs(self, key: str) -> list[tuple[float, float]]:
        """``1.5,2, 3,4`` as (1.5, 2), (3, 4)."""
        numbers = self._numbers(key, float, "an even count of numbers with commas")
        if len(numbers) % 2 or any(not 0 < number < 1e6 for number in numbers):
            raise self.fail(f"{key} is {self.values[key]!r:.80}, expected pairs of numbers above 0")
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def _numbers(self, key: str, read: Callable[[str], Value], what: str, count: int = 0) -> list[Value]:
        if key not in self.values:
            raise self.fail(f"has no {key}; expected {what}")
        try:
            numbers = [read(part) for part in self.values[key].split(",") if part.strip()]
        except ValueError:
            numbers = []
        if not numbers or (count and len(numbers) != count):
            raise self.fail(f"{key} is {self.values[key]!r:.80}, expected {what}")
        return numbers


def read_sections(text: str) -> list[Section]:
    """The sections of a ``.cfg`` file's text, ``[net]`` first and at least one after it.

    Raises:
        DarknetError: named by its line.
    """
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.split("#")[0].split(";")[0].strip()
        if content.startswith("[") and content.endswith("]"):
            sections.append(_begun(sections, content[1:-1].strip(), number))
        elif content:
            _read_line(sections, number, content)
    if len(sections) < 2:
        raise DarknetError("has no layers; expected a Darknet network: [net], then its layers")
    return sections


def _begun(sections: list[Section], kind: str, line: int) -> Section:
    section = Section("net" if kind == "network" else kind, line, {})
    if section.kind not in _KEYS:
        raise section.fail(f"is not known; expected one of {', '.join(_KEYS)}")
    if (section.kind == "net") != (not sections):
        raise section.fail("expected one [net], at the beginning")
    return section


def _read_line(sections: list[Section], number: int, content: str) -> None:
    key, equals, value = (part.strip() for part in content.partition("="))
    if not sections or not equals:
        raise DarknetError(f"line {number}: {content!r:.80} is neither [section] nor key=value in a section")
    section = sections[-1]
    computes, trains = _KEYS[section.kind]
    if section.kind == "detection" or key in trains:
        return
    if key not in computes:
        raise DarknetError(
            f"line {number}, [{section.kind}]: {key} is not known; expected one of {', '.join(sorted(computes))}"
        )
    if key in section.values:
        raise DarknetError(f"line {number}, [{section.kind}]: {key} comes twice")
    section.values[key] = value
