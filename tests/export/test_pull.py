"""Downloads from a real server that cuts, changes, lies and refuses as it is told."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from export.published import PUBLISHED, Published
from export.pull import ATTEMPTS, PullError, pull
from export.pull import _Redirects as Redirects

CONTENT = os.urandom(1_000_003)
OTHER = os.urandom(len(CONTENT))
SOON_S = 0.01


@dataclass
class Shop:
    """How the server behaves, and which Range (None: the whole) every request asked for.

    ``cuts`` says after how many bytes it hangs up, ``statuses`` what it answers instead, each one an item
    for each of the next requests.
    """

    content: bytes = CONTENT
    ranges: bool = True
    etag: str | None = None
    with_length: bool = True
    location: str = ""
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    lie_about_range: str = ""
    before_body: Callable[[], None] = lambda: None
    address: str = ""

    def served_etag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"' if self.etag is None else self.etag


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: a body without a length ends with the connection."""

    server: Server

    def do_GET(self) -> None:
        shop = self.server.shop
        shop.asked.append(self.headers.get("Range"))
        if shop.statuses and (status := shop.statuses.pop(0)) != 200:
            self.send_response(status)
            self.send_header("Location", shop.location or shop.address)
            self.end_headers()
            return
        start = self.start(shop)
        self.send_response(206 if start else 200)
        if start:
            length = len(shop.content)
            self.send_header("Content-Range", shop.lie_about_range or f"bytes {start}-{length - 1}/{length}")
        if shop.with_length:
            self.send_header("Content-Length", str(len(shop.content) - start))
        if shop.served_etag():
            self.send_header("ETag", shop.served_etag())
        self.end_headers()
        shop.before_body()
        body = shop.content[start:]
        self.wfile.write(body[: shop.cuts.pop(0)] if shop.cuts else body)

    def start(self, shop: Shop) -> int:
        asked = self.headers.get("Range")
        if not asked or not shop.ranges or self.headers.get("If-Range") != shop.served_etag():
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    shop: Shop

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what some tests are about."""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.shop = Shop(address=f"http://127.0.0.1:{server.server_address[1]}/model.onnx")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.shop
        server.shutdown()
        thread.join()


def entry_at(address: str, content: bytes = CONTENT) -> Published:
    digest = hashlib.sha256(content).hexdigest()
    return replace(PUBLISHED[0], name="thing", address=address, sha256=digest, size_bytes=len(content))


@pytest.fixture
def entry(shop: Shop) -> Published:
    return entry_at(shop.address)


def get(entry: Published, folder: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    return pull(entry, folder, say, backoff_s=SOON_S)


def left_in(folder: Path) -> set[str]:
    """What a download left behind, by what it is."""
    return {path.suffix or path.name for path in folder.iterdir() if path.suffix != ".lock"}


def begin(shop: Shop, entry: Published, folder: Path, at: int) -> None:
    """Let a download be cut off after ``at`` bytes, for good."""
    shop.cuts = [at]
    shop.statuses = [200] + [503] * (ATTEMPTS - 1)
    with pytest.raises(PullError, match="503"):
        get(entry, folder)
    shop.asked.clear()


def test_a_whole_download_gets_its_name_and_nothing_else_stays(
    shop: Shop, entry: Published, tmp_path: Path
) -> None:
    said: list[str] = []
    path = get(entry, tmp_path / "new" / "folder", said.append)
    assert path == tmp_path / "new" / "folder" / "thing.onnx"
    assert path.read_bytes() == CONTENT
    assert left_in(path.parent) == {".onnx"}
    assert "sha256 checked" in said[-1]
    assert get(entry, path.parent, said.append) == path
    assert "is there" in said[-1]
    assert shop.asked == [None]


def test_a_damaged_file_in_its_place_is_replaced(shop: Shop, entry: Published, tmp_path: Path) -> None:
    (tmp_path / "thing.onnx").write_bytes(OTHER)
    assert get(entry, tmp_path).read_bytes() == CONTENT


def test_a_cut_connection_is_continued_where_it_broke(shop: Shop, entry: Published, tmp_path: Path) -> None:
    shop.cuts = [300_000, 200_000]
    said: list[str] = []
    assert get(entry, tmp_path, said.append).read_bytes() == CONTENT
    assert shop.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert "cut after 300000 of 1000003 bytes" in said[0]


def test_a_later_call_continues_an_earlier_one(shop: Shop, entry: Published, tmp_path: Path) -> None:
    begin(shop, entry, tmp_path, 400_000)
    assert left_in(tmp_path) == {".partial", ".etag"}
    assert get(entry, tmp_path).read_bytes() == CONTENT
    assert shop.asked == ["bytes=400000-"]


def test_what_arrived_whole_needs_no_request(shop: Shop, entry: Published, tmp_path: Path) -> None:
    begin(shop, entry, tmp_path, 400_000)
    (partial,) = tmp_path.glob(".*.partial")
    partial.write_bytes(CONTENT)
    assert get(entry, tmp_path).read_bytes() == CONTENT
    assert shop.asked == []


def test_a_server_without_parts_is_asked_for_all_again(shop: Shop, entry: Published, tmp_path: Path) -> None:
    shop.ranges = False
    begin(shop, entry, tmp_path, 400_000)
    assert get(entry, tmp_path).read_bytes() == CONTENT
    assert shop.asked == ["bytes=400000-"]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_etag_nothing_is_continued(
    shop: Shop, entry: Published, tmp_path: Path, etag: str
) -> None:
    shop.etag = etag
    shop.cuts = [400_000]
    assert get(entry, tmp_path).read_bytes() == CONTENT
    assert shop.asked == [None, None]


def test_a_file_that_changed_meanwhile_is_not_glued_together(
    shop: Shop, entry: Published, tmp_path: Path
) -> None:
    shop.content = OTHER
    begin(shop, entry, tmp_path, 400_000)
    shop.content = CONTENT  # as the catalogue has it, and with another ETag
    assert get(entry, tmp_path).read_bytes() == CONTENT
    assert shop.asked == ["bytes=400000-"]


@pytest.mark.parametrize("lie", ["bytes 5-1000002/1000003", "bytes 400000-1000002/2000000", "nonsense"])
def test_a_part_that_does_not_fit_is_dropped(shop: Shop, entry: Published, tmp_path: Path, lie: str) -> None:
    begin(shop, entry, tmp_path, 400_000)
    shop.lie_about_range = lie
    assert get(entry, tmp_path).read_bytes() == CONTENT
    assert shop.asked == ["bytes=400000-", None]


def test_a_part_that_the_server_refuses_is_dropped(shop: Shop, entry: Published, tmp_path: Path) -> None:
    begin(shop, entry, tmp_path, 400_000)
    shop.statuses = [416]
    assert get(entry, tmp_path).read_bytes() == CONTENT
    assert shop.asked == ["bytes=400000-", None]


def test_a_wrong_checksum_leaves_nothing(shop: Shop, entry: Published, tmp_path: Path) -> None:
    shop.content = OTHER
    with pytest.raises(PullError, match=f"expected {entry.sha256}; it was not kept"):
        get(entry, tmp_path)
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize("with_length", [True, False])
def test_another_size_is_refused(shop: Shop, entry: Published, tmp_path: Path, with_length: bool) -> None:
    shop.content = CONTENT + b"more"
    shop.with_length = with_length
    with pytest.raises(PullError, match="expected 1000003: it is another file"):
        get(entry, tmp_path)
    assert shop.asked == [None]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(CONTENT)


@pytest.mark.parametrize(
    ("status", "meaning"), [(404, "is not there any more"), (403, "refuses it"), (400, "Bad Request")]
)
def test_a_refusal_is_told_at_once(
    shop: Shop, entry: Published, tmp_path: Path, status: int, meaning: str
) -> None:
    shop.statuses = [status]
    with pytest.raises(PullError, match=rf"{meaning} \(HTTP {status}\)"):
        get(entry, tmp_path)
    assert shop.asked == [None]


def test_a_bad_moment_is_waited_out_but_not_for_ever(shop: Shop, entry: Published, tmp_path: Path) -> None:
    shop.statuses = [503, 429]
    assert get(entry, tmp_path).read_bytes() == CONTENT
    (tmp_path / "thing.onnx").unlink()
    shop.asked.clear()
    shop.statuses = [500] * 99
    with pytest.raises(PullError, match=f"{ATTEMPTS} times"):
        get(entry, tmp_path)
    assert len(shop.asked) == ATTEMPTS


def test_redirects_are_followed_but_not_for_ever(shop: Shop, entry: Published, tmp_path: Path) -> None:
    shop.statuses = [302]
    shop.location = shop.address + "?at=elsewhere"
    assert get(entry, tmp_path).read_bytes() == CONTENT
    (tmp_path / "thing.onnx").unlink()
    shop.statuses = [302] * 99
    with pytest.raises(PullError, match=r"HTTP 302"):
        get(entry, tmp_path)
    assert len(shop.asked) < 12


def test_no_redirect_leads_from_https_to_http() -> None:
    request = urllib.request.Request("https://example.org/model.onnx")
    nothing = HTTPMessage()
    follow = Redirects().redirect_request
    with pytest.raises(urllib.error.HTTPError, match=r"from https to http://example\.org/b$"):
        follow(request, io.BytesIO(), 302, "Found", nothing, "http://example.org/b?secret")
    followed = follow(request, io.BytesIO(), 302, "Found", nothing, "https://example.org/b")
    assert followed is not None
    assert followed.full_url == "https://example.org/b"


def test_nobody_listening_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(
        PullError, match=r"cannot be reached \(Connection refused\), 4 times; look at the network"
    ):
        get(entry_at("http://127.0.0.1:1/model.onnx"), tmp_path)


def test_a_second_process_does_not_write_into_the_first_one_s_file(
    shop: Shop, entry: Published, tmp_path: Path
) -> None:
    get(entry, tmp_path)
    (lock,) = tmp_path.glob(".*.lock")
    (tmp_path / "thing.onnx").unlink()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PullError, match="another lookout is pulling it"):
            get(entry, tmp_path)
    assert get(entry, tmp_path).read_bytes() == CONTENT


def test_several_at_once_leave_one_whole_file(shop: Shop, entry: Published, tmp_path: Path) -> None:
    outcomes: list[str] = []

    def one() -> None:
        try:
            outcomes.append(get(entry, tmp_path).name)
        except PullError as error:
            outcomes.append(str(error).partition(": ")[2][:15])

    threads = [threading.Thread(target=one) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "thing.onnx").read_bytes() == CONTENT
    assert set(outcomes) <= {"thing.onnx", "another lookout"}
    assert "thing.onnx" in outcomes


def test_ctrl_c_keeps_what_has_arrived(shop: Shop, entry: Published, tmp_path: Path) -> None:
    shop.cuts = [400_000]
    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        if line.startswith("again"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(entry, tmp_path, interrupt)
    assert "go on with: lookout models pull thing" in said[-1]
    assert get(entry, tmp_path).read_bytes() == CONTENT
    assert shop.asked == [None, "bytes=400000-"]


def test_a_folder_that_cannot_be_is_one_clear_error(entry: Published, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PullError, match="set XDG_CACHE_HOME to a folder that can be written") as caught:
            get(entry, folder)
        assert caught.value.exit_code == 1


def test_a_folder_that_may_not_be_written_is_one_clear_error(entry: Published, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        with mounted(tmp_path, "ro"), pytest.raises(PullError, match="Read-only file system"):
            get(entry, tmp_path)
        return
    tmp_path.chmod(0o500)
    with pytest.raises(PullError, match="Permission denied"):
        get(entry, tmp_path)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A tmpfs; skips where this user may not mount."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_told_before_anything_is_asked(
    shop: Shop, entry: Published, tmp_path: Path
) -> None:
    with mounted(tmp_path, "size=500k"):
        with pytest.raises(PullError, match=r"disk full: thing needs 1\.0 MB"):
            get(entry, tmp_path)
        assert shop.asked == []


def test_a_disk_that_fills_meanwhile_keeps_what_has_arrived(
    shop: Shop, entry: Published, tmp_path: Path
) -> None:
    filler = tmp_path / "filler"

    def fill() -> None:
        filler.write_bytes(bytes(1_500_000))

    with mounted(tmp_path, "size=2m"):
        shop.before_body = fill
        with pytest.raises(PullError, match="disk full"):
            get(entry, tmp_path)
        (partial,) = tmp_path.glob(".*.partial")
        assert CONTENT.startswith(partial.read_bytes())
        assert partial.stat().st_size > 0
        filler.unlink()
        shop.before_body = lambda: None
        assert get(entry, tmp_path).read_bytes() == CONTENT
        assert shop.asked[-1] not in (None, "bytes=0-")
