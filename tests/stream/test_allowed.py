"""What callers of the API may name as a source."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.config import DEFAULT_SOURCES
from stream.errors import SignallingError
from stream.sources import NETWORK
from stream.sources.allowed import check_source


def is_allowed(source: str, allowed: tuple[str, ...]) -> bool:
    try:
        check_source(source, allowed)
    except SignallingError as error:
        return error.status != 403 or "\n" in str(error)
    return True


@pytest.mark.parametrize(
    "source",
    ["rtsp://192.0.2.1/a", "RTSP://192.0.2.1/a", "rtmps://h/a", "srt://h:9", "whip", "demo", "synthetic:320x240@5"],
)  # fmt: skip
def test_what_is_allowed_unless_told_otherwise(source: str) -> None:
    assert is_allowed(source, DEFAULT_SOURCES)
    assert not is_allowed(source, ("device", "http"))


@pytest.mark.parametrize(
    "source",
    [
        "http://192.0.2.1/a", "https://192.0.2.1/a", "0", "/dev/video0", "/etc/passwd", "file:///etc/passwd",
        "FILE:///etc/passwd", "file:/etc/passwd", "etc/passwd", "~/clip.mp4", "concat:/etc/passwd|/etc/group",
        "concat:rtsp://192.0.2.1/a", "subfile,,start,0,end,9,,:/etc/passwd", "data:text/plain,x", "pipe:0",
        "crypto+rtsp://h/a", "async:rtsp://h/a", "demo://x", "whip://x", "device://0", "synthetic://1",
        " rtsp://h/a", "rtsp:/h", "rtsp:h", "rtsp", "", "rtsp://h/a\r\nHost: x", "rtsp://h/\0", "gopher://h",
    ],
)  # fmt: skip
def test_everything_else_is_not(source: str) -> None:
    assert not is_allowed(source, DEFAULT_SOURCES)


def test_a_refusal_says_what_is_allowed_and_no_password() -> None:
    with pytest.raises(SignallingError) as caught:
        check_source("http://admin:hunter2@192.0.2.1/", ("rtsp", "demo", "/srv/clips"))
    assert str(caught.value) == (
        "the source 'http://***@192.0.2.1/' may not be added here; "
        "server.allow_sources allows: rtsp://, demo, files in /srv/clips"
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``clips`` may be played; ``private`` may not, though links lead there."""
    top = tmp_path_factory.mktemp("folders")
    for name in ("clips", "clips/more", "clips-not", "private"):
        (top / name).mkdir()
    for name in (
        "clips/a.mp4",
        "clips/more/b.mp4",
        "clips-not/c.mp4",
        "private/d.mp4",
        "clips/ü %41.mp4",
        "clips/[a].mp4",
    ):
        (top / name).touch()
    (top / "clips/out.mp4").symlink_to(top / "private/d.mp4")
    (top / "clips/away").symlink_to(top / "private")
    (top / "clips/in.mp4").symlink_to(top / "clips/more/b.mp4")
    (top / "clips/loop").symlink_to(top / "clips/loop")
    (top / "door").symlink_to(top / "clips")
    return top


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clips/a.mp4", True), ("clips/more/b.mp4", True), ("clips/in.mp4", True), ("clips/more", True),
        ("door/a.mp4", True), ("clips/./a.mp4", True), ("clips/ü %41.mp4", True), ("clips/none.mp4", True),
        ("clips", False), ("clips/../private/d.mp4", False), ("clips/more/../a.mp4", False),
        ("clips-not/c.mp4", False), ("private/d.mp4", False), ("clips/out.mp4", False),
        ("clips/away/d.mp4", False), ("clips/away/none.mp4", False), ("clips/loop/../../private/d.mp4", False),
    ],
)  # fmt: skip
def test_files_count_by_where_they_really_are(folders: Path, name: str, expected: bool) -> None:
    for allowed in ((f"{folders}/clips",), ("rtsp", f"{folders}/door/")):
        assert is_allowed(f"{folders}/{name}", allowed) == expected
        assert is_allowed(f"file://{quote(f'{folders}/{name}')}", allowed) == expected
        assert is_allowed(f"File://localhost{quote(f'{folders}/{name}')}", allowed) == expected


def test_file_urls_are_decoded_before_they_are_judged(folders: Path) -> None:
    allowed = (f"{folders}/clips",)
    for hidden in ("%2e%2e", "..%2f..", "%2e./%2e."):
        assert not is_allowed(f"file://{folders}/clips/{hidden}/private/d.mp4", allowed)
    assert not is_allowed(f"{folders}/clips/a.mp4%00", ("rtsp",))


@given(
    st.lists(st.sampled_from(["clips", "more", "private", "away", "..", ".", "", "a.mp4", "d.mp4", "out.mp4"])),
    st.booleans(),
)  # fmt: skip
def test_no_path_leads_out(folders: Path, steps: list[str], as_url: bool) -> None:
    path = "/".join([str(folders), *steps])
    if is_allowed(f"file://{quote(path)}" if as_url else path, (f"{folders}/clips",)):
        assert os.path.realpath(path).startswith(f"{folders}/clips/")


@given(st.text())
@example("rtsp://")
@example("file://")
@example("/")
def test_any_text_is_judged_without_another_error(source: str) -> None:
    assert not is_allowed(source, ())
    if is_allowed(source, ("rtsp", "/srv/clips")):
        assert source.lower().startswith(("rtsp://", "file://", "/"))


@given(st.sampled_from(NETWORK), st.text(st.characters(min_codepoint=33, max_codepoint=126)), st.booleans())
def test_a_scheme_is_allowed_in_any_case_or_not_at_all(scheme: str, rest: str, upper: bool) -> None:
    source = f"{scheme.upper() if upper else scheme}://{rest}"
    assert is_allowed(source, (scheme,))
    assert not is_allowed(source, tuple({*NETWORK} - {scheme}))
