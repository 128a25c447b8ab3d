"""How far a run over a file is: a bar on a terminal, a line now and then elsewhere, on standard error."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

_LINE_EVERY_S = 10.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0.0:.1f} fps")


class FrameProgress:
    """A context in which frames are counted.

    Args:
        expected: how many there will be, None where that is not known.
        done: how many of them were done before.
        shown: whether to show anything.
    """

    def __init__(self, expected: int | None, done: int = 0, shown: bool = True) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._expected, self._done, self._before = expected, done, done
        self._lines = shown and not self._console.is_terminal
        columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        hidden = not shown or self._lines
        self._bar = Progress(*columns, console=self._console, transient=True, disable=hidden)
        self._task = self._bar.add_task("", total=expected, completed=done)
        self._begun = self._said = time.monotonic()

    def __enter__(self) -> FrameProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """One frame more is done."""
        self._done += 1
        self._bar.advance(self._task)
        now = time.monotonic()
        if self._lines and now - self._said >= _LINE_EVERY_S:
            self._said = now
            self._console.print(self.line(now - self._begun), markup=False)

    def line(self, elapsed_s: float) -> str:
        """So many frames, at what rate, and how long it will still take."""
        rate = (self._done - self._before) / elapsed_s if elapsed_s > 0 else 0.0
        if self._expected is None or not rate:
            return f"{self._done} frames, {rate:.1f} fps"
        left_s = round(max(self._expected - self._done, 0) / rate)
        left = f"{left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}"
        return f"{self._done} of {self._expected} frames, {rate:.1f} fps, {left} left"
