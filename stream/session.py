"""An onnxruntime session on the device that was asked for, or an error that says the remedy.

What a session runs on is read from the session itself: a build that *offers* CUDA says nothing
about whether it loads. Knows nothing of pictures or detections.
"""

from __future__ import annotations

import ctypes
import io
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from export.artifact import ArtifactError, ModelSpec
from stream.cores import usable_cores
from stream.errors import DeviceUnavailable

Device = Literal["auto", "cpu", "cuda"]

MOST_THREADS = 4
"""Small detectors gain little beyond; cores are left to decoders, encoders and other cameras."""

REMEDY = (
    "install the NVIDIA driver and pip install 'onnxruntime-gpu[cuda,cudnn]' (on Linux x86-64), "
    "or use device: cpu"
)

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_ONLY_FATAL, _WARNINGS = 4, 2


@dataclass(frozen=True, slots=True)
class Session:
    """A warm session. ``device`` is what it really runs on, ``reason`` why that was chosen."""

    onnx: Any
    device: str
    reason: str
    threads: int


def open_session(path: Path, spec: ModelSpec, device: Device, threads: int | None) -> Session:
    """Load a model and run it once.

    Args:
        path: a contract file.
        spec: of that file.
        device: ``auto`` takes CUDA where it really works and says why not where it does not.
        threads: of one run on the CPU; None chooses by the machine.

    Raises:
        ArtifactError: onnxruntime cannot load or run the graph.
        DeviceUnavailable: ``cuda`` was asked for and does not work here.
    """
    count = threads or default_threads()
    if device == "cpu":
        return Session(_open(path, spec, [_CPU], count), "cpu", "as asked", count)
    outcome = _open_cuda(path, spec, count)
    if not isinstance(outcome, str):
        return Session(outcome, "cuda", "as asked" if device == "cuda" else "CUDA works here", count)
    if device == "cuda":
        raise DeviceUnavailable(f"device: cuda was asked for, but {outcome}; {REMEDY}")
    return Session(_open(path, spec, [_CPU], count), "cpu", outcome, count)


def default_threads() -> int:
    """Threads for one run: half the cores this process may use, up to ``MOST_THREADS``.

    Throughput a CPU second counts here, not the latency of one run: on two cores a second thread took
    YOLOX-nano from 13 to 18 ms of CPU a run and made it no faster, while decoding and encoding waited.
    """
    return max(1, min(MOST_THREADS, usable_cores() // 2))


def _open_cuda(path: Path, spec: ModelSpec, threads: int) -> Any | str:
    """A CUDA session, or why there is none."""
    if _CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA"
    fault = _driver_fault()
    if fault is not None:
        return fault
    missing = _preload()
    # Algorithm search per shape is exhaustive by default: seconds for each new batch size.
    # TF32, the default on Ampere and later, keeps 10 bits of a factor: boxes would not be those that the
    # parity check at export proved.
    cuda = (_CUDA, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"})
    onnxruntime.set_default_logger_severity(_ONLY_FATAL)  # it shouts on stderr; the reason is returned
    try:
        session = _open(path, spec, [cuda, _CPU], threads)
    except ArtifactError as error:
        return f"CUDA failed: {error}"
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    if _CUDA in session.get_providers():
        return session
    return f"onnxruntime could not load CUDA ({missing or 'its CUDA or cuDNN libraries do not fit'})"


def _open(path: Path, spec: ModelSpec, providers: list[Any], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning burns the cores that decode and encode beside it: 2 threads cost twice the CPU time a run.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ONLY_FATAL
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        blank = np.zeros((1, spec.input_height, spec.input_width, 3), np.uint8)
        session.run(["boxes", "scores", "classes"], {"images": blank})
    except Exception as error:  # onnxruntime's errors share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(f"{path}: onnxruntime cannot run this model: {lines[0][:300]}") from error
    return session


def _driver_fault() -> str | None:
    """Why the CUDA driver has no device here, or None if it has one."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f"there is no NVIDIA driver here ({name} not found)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no GPU"
    return None


def _preload() -> str:
    """Load the CUDA libraries of the nvidia wheels; returns what it says is missing, on one line."""
    said = io.StringIO()
    with redirect_stdout(said):  # it reports by print
        onnxruntime.preload_dlls()
    return next((line for line in said.getvalue().splitlines() if line.startswith("Failed")), "")
