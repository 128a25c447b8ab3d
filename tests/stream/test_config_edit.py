"""A camera written into a YAML file, and taken out: the rest of the file stays as it is."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stream.config import CameraConfig
from stream.config_edit import save_camera
from stream.config_file import load_config
from stream.errors import ConfigError
from tests.stream.test_live_config import FILE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lookout.yaml"
    path.write_text(FILE)
    return path


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@settings(max_examples=80, deadline=None)
@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True), source=texts, stall_s=st.floats(0.5, 300)
)
def test_whatever_is_saved_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, source: str, stall_s: float
) -> None:
    path = tmp_path_factory.mktemp("saved") / "lookout.yaml"
    path.write_text(FILE)
    camera = {"source": source, "stall_s": stall_s, "regions": [[[0, 0], [9.5, 0], [9, 9]]]}
    saved = save_camera(path, name, camera)
    assert saved == load_config(path)
    assert saved.cameras[name] == CameraConfig.model_validate(camera)
    comments = [line.partition("#")[2] for line in FILE.splitlines() if "#" in line]
    replaced = {"front": ("as the guards",), "yard": ()}.get(name, ())
    for comment in comments:
        assert comment in path.read_text() or any(part in comment for part in replaced)
    save_camera(path, name, None)
    assert name not in YAML().load(path.read_text())["cameras"]


def test_what_others_take_over_is_not_changed_under_them(path: Path) -> None:
    text = "cameras:\n  a: &a {source: demo, stall_s: 9}\n  b: {<<: *a, loop: false}\n"
    path.write_text(text)
    for name, camera in [
        ("a", {"source": "demo", "stall_s": 8}),
        ("b", {"source": "demo", "loop": False}),
    ]:
        with pytest.raises(ConfigError, match="cannot be saved by itself"):
            save_camera(path, name, camera)
        assert path.read_text() == text
    save_camera(path, "b", {"source": "demo", "stall_s": 9, "loop": True})
    assert load_config(path).cameras["b"].loop


def test_an_edit_made_while_it_is_saved_is_not_overwritten(path: Path) -> None:
    """A large file, which takes a while; an editor that writes again and again."""
    path.write_text(FILE + "".join(f"    more{number}: {{source: demo}}\n" for number in range(100)))
    saving = threading.Event()

    def edit() -> None:
        for _ in iter(saving.is_set, True):
            with path.open("a") as file:
                file.write("# by hand\n")
            time.sleep(0.01)

    editor = threading.Thread(target=edit)
    editor.start()
    with pytest.raises(ConfigError, match="was edited meanwhile"):
        save_camera(path, "front", {"source": "demo"})
    saving.set()
    editor.join()
    assert "overlay: exact" in path.read_text()


def test_a_folder_that_takes_nothing_is_told(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        save_camera(path.parent / "other.yaml", "a", {"source": "demo"})
