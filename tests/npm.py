"""One file of a package from the npm registry, without npm: fetched once, checked, and kept.

The registry is the public one, or that of ``npm_config_registry`` or ``~/.npmrc``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import tarfile
import urllib.request
from pathlib import Path

REGISTRY = "https://registry.npmjs.org"
MOST_BYTES = 8 << 20
TIMEOUT_S = 15.0


def file_of(package: str, version: str, sha512: str, member: str, folder: Path) -> bytes:
    """``member`` of a published package; ``folder`` keeps its tarball.

    Args:
        sha512: of the tarball, in base64, as the registry's ``integrity`` has it.

    Raises:
        OSError: the registry cannot be reached.
        ValueError: what it gave is not what was pinned.
    """
    kept = folder / f"{package.replace('/', '-')}-{version}.tgz"
    tarball = kept.read_bytes() if kept.exists() else _fetched(package, version)
    found = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != sha512:
        kept.unlink(missing_ok=True)
        raise ValueError(f"{package} {version}: expected a tarball of sha512 {sha512}, got {found}")
    kept.write_bytes(tarball)
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        content = archive.extractfile(f"package/{member}")
        assert content is not None, f"{member} is no file"
        return content.read()


def _fetched(package: str, version: str) -> bytes:
    url = f"{_registry()}/{package}/-/{package.rpartition('/')[2]}-{version}.tgz"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        return bytes(response.read(MOST_BYTES))


def _registry() -> str:
    names = ("npm_config_registry", "NPM_CONFIG_REGISTRY")  # npm reads both
    chosen = next(filter(None, map(os.environ.get, names)), "")
    npmrc = Path.home() / ".npmrc"
    if not chosen and npmrc.is_file():
        line = re.search(r"^registry\s*=\s*(\S+)", npmrc.read_text(errors="replace"), re.MULTILINE)
        chosen = line[1] if line else ""
    return (chosen or REGISTRY).rstrip("/")
