"""An onnxruntime session on the device that was asked for, or an error that says the remedy.

What a session runs on is read from the session itself: a build that *offers* CUDA says nothing
about whether it loads. Knows nothing of pictures or detections.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from export.artifact import ArtifactError, ModelSpec
from stream.cores import usable_cores
from stream.errors import DeviceUnavailable
from stream.gpu import driver_fault, preload, tensorrt_fault, tensorrt_options

Device = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
Say = Callable[[str], None]
Tensors = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]

MOST_THREADS = 4
"""Small detectors gain little beyond; cores are left to decoders, encoders and other cameras."""

GPU_BATCH = 8
"""Pictures of one run on a GPU; on a CPU a batch is no faster than its pictures one by one."""

OUTPUTS = ("boxes", "scores", "classes")

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


class Session:
    """A warm session for one thread at a time; ``twin`` gives another thread its own.

    Attributes:
        onnx: onnxruntime's session, shared by twins.
        device: what it really runs on.
        reason: why that was chosen.
        threads: CPU threads of one run.
    """

    def __init__(self, onnx: Any, device: str, reason: str, threads: int) -> None:
        self.onnx, self.device, self.reason, self.threads = onnx, device, reason, threads
        self.on_gpu = device in ("cuda", "tensorrt")
        self._bindings: dict[int, _Binding] = {}

    def twin(self) -> Session:
        """The same session with buffers of its own."""
        return Session(self.onnx, self.device, self.reason, self.threads)

    def run(self, images: npt.NDArray[np.uint8]) -> Tensors:
        """One run of the model.

        Args:
            images: uint8 (B, H, W, 3); on a GPU B is at most ``GPU_BATCH``.

        Returns:
            boxes float32 (B, Q, 4), scores float32 (B, Q), classes int64 (B, Q).
        """
        if not self.on_gpu:
            boxes, scores, classes = self.onnx.run(OUTPUTS, {"images": images})
            return boxes, scores, classes
        if len(images) not in self._bindings:
            self._bindings[len(images)] = _Binding(self.onnx, images, "cuda")
        return self._bindings[len(images)].run(images)

    def warm_up(self, spec: ModelSpec, most_pictures: int) -> None:
        """Run every batch size once: a GPU prepares its kernels at the first picture of each."""
        for count in range(1, most_pictures + 1):
            self.run(np.zeros((count, spec.input_height, spec.input_width, 3), np.uint8))


class _Binding:
    """Buffers on the device for one batch size, made once and used for every run of it.

    No CUDA graph: suppression gives as many rows as it finds, and a capture needs every shape to be static.
    """

    def __init__(self, onnx: Any, images: npt.NDArray[np.uint8], device: str) -> None:
        self._onnx = onnx
        self._images = onnxruntime.OrtValue.ortvalue_from_numpy(images, device, 0)
        self._binding = onnx.io_binding()
        self._binding.bind_ortvalue_input("images", self._images)
        for name in OUTPUTS:
            self._binding.bind_output(name, device)

    def run(self, images: npt.NDArray[np.uint8]) -> Tensors:
        self._images.update_inplace(images)
        self._onnx.run_with_iobinding(self._binding)
        boxes, scores, classes = self._binding.copy_outputs_to_cpu()
        return boxes, scores, classes


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
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning burns the cores that decode and encode beside it: 2 threads cost twice the CPU time a run.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ONLY_FATAL
    providers = _providers(device, spec, threads)
    try:
        onnx = onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        session = Session(onnx, device, reason, threads)
        if _PROVIDERS[device] in onnx.get_providers():
            session.warm_up(spec, GPU_BATCH if session.on_gpu else 1)
    except Exception as error:  # onnxruntime's errors share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(f"{path}: onnxruntime cannot run this model: {lines[0][:300]}") from error
    return session


def _providers(device: str, spec: ModelSpec, threads: int) -> list[Any]:
    """Providers in order of preference; what the first cannot run goes to the CPU's."""
    # Algorithm search per shape is exhaustive by default: seconds for each new batch size.
    # TF32, the default on Ampere and later, keeps 10 bits of a factor: boxes would not be those that the
    # parity check at export proved.
    cuda = (_PROVIDERS["cuda"], {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"})
    if device == "tensorrt":
        size = (spec.input_height, spec.input_width)
        return [(_PROVIDERS["tensorrt"], tensorrt_options(*size, GPU_BATCH)), cuda, _PROVIDERS["cpu"]]
    if device == "openvino":
        # Its default on recent CPUs is half precision, which the parity check at export did not prove.
        openvino = {"device_type": "CPU", "precision": "FP32", "num_of_threads": str(threads)}
        return [(_PROVIDERS["openvino"], openvino), _PROVIDERS["cpu"]]
    return [cuda, _PROVIDERS["cpu"]] if device == "cuda" else [_PROVIDERS["cpu"]]
