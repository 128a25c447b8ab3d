"""What can be named: the table of published models, the cache as it is listed, and how names are resolved."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.artifact import ArtifactError
from export.catalogue import (
    DEFAULT,
    adapted,
    catalogue,
    downloaded_path,
    downloads_folder,
    resolve_model,
    unfinished,
)
from export.listing import as_json, as_lines
from export.published import PUBLISHED

NANO = next(entry for entry in PUBLISHED if entry.name == "yolox-nano")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of lookout's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lookout"


def put(path: Path, size_bytes: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def lookout(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.cli", "models", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )


def test_every_published_entry_can_be_checked() -> None:
    names = [entry.name for entry in PUBLISHED]
    assert len(set(names)) == len(names)
    assert DEFAULT not in names
    assert len({entry.sha256 for entry in PUBLISHED}) == len(names)
    for entry in PUBLISHED:
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256), entry.name
        assert entry.address.startswith("https://"), entry.name
        assert re.search(r"/[0-9a-f]{40}/|/releases/download/", entry.address), entry.name
        assert entry.size_bytes > 1_000_000, entry.name
        assert entry.licence in {"Apache-2.0", "MIT", "BSD-3-Clause"}, entry.name
        assert entry.ap is None or 0.1 < entry.ap < 0.7, entry.name
        assert re.fullmatch(r"[a-z0-9-]+", entry.name)


def test_a_published_model_that_is_not_here_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(ArtifactError, match="lookout models pull yolox-nano"):
        resolve_model("yolox-nano")
    with pytest.raises(ArtifactError, match=r"no such model; expected .* one of: lookout-nano"):
        resolve_model("yolox-giant")


def test_a_downloaded_model_is_found_by_its_name(cache: Path) -> None:
    path = put(cache / "downloads" / "yolox-nano.onnx", NANO.size_bytes)
    assert resolve_model("yolox-nano") == path == downloaded_path(NANO, downloads_folder())
    assert resolve_model(str(path)) == path
    assert "/" in str(resolve_model(DEFAULT))


def test_a_file_in_its_place_that_is_another_one_is_told(cache: Path) -> None:
    put(cache / "downloads" / "yolox-nano.onnx", 10)
    with pytest.raises(ArtifactError, match="get it again: lookout models pull yolox-nano"):
        resolve_model("yolox-nano")
    assert next(entry for entry in catalogue() if entry.name == "yolox-nano").state == "can be pulled"


def test_the_catalogue_tells_what_is_here_and_what_can_be_had(cache: Path) -> None:
    put(cache / "downloads" / "yolox-nano.onnx", NANO.size_bytes)
    old = put(cache / "models" / "old-1-1.onnx", 5)
    os.utime(old, (1, 1))
    new = put(cache / "models" / "new-1-1.onnx", 7)
    begun = put(cache / "downloads" / ".yolox-s-c5c2d13e59ae.partial", 9)
    states = {entry.name: entry.state for entry in catalogue()}
    assert states[DEFAULT] == "embedded"
    assert states["yolox-nano"] == "downloaded"
    assert states["yolox-s"] == "can be pulled"
    assert adapted() == [new, old]
    assert unfinished() == [begun]
    shown = json.loads(json.dumps(as_json()))
    assert shown["adapted"][0] == {"path": str(new), "bytes": 7}
    assert shown["unfinished"] == [{"path": str(begun), "bytes": 9}]
    nano = next(model for model in shown["models"] if model["name"] == "yolox-nano")
    assert nano["sha256"] == NANO.sha256
    assert (nano["AP"], nano["licence"], nano["bytes"]) == (0.258, "Apache-2.0", NANO.size_bytes)


def test_the_table_is_aligned_and_fits_100_columns(cache: Path) -> None:
    rows = as_lines()[: 1 + len(catalogue())]
    assert max(map(len, rows)) <= 100
    assert (
        len({row.index(word) for row, word in zip(rows[1:], (e.licence for e in catalogue()), strict=True)})
        == 1
    )
    assert rows[0].index("LICENCE") == rows[1].index("Apache-2.0")


def test_a_user_without_a_home_still_gets_the_list(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert {entry.state for entry in catalogue()} == {"embedded", "can be pulled"}
    assert adapted() == []
    with pytest.raises(ArtifactError, match="set XDG_CACHE_HOME"):
        resolve_model("yolox-nano")


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_the_command_lists_and_refuses_an_unknown_name(tmp_path: Path) -> None:
    listed = json.loads(lookout("--json", XDG_CACHE_HOME=str(tmp_path)).stdout)
    assert listed["models"][0]["name"] == DEFAULT
    result = lookout("pull", "yolox-giant", XDG_CACHE_HOME=str(tmp_path))
    assert result.returncode == 2
    assert "expected one of: yolox-nano, yolox-tiny" in result.stderr
    assert "Traceback" not in result.stderr
    unnamed = lookout("pull")
    assert unnamed.returncode == 2
    assert "NAME" in unnamed.stderr


def test_without_a_network_it_says_why_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    """The proxy of the environment is asked, and nobody is there."""
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:1")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **proxies, "no_proxy": "", "NO_PROXY": ""}
    command = [sys.executable, "-m", "stream.cli", "models", "pull", "yolox-nano", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert "cannot be reached (Connection refused)" in line
    assert process.returncode == 130
    assert "go on with: lookout models pull yolox-nano" in errors
    assert "Traceback" not in errors
    assert out == ""
