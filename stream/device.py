"""An onnxruntime session on the device that was asked for, or an error that says the remedy.

What a session runs on is read from the session itself: a build that *offers* CUDA says nothing
about whether it loads. Knows nothing of pictures or detections.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from export.artifact import ArtifactError, ModelSpec
from stream.cores import usable_cores
from stream.errors import DeviceUnavailable
from stream.gpu import driver_fault, preload, tensorrt_fault
from stream.gpu_session import open_on_gpu
from stream.session import Session

Device = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
Say = Callable[[str], None]

MOST_THREADS = 4
"""Small detectors gain little beyond; cores are left to decoders, encoders and other cameras."""

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_REMEDIES = {
    "cuda": "install the NVIDIA driver and pip install 'onnxruntime-gpu[cuda,cudnn]' (on Linux x86-64), "
    "or use device: cpu",
    "tensorrt": "install the NVIDIA driver and pip install 'onnxruntime-gpu[cuda,cudnn]' tensorrt (on Linux "
    "x86-64), or use device: cuda or cpu",
    "openvino": "pip uninstall onnxruntime onnxruntime-gpu and pip install onnxruntime-openvino (the three "
    "exclude each other), or use device: cpu",
}
_ONLY_FATAL, _WARNINGS = 4, 2


def open_session(
    path: Path, spec: ModelSpec, device: Device, threads: int | None, say: Say = lambda line: None
) -> Session:
    """Load a model and run it once.

    Args:
        path: a contract file.
        spec: of that file.
        device: ``auto`` takes CUDA where it really works, else the CPU, and says why; TensorRT and OpenVINO
            are taken only when asked for.
        threads: of one run on the CPU; None chooses by the machine.
        say: told of what takes minutes.

    Raises:
        ArtifactError: onnxruntime cannot load or run the graph.
        DeviceUnavailable: that device was asked for and does not work here.
    """
    count = threads or default_threads()
    if device == "cpu":
        return _warm(path, spec, "cpu", "as asked", count)
    if spec.proposals is not None and device != "openvino":
        why = f"a {spec.family} judges boxes that the CPU proposes, and runs there too"
        if device == "auto":
            return _warm(path, spec, "cpu", why, count)
        raise DeviceUnavailable(f"device: {device} was asked for, but {why}; use device: cpu or auto")
    wanted = "cuda" if device == "auto" else device
    outcome = _try(path, spec, wanted, count, say)
    if isinstance(outcome, Session):
        return outcome
    if device == "auto":
        return _warm(path, spec, "cpu", outcome, count)
    raise DeviceUnavailable(f"device: {device} was asked for, but {outcome}; {_REMEDIES[device]}")


def default_threads() -> int:
    """Threads for one run: half the cores this process may use, up to ``MOST_THREADS``.

    Throughput a CPU second counts here, not the latency of one run: on two cores a second thread took
    YOLOX-nano from 13 to 18 ms of CPU a run and made it no faster, while decoding and encoding waited.
    """
    return max(1, min(MOST_THREADS, usable_cores() // 2))


def _try(path: Path, spec: ModelSpec, device: str, threads: int, say: Say) -> Session | str:
    """A session on that device, or why there is none."""
    provider = _PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        return f"this onnxruntime is built without {provider.removesuffix('ExecutionProvider')}"
    fault = driver_fault() if device != "openvino" else None
    if fault is None and device == "tensorrt":
        fault = tensorrt_fault()
    if fault is not None:
        return fault
    missing = preload() if device != "openvino" else ""
    if device == "tensorrt":
        say("device  tensorrt builds its engine for this GPU; the first time this takes minutes")
    onnxruntime.set_default_logger_severity(_ONLY_FATAL)  # it shouts on stderr; the reason is returned
    try:
        session = _warm(path, spec, device, "as asked", threads)
    except ArtifactError as error:
        return f"{device} failed: {error}"
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    if provider in session.onnx.get_providers():
        return session
    return f"onnxruntime could not load it ({missing or 'its libraries are missing or do not fit'})"


def _warm(path: Path, spec: ModelSpec, device: str, reason: str, threads: int) -> Session:
    try:
        if device in ("cuda", "tensorrt"):
            return open_on_gpu(path, spec, device, reason, _options(threads))
        providers = [_openvino(threads), "CPUExecutionProvider"] if device == "openvino" else None
        onnx = onnxruntime.InferenceSession(
            str(path), _options(threads), providers=providers or ["CPUExecutionProvider"], enable_fallback=0
        )
        session = Session(onnx, device, reason, threads)
        rule = spec.proposal_rule
        proposals = None if rule is None else np.zeros((1, rule.count, 4), np.float32)
        session.run(np.zeros((1, spec.input_height, spec.input_width, 3), np.uint8), proposals)
    except Exception as error:  # onnxruntime's errors share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(f"{path}: onnxruntime cannot run this model: {lines[0][:300]}") from error
    return session


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning burns the cores that decode and encode beside it: 2 threads cost twice the CPU time a run.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ONLY_FATAL
    return options


def _openvino(threads: int) -> Any:
    # Its default on recent CPUs is half precision, which the parity check at export did not prove.
    settings = {"device_type": "CPU", "precision": "FP32", "num_of_threads": str(threads)}
    return "OpenVINOExecutionProvider", settings
