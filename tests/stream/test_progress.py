"""How far a run is, where there is no terminal."""

from __future__ import annotations

import pytest

from stream import progress
from stream.progress import FrameProgress


def test_lines_where_there_is_no_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    with FrameProgress(4, done=1) as bar:
        bar.advance()
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert stderr.startswith("2 of 4 frames, ")
    with FrameProgress(4, shown=False) as bar:
        bar.advance()
    assert capfd.readouterr() == ("", "")


def test_what_a_line_says() -> None:
    assert FrameProgress(7300, done=0).line(1.0) == "0 frames, 0.0 fps"
    bar = FrameProgress(7310, done=100)
    for _ in range(10):
        bar.advance()
    assert bar.line(5.0) == "110 of 7310 frames, 2.0 fps, 1:00:00 left", "what was done before cost no time"
    assert FrameProgress(None).line(1.0) == "0 frames, 0.0 fps"
