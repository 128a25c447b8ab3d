"""The one entry point, and the cache of models adapted on the fly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from export import convert, pictures
from export.adapt import Wishes
from export.artifact import ArtifactError, load, read_spec
from export.convert import MOST_CACHED, ensure_contract, export_model
from export.parity import ParityError
from export.pictures import parity_pictures
from models.coco_names import COCO_NAMES
from models.errors import DataError, LookoutError
from tests.export.conftest import save, yolox_like

NAMES = ("a", "b", "c")


def test_the_file_says_what_was_done(stranger: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "out.onnx"
    spec = export_model(stranger, out, wishes=Wishes(names=NAMES, nms_threshold=0.5), say=said.append)
    model = load(out)
    onnx.checker.check_model(model, full_check=True)
    assert read_spec(model, "out") == spec
    assert (spec.names, spec.nms_threshold, spec.input_height, spec.input_width) == (NAMES, 0.5, 128, 128)
    assert spec.source_sha256 == convert.sha256(stranger)
    assert [line.split()[0] for line in said] == ["recognised", "parity", "written"]
    assert str(spec.parity["detections"]) in said[1]


def test_what_already_is_a_lookout_model_is_refused(adapted: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="already is a lookout model"):
        export_model(adapted, tmp_path / "again.onnx", say=print)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "int8", "wishes": Wishes(names=NAMES)}, "none of its 9 layers can be int8"),
        ({"wishes": Wishes(names=NAMES, nms_threshold=1.5)}, "between 0 and 1"),
    ],
)
def test_options_that_cannot_be(
    stranger: Path, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ArtifactError, match=said):
        export_model(stranger, tmp_path / "out.onnx", say=print, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("out", ["nowhere/out.onnx", "."])
def test_a_place_that_cannot_be_written_is_told_first(stranger: Path, tmp_path: Path, out: str) -> None:
    said: list[str] = []
    with pytest.raises(ArtifactError, match="cannot be written"):
        export_model(stranger, tmp_path / out, wishes=Wishes(names=NAMES), say=said.append)
    assert said == []


@pytest.mark.parametrize("linked", [False, True])
def test_the_model_that_is_exported_is_not_overwritten(stranger: Path, tmp_path: Path, linked: bool) -> None:
    before = stranger.read_bytes()
    out = stranger
    if linked:
        out = tmp_path / "link.onnx"
        out.symlink_to(stranger)
    with pytest.raises(ArtifactError, match="is the model that is exported; give --out another name"):
        export_model(stranger, out, wishes=Wishes(names=NAMES), say=print)
    assert stranger.read_bytes() == before


def test_a_zip_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "some.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")
    pytest.importorskip("torch", reason="reading checkpoints needs the train extra")
    with pytest.raises(LookoutError, match="not a checkpoint"):
        export_model(path, tmp_path / "out.onnx", say=print)


def test_the_users_pictures_are_compared(stranger: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, shape in enumerate([(40, 90, 3), (90, 40, 3), (1, 7, 3)]):
        cv2.imwrite(
            str(folder / f"{index}.png"), np.random.default_rng(index).integers(0, 256, shape, np.uint8)
        )
    (folder / "notes.txt").write_text("not a picture")
    deep = folder / "2024" / "may"
    deep.mkdir(parents=True)
    cv2.imwrite(str(deep / "deep.png"), np.full((60, 61, 3), 200, np.uint8))
    spec = export_model(
        stranger, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), pictures=folder, say=print
    )
    assert (spec.parity["pictures"], spec.parity["shapes"]) == (4, 3)
    shapes = [picture.shape[:2] for picture in parity_pictures(folder)]
    assert shapes == [(40, 90), (90, 40), (1, 7), (60, 61)]


def test_a_huge_folder_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((10 + number, 9, 3), 200, np.uint8))
    (tmp_path / "._0.png").write_text("what macOS leaves beside a picture")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "0.png").touch()
    monkeypatch.setattr(pictures, "MOST_FILES", 4)
    monkeypatch.setattr(pictures, "MOST_PICTURES", 2)
    assert [picture.shape[0] for picture in parity_pictures(tmp_path)] == [10, 12]


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures there"):
        parity_pictures(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        parity_pictures(tmp_path / "missing.jpg")
    (tmp_path / "broken.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be read"):
        parity_pictures(tmp_path)


# the cache


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """``stranger`` with its classes' names in the file, so that it is adapted without being told more."""
    model = yolox_like()
    onnx.helper.set_model_props(model, {"names": str(list(NAMES))})
    (tmp_path / "named").mkdir()
    return save(model, tmp_path / "named" / "named.onnx")


def test_a_contract_file_is_used_as_it_is(adapted: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert ensure_contract(adapted, print, cache) == adapted
    assert not cache.exists()


def test_a_stranger_is_adapted_once(yolox_nano: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = ensure_contract(yolox_nano, said.append, tmp_path)
    assert said[0].startswith("recognised")
    written = first.stat().st_ino
    said.clear()
    assert ensure_contract(yolox_nano, said.append, tmp_path) == first
    assert first.stat().st_ino == written
    assert len(said) == 1
    assert "earlier" in said[0]
    assert read_spec(load(first), "first").names == COCO_NAMES


def test_the_cache_is_bounded(named: Path, tmp_path: Path) -> None:
    for index in range(MOST_CACHED + 3):
        old = tmp_path / f"old{index}.onnx"
        old.touch()
        os.utime(old, (index, index))
    new = ensure_contract(named, lambda line: None, tmp_path)
    left = sorted(path.name for path in tmp_path.glob("*.onnx"))
    assert len(left) == MOST_CACHED
    assert new.name in left
    assert "old0.onnx" not in left


def test_what_killed_processes_left_is_removed(named: Path, tmp_path: Path) -> None:
    stale, running = tmp_path / ".old.onnx.17.partial", tmp_path / ".new.onnx.18.partial"
    stale.touch()
    running.touch()
    os.utime(stale, (1, 1))
    ensure_contract(named, lambda line: None, tmp_path)
    assert not stale.exists()
    assert running.exists()


def test_a_damaged_file_in_the_cache_is_made_anew(named: Path, tmp_path: Path) -> None:
    said: list[str] = []
    cached = ensure_contract(named, said.append, tmp_path)
    for damage in (cached.read_bytes()[: cached.stat().st_size // 2], named.read_bytes()):
        cached.write_bytes(damage)
        said.clear()
        assert ensure_contract(named, said.append, tmp_path) == cached
        assert said[0].startswith("adapting    anew")
        assert read_spec(load(cached), "cached").names == NAMES


def test_another_lookout_adapts_anew(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ensure_contract(named, lambda line: None, tmp_path)
    monkeypatch.setattr(convert, "version", lambda name: "0.0.1")
    assert ensure_contract(named, lambda line: None, tmp_path) != mine


def test_nothing_is_cached_of_what_fails(tmp_path: Path) -> None:
    silent = tmp_path / "silent.onnx"
    model = yolox_like(silent=True)
    onnx.save(model, str(silent))
    with pytest.raises((ParityError, ArtifactError)):
        ensure_contract(silent, print, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_is_named(stranger: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"cannot keep the adapted model there .* lookout export"):
        ensure_contract(stranger, print, tmp_path / "file" / "cache")


def test_a_cache_that_cannot_be_written_is_told_first(stranger: Path) -> None:
    """Nobody can make a file there, not even root."""
    said: list[str] = []
    with pytest.raises(ArtifactError, match=r"/proc: cannot keep the adapted model there .* XDG_CACHE_HOME"):
        ensure_contract(stranger, said.append, Path("/proc"))
    assert said == []


def as_another_user(code: str, *arguments: str) -> str:
    """What ``code`` prints as a user without a name, home or rights."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    become = "import os, sys; from pathlib import Path; from export.convert import *; os.setuid(54321); "
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    finished = subprocess.run(
        [sys.executable, "-c", become + code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_user_without_a_home_is_told_what_to_set() -> None:
    said = as_another_user("\ntry: default_cache()\nexcept ArtifactError as error: print(error)")
    assert "set XDG_CACHE_HOME" in said


def test_another_users_cache_is_used(named: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own folders are closed to others
        model = Path(folder, "model.onnx")
        shutil.copyfile(named, model)
        cached = ensure_contract(model, lambda line: None, Path(folder, "cache"))
        Path(folder).chmod(0o755)
        said = as_another_user(
            "print(ensure_contract(Path(sys.argv[1]), print, Path(sys.argv[2])))",
            str(model),
            f"{folder}/cache",
        )
        assert said.splitlines()[-1] == str(cached)


def test_a_checkpoint_is_not_run_live(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ArtifactError, match="is a checkpoint; export it first: lookout export"):
        ensure_contract(path, print, tmp_path)
