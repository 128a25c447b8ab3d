"""The command as a user meets it: its exit code, what it prints and what it never prints.

In a real process where it runs for a while, and once where it fails; other calls are made in this process,
which spares them the start of another Python.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import onnx
import pytest
from onnx import TensorProto, helper

from stream.cli import main

Lookout = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lookout(log_kept: None, capfd: pytest.CaptureFixture[str]) -> Lookout:
    """Makes one call; its exit code, and what it printed on stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@contextmanager
def watching(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """``lookout watch`` on a free port: the process, its address, what it said on the way."""
    command = [sys.executable, "-m", "stream.cli", "watch", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = []
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"open +(http://\S+)", line):
                break
        else:
            pytest.fail("never said where to look: " + "".join(said))
        yield process, found.group(1), said
    finally:
        process.kill()
        process.communicate()


def wait_for_picture(address: str, camera: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/api/cameras/{camera}/snapshot.jpg").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail("no picture")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_watch_says_what_it_chose_and_ends_within_two_seconds(how: signal.Signals) -> None:
    with watching("demo", "rtsp://127.0.0.1:1/none") as (process, address, said):
        text = "".join(said)
        assert "model   lookout-nano" in text
        assert re.search(r"device  (cpu|cuda) \(.+\)", text)
        wait_for_picture(address, "demo")
        began = time.monotonic()
        process.send_signal(how)
        assert process.wait(5) == 0
        assert time.monotonic() - began < 2
        after = process.stderr.read()  # type: ignore[union-attr]
        assert "Traceback" not in after
        assert "timed out" not in after


def test_a_credential_is_never_printed() -> None:
    with watching("demo", "rtsp://admin:hunter2@127.0.0.1:1/none?token=hunter2") as (process, address, said):
        wait_for_picture(address, "demo")
        assert process.stderr is not None
        for line in process.stderr:  # until the camera that is down is known to be
            said.append(line)
            if "unreachable" in line:
                break
        process.send_signal(signal.SIGINT)
        process.wait(5)
        text = "".join(said) + process.stderr.read()
    assert "unreachable" in text
    assert "hunter2" not in text


def not_a_detector(folder: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
    )
    path = folder / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_bad_call_is_one_clear_line_and_an_exit_code() -> None:
    command = [sys.executable, "-m", "stream.cli", "watch", "dmeo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lookout: 'dmeo': ")
    assert "there is no such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_each_bad_call_says_what_is_wrong(lookout: Lookout, tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("cameras:\n  a: {source: demo, overlai: exact}\n")
    (tmp_path / "text.onnx").write_text("this is not a model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = [
            (["watch"], 2, "expected a SOURCE or --config FILE"),
            (["watch", "dmeo"], 2, "there is no such file"),
            (["watch", "demo", "--config", tmp_path / "typo.yaml"], 2, "--config names the cameras"),
            (["watch", "--config", tmp_path / "typo.yaml"], 2, "did you mean 'overlay'?"),
            (["watch", "--config", tmp_path / "none.yaml"], 2, "cannot be read"),
            (["watch", "demo", "--host", "0.0.0.0"], 2, "a token is required"),
            (["watch", "demo", "--port", taken.getsockname()[1]], 2, "choose another with --port"),
            (["export", "x.onnx", "--out", "y.onnx", "--names", tmp_path / "none.txt"], 2, "one name a line"),
            (["watch", "demo", "--model", "none.onnx"], 1, "no such model"),
            (["watch", "demo", "--model", tmp_path / "text.onnx"], 1, "not an ONNX file"),
            (["watch", "demo", "--model", not_a_detector(tmp_path)], 1, "(1, 10)"),
            (["watch", "demo", "--score", "7"], 2, "detector.score_threshold"),
            (["detect", tmp_path / "none.mp4"], 1, "there is no such file"),
            (["export", tmp_path / "text.onnx", "--out", tmp_path / "out.onnx"], 1, "not an ONNX file"),
        ]
        for arguments, code, expected in cases:
            result, out, err = lookout(*arguments)
            assert result == code, (arguments, err)
            assert expected in err, (arguments, err)
            assert "Traceback" not in err, (arguments, err)
            assert out == ""


def test_cuda_that_is_not_there_is_refused(lookout: Lookout) -> None:
    import onnxruntime

    from stream.gpu import driver_fault

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and driver_fault() is None:
        pytest.skip("this machine has a CUDA driver")
    code, _, err = lookout("watch", "demo", "--device", "cuda", "--port", "0")
    assert code == 1
    assert "cuda was asked for" in err
    assert "use device: cpu" in err


def test_two_on_one_port_is_one_clear_error(lookout: Lookout) -> None:
    with watching("synthetic:320x240@5") as (_, address, _):
        code, _, err = lookout("watch", "synthetic:320x240@5", "--port", address.rpartition(":")[2])
    assert code == 2
    assert "choose another with --port" in err


def test_many_names_are_a_list_and_a_wrong_log_level_is_told(
    lookout: Lookout, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ",".join(f"class-number-{number}" for number in range(80))
    code, _, err = lookout("export", "none.onnx", "--out", "x.onnx", "--names", names)
    assert code == 1
    assert "no such model" in err
    monkeypatch.setenv("LOOKOUT_LOG", "foo")
    code, _, err = lookout("models")
    assert code == 2
    assert "expected DEBUG, INFO" in err


def test_lists_are_json_when_asked(lookout: Lookout) -> None:
    models = json.loads(lookout("models", "--json")[1])["models"]
    assert models[0]["name"] == "lookout-nano"
    assert "person" in models[0]["names"]
    sources = json.loads(lookout("sources", "--json")[1])["sources"]
    assert sources
    assert "lookout-nano" in lookout("models")[1]


def test_eval_measures_a_model_on_annotated_pictures(lookout: Lookout, shared: Path, tmp_path: Path) -> None:
    """A stranger's model, adapted, on the first pictures of COCO: sane figures, one JSON object."""
    folder = shared / "data" / "coco-mini"
    annotations = next(path for path in folder.rglob("*.json") if "val" in str(path))
    document = json.loads(annotations.read_text())
    kept = document["images"][:25]
    ids = {image["id"] for image in kept}
    few = {
        **document,
        "images": kept,
        "annotations": [box for box in document["annotations"] if box["image_id"] in ids],
    }
    (tmp_path / "few.json").write_text(json.dumps(few))
    images = next(path for path in folder.rglob(kept[0]["file_name"])).parent
    model = tmp_path / "adapted.onnx"
    assert lookout("export", shared / "models" / "yolox_nano.onnx", "--out", model)[0] == 0
    code, out, err = lookout(
        "eval", "--model", model, "--data", tmp_path / "few.json", "--images", images, "--json"
    )
    assert code == 0, err
    metrics = json.loads(out)
    assert 0.2 < metrics["AP"] < metrics["AP50"] < 0.9
    assert metrics["per_class_AP50"]["person"] > 0.3
