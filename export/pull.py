"""``lookout models pull``: one published file into the cache, checked before it gets its name.

    .NAME-DIGEST.partial      what has arrived so far
    .NAME-DIGEST.etag         of what it is a part, so that a changed file is not glued to it
    .NAME-DIGEST.lock         held while one process downloads; stays, as removing it would be a race
    NAME.onnx                 only after its sha256 was found to be the catalogue's

Proxies are the environment's (HTTPS_PROXY). Knows nothing of what is in a model file.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from export.artifact import LookoutError
from export.catalogue import downloaded_path
from export.published import Published

Say = Callable[[str], None]

ATTEMPTS = 4
BACKOFF_S = 1.0
"""The pause before the second attempt; each further one is twice as long."""

TIMEOUT_S = 30.0
"""For connecting, and for each wait for more bytes."""

MOST_REDIRECTS = 5
CHUNK_BYTES = 1 << 18


class PullError(LookoutError):
    """A published file that could not be fetched, or is not what the catalogue says."""


class _Interrupted(Exception):
    """Nothing is wrong with the request: it may go better the next time."""


class _Stale(_Interrupted):
    """What has arrived is no beginning of what the server has; the next time, all is asked for."""


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of one download, all in one folder."""

    final: Path
    partial: Path
    etag: Path
    lock: Path

    @classmethod
    def of(cls, entry: Published, folder: Path) -> _Files:
        stem = f".{entry.name}-{entry.sha256[:12]}"
        partial, etag, lock = (folder / f"{stem}.{suffix}" for suffix in ("partial", "etag", "lock"))
        return cls(downloaded_path(entry, folder), partial, etag, lock)

    def have_bytes(self) -> int:
        """How much has arrived."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def start_anew(self, etag: str | None) -> None:
        """Forget what has arrived; what comes next belongs to ``etag``."""
        self.etag.unlink(missing_ok=True)
        self.partial.write_bytes(b"")
        if etag:
            self.etag.write_text(etag, encoding="utf-8")

    def resumable_etag(self) -> str | None:
        """Of what the partial file is a part; None where nothing can be continued."""
        if not self.have_bytes() or not self.etag.exists():
            return None
        return self.etag.read_text(encoding="utf-8").strip() or None

    def remove(self) -> None:
        """All but the lock and the result."""
        self.partial.unlink(missing_ok=True)
        self.etag.unlink(missing_ok=True)


def pull(entry: Published, folder: Path, say: Say, backoff_s: float = BACKOFF_S) -> Path:
    """Fetch a published model, or find that it is there.

    Continues where an earlier call was cut off, if the server still has the same file.

    Args:
        entry: what to fetch.
        folder: where to keep it; made if it is not there.
        say: told what happens, a line at a time.
        backoff_s: pause before the second attempt.

    Returns:
        The file: ``entry.sha256`` was found in it just now.

    Raises:
        PullError: unreachable, refused, not found, another file than the catalogue's, another process
            pulls it already, or ``folder`` cannot take it.
    """
    of = _Files.of(entry, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(entry, of.lock):
            if of.final.is_file() and _sha256(of.final) == entry.sha256:
                say(f"is there    {of.final}")
                return of.final
            _check_space(entry, of)
            _download(entry, of, say, backoff_s)
            _name_if_right(entry, of)
    except KeyboardInterrupt:
        say(f"stopped     what has arrived is kept; go on with: lookout models pull {entry.name}")
        raise
    except OSError as error:
        raise PullError(f"{folder}: {_disk_fault(error, entry)}") from error
    say(f"pulled      {of.final} ({entry.size_bytes / 1e6:.1f} MB, sha256 checked, {entry.licence})")
    return of.final


@contextmanager
def _alone(entry: Published, lock: Path) -> Iterator[None]:
    """Hold the lock; the system frees it if this process dies."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PullError(
                f"{entry.name}: another lookout is pulling it into {lock.parent}; wait until it is done"
            ) from error
        yield


def _check_space(entry: Published, of: _Files) -> None:
    needed = entry.size_bytes - of.have_bytes()
    free = shutil.disk_usage(of.partial.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _disk_fault(error: OSError, entry: Published) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"disk full: {entry.name} needs {entry.size_bytes / 1e6:.1f} MB; make room and pull again (what has "
            "arrived is kept), or set XDG_CACHE_HOME to a folder on another disk"
        )
    return (
        f"cannot keep {entry.name} there ({error.strerror or error}); set XDG_CACHE_HOME to a folder that can "
        "be written"
    )


def _name_if_right(entry: Published, of: _Files) -> None:
    """Give the finished download its name, if it is what the catalogue says.

    Raises:
        PullError: it is not; nothing of it is kept.
    """
    found = _sha256(of.partial)
    if found != entry.sha256:
        of.remove()
        raise PullError(
            f"{entry.address}: has sha256 {found}, expected {entry.sha256}; it was not kept. Pull it again; if "
            "that changes nothing, the file is another one than this lookout knows"
        )
    of.partial.replace(of.final)
    of.remove()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# the network


def _download(entry: Published, of: _Files, say: Say, backoff_s: float) -> None:
    """Bring the partial file to its full size in at most ``ATTEMPTS`` requests.

    Raises:
        PullError: it cannot be had.
        OSError: it cannot be written.
    """
    with _progress() as bar:
        task = bar.add_task(entry.name, total=entry.size_bytes, completed=of.have_bytes())
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _fetch(entry, of, lambda: bar.update(task, completed=of.have_bytes()))
                return
            except _Interrupted as fault:
                if attempt == ATTEMPTS:
                    raise PullError(
                        f"{entry.address}: {fault}, {ATTEMPTS} times; look at the network (HTTPS_PROXY, if it "
                        f"needs one) and pull again: what has arrived is kept"
                    ) from fault
                pause_s = backoff_s * 2 ** (attempt - 1)
                say(f"again       in {pause_s:g} s: {fault}")
                time.sleep(pause_s)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        SpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _fetch(entry: Published, of: _Files, arrived: Callable[[], None]) -> None:
    """One request: the rest of the partial file, or all of it."""
    have = of.have_bytes()
    if have == entry.size_bytes:  # only the checksum was not reached
        return
    etag = of.resumable_etag()
    if etag is None or have > entry.size_bytes:
        of.start_anew(None)
        etag, have = None, 0
    try:
        with _open(entry, have, etag) as response:
            _check_offer(entry, response)
            if not _continues(response, entry, have, etag):
                of.start_anew(_strong_etag(response))
            _append(entry, of, response, arrived)
    except _Stale:
        of.remove()
        raise


def _append(
    entry: Published, of: _Files, response: http.client.HTTPResponse, arrived: Callable[[], None]
) -> None:
    with of.partial.open("ab") as file:
        for chunk in _chunks(response):
            if file.tell() + len(chunk) > entry.size_bytes:
                file.truncate(0)
                raise _too_much(entry, "more")
            file.write(chunk)
            file.flush()
            arrived()
        os.fsync(file.fileno())
        if file.tell() < entry.size_bytes:
            raise _Interrupted(f"the connection was cut after {file.tell()} of {entry.size_bytes} bytes")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What arrives, as it arrives.

    Raises:
        _Interrupted: it stopped arriving. Told apart here from what goes wrong in writing.
    """
    try:
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"the connection broke ({_reason(error)})") from error


def _open(entry: Published, have: int, etag: str | None) -> http.client.HTTPResponse:
    """Ask for the file from byte ``have`` on, if it still is the one of ``etag``.

    Raises:
        PullError: refused, or not there.
        _Interrupted: unreachable, or the server has a bad moment.
    """
    request = urllib.request.Request(entry.address)
    request.add_header("User-Agent", f"lookout/{version('lookout')}")
    request.add_header("Accept-Encoding", "identity")
    if etag is not None:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", etag)
    try:
        response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects).open(
            request, timeout=TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(entry, error) from error
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
            raise PullError(f"{entry.address}: its certificate is not trusted ({_reason(error)})") from error
        raise _Interrupted(f"cannot be reached ({_reason(error)})") from error
    return response


def _refusal(entry: Published, error: urllib.error.HTTPError) -> Exception:
    """What a status means; only what may pass by itself is worth another attempt."""
    if error.code == 416:
        return _Stale("the server has no such part of it")
    if error.code in (408, 429) or error.code >= 500:
        return _Interrupted(f"the server answers {error.code} {error.reason}")
    meaning = {401: "wants a login", 403: "refuses it", 404: "is not there any more", 410: "was removed"}
    what = meaning.get(error.code, str(error.reason).splitlines()[0])
    return PullError(
        f"{entry.address}: {what} (HTTP {error.code}); a newer lookout may know another address, or download "
        "the model yourself and give its path"
    )


def _check_offer(entry: Published, response: http.client.HTTPResponse) -> None:
    """Refuse another file than the catalogue's before its bytes arrive."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise PullError(
            f"{entry.address}: comes encoded ({encoding}), which was not asked for; try again later"
        )
    length = response.headers.get("Content-Length", "")
    if response.status == 200 and length.isdecimal() and int(length) != entry.size_bytes:
        raise _too_much(entry, length)


def _too_much(entry: Published, offered: str) -> PullError:
    return PullError(
        f"{entry.address}: has {offered} bytes, expected {entry.size_bytes}: it is another file than this "
        "lookout knows, or an error page; it was not kept"
    )


def _continues(response: http.client.HTTPResponse, entry: Published, have: int, etag: str | None) -> bool:
    """Whether the answer goes on where the partial file ends.

    Raises:
        _Stale: it is a part, but not that one.
    """
    if response.status != 206:
        return False
    given = response.headers.get("Content-Range", "")
    wanted = f"bytes {have}-{entry.size_bytes - 1}/{entry.size_bytes}"
    if given != wanted or _strong_etag(response) not in (None, etag):
        raise _Stale(f"the server sends {given or 'an unknown part'} instead of {wanted}")
    return True


def _strong_etag(response: http.client.HTTPResponse) -> str | None:
    """The validator that If-Range takes; a weak one does not promise the same bytes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else None


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Few, and never from https to something that anyone on the way can read or change."""

    max_redirections = MOST_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https:"):
            raise urllib.error.HTTPError(
                newurl, code, f"leads from https to {newurl.partition('?')[0]}", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
