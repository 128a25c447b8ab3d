"""Configuration: what is right is read, what is wrong is named by line and path."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.config import AppConfig
from stream.config_file import config_from_sources, load_config, override
from stream.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def load(tmp_path: Path, text: str) -> AppConfig:
    path = tmp_path / "lookout.yaml"
    path.write_text(text)
    return load_config(path)


def test_reads_a_whole_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "server: {port: 9000}\ndetector: {device: cpu}\ncameras:\n  front: {source: rtsp://192.0.2.1/a}\n  usb: {source: 0}\n",
    )
    assert config.server.port == 9000
    assert config.detector.device == "cpu"
    assert config.cameras["usb"].source == "0"
    assert config.cameras["front"].overlay == "smooth"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_that_people_copy_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOKOUT_TOKEN", "FRONT_PASSWORD"):
        monkeypatch.setenv(name, "from the environment".replace(" ", "-"))
    assert load_config(path).cameras


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cameras:\n  a:\n    source: demo\n    transprot: udp\n", ":4: cameras.a.transprot: unknown key; did you mean 'transport'?"),
        ("cameras:\n  a:\n    source: demo\n    overlay: blurry\n", ":4: cameras.a.overlay: input should be 'smooth' or 'exact' (got 'blurry')"),
        ("server:\n  port: 70000\ncameras:\n  a: {source: demo}\n", ":2: server.port: input should be less than or equal to 65535 (got 70000)"),
        ("cameras:\n  Front Door: {source: demo}\n", "camera name 'Front Door': use lower-case letters"),
        ("cameras:\n  a: {overlay: exact}\n", ":2: cameras.a.source: is missing"),
        ("server: {port: 1}\n", "cameras: is missing"),
        ("cameras: [\n", ":2: not valid YAML"),
        ("just text\n", "expected keys such as 'cameras:'"),
        ("server: {host: 0.0.0.0}\ncameras:\n  a: {source: demo}\n", "a token is required"),
        ("server:\n  ice_servers: [{urls: ['turn:t.example.net']}]\ncameras:\n  a: {source: demo}\n", "a turn: server needs username and credential, or secret; give one of the two"),
        ("server:\n  ice_servers: [{urls: ['stun:t.example.net'], secret: abcd}]\ncameras:\n  a: {source: demo}\n", "a stun: server takes no username, credential or secret; leave them out"),
        ("server:\n  ice_servers: [{urls: ['http://t.example.net']}]\ncameras:\n  a: {source: demo}\n", "server.ice_servers.0.urls.0: string should match pattern"),
        ("server:\n  allow_origins: ['*']\ncameras:\n  a: {source: demo}\n", "server.allow_origins.0: string should match pattern"),
        ("camera:\n  a: {source: demo}\n", "camera: unknown key; did you mean 'cameras'?"),
    ],
)  # fmt: skip
def test_each_fault_is_named_where_it_is(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "cameras:\n  a: {source: demo, overlay: x}\n  b: {source: demo, pace: y}\n")
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_or_binary_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="is not text"):
        load_config(tmp_path / "binary.yaml")


def test_a_wrong_value_never_prints_a_credential(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "cameras:\n  a: {source: demo, overlay: 'rtsp://admin:hunter2@192.0.2.1/'}\n")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "server: {token: [hunter2]}\ncameras:\n  a: {source: demo}\n")
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_is_there_twice_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r':3: not valid YAML: found duplicate key "token"$'):
        load(tmp_path, "server:\n  token: hunter2hunter2\n  token: hunter3hunter3\ncameras: {}\n")


@pytest.mark.parametrize("value", ["2026-13-32", "1" * 5000, "!!int x", "!!float x", "!!bool x"])
def test_what_yaml_cannot_make_a_value_of_is_one_clear_error(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="a value in it cannot be read"):
        load(tmp_path, f"cameras:\n  a: {{source: demo, stall_s: {value}}}\n")


@pytest.mark.parametrize("key", ["credential", "secret"])
def test_a_wrong_credential_of_a_turn_server_is_not_printed(tmp_path: Path, key: str) -> None:
    text = f"server:\n  ice_servers: [{{urls: ['turn:t.example.net'], {key}: 24681357}}]\ncameras:\n  a: {{source: demo}}\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert f"server.ice_servers.0.{key}: " in str(caught.value)
    assert "24681357" not in str(caught.value)


@pytest.mark.parametrize("token", ["''", "short", "with space", "'пароль-длинный'"])
def test_a_token_that_cannot_guard_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.token: expected 8 to 256 printable ASCII"):
        load(tmp_path, f"server: {{host: 0.0.0.0, token: {token}}}\ncameras:\n  a: {{source: demo}}\n")


def test_yaml_that_nests_without_end_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nested too deeply|not valid YAML"):
        load(tmp_path, "[" * 5000)


def test_the_token_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKOUT_TOKEN", "hunter2hunter2")
    config = load(tmp_path, "server: {host: 0.0.0.0}\ncameras:\n  a: {source: demo}\n")
    assert config.server.token is not None
    assert config.server.token.get_secret_value() == "hunter2hunter2"
    assert "hunter2" not in repr(config)
    assert override(config, {"server": {"port": 1}}).server.token == config.server.token


def test_cameras_of_a_command_line_get_short_distinct_names() -> None:
    sources = [
        "demo",
        "0",
        "/videos/My Street.mp4",
        "rtsp://u:p@192.0.2.7:554/x",
        "rtsp://a:P@ss@192.0.2.7/y",
        "synthetic:640x480@30",
    ]
    config = config_from_sources(sources, {}, {"overlay": "exact"})
    assert list(config.cameras) == ["demo", "camera0", "my-street", "192-0-2-7", "192-0-2-7-2", "synthetic"]
    assert {camera.overlay for camera in config.cameras.values()} == {"exact"}
