"""One model on an NVIDIA GPU: its network there, suppression on the CPU (``stream/cut.py``).

cuDNN plans every convolution anew whenever the shape of its input changes, which takes seconds, so only a few
batch sizes are ever run, and a batch is filled up to the next of them. A run of each is captured once as a CUDA
graph and then replayed: hundreds of small kernels are started at once, out of buffers that stay where they are.
onnxruntime keeps captured graphs for the thread that recorded them, so one thread of ours does all of it.
What cannot be captured is run picture by picture. TensorRT needs none of this. Knows nothing of what is on the
pictures.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper

from export.artifact import ModelSpec, load
from stream.cut import cut
from stream.gpu import tensorrt_options
from stream.session import OUTPUTS, Session, Tensors

SIZES = (1, 2, 4, 8)
"""Batches that are run. More at once gains nothing that is worth the latency."""

Arrays = dict[str, npt.NDArray[Any]]

_CUDA, _TENSORRT, _CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"


class GpuSession(Session):
    """As ``Session``; batches of up to ``most_pictures``.

    Args:
        worker: the one thread that runs the network.
        network: onnxruntime's session of what runs on the GPU.
        rest: of what then runs on the CPU; None: nothing does.
        buffers: for each size of a batch; none: it runs as many as there are, up to ``most_pictures``.
    """

    def __init__(
        self,
        worker: ThreadPoolExecutor,
        network: Any,
        rest: Any | None,
        buffers: dict[int, _Buffers],
        most_pictures: int,
        device: str,
        reason: str,
        threads: int,
    ) -> None:
        super().__init__(network, device, reason, threads)
        self.most_pictures = most_pictures
        self._worker = worker
        self._rest = rest
        self._buffers = buffers
        self._names = [value.name for value in network.get_outputs()]

    def twin(self) -> GpuSession:
        raise NotImplementedError("a GPU's buffers serve one thread; batch pictures instead")

    def run(self, images: npt.NDArray[np.uint8], proposals: npt.NDArray[np.float32] | None = None) -> Tensors:
        if proposals is not None:
            raise ValueError("models that judge proposals run on the CPU alone")
        if len(images) > self.most_pictures:
            halves = [self.run(images[: self.most_pictures]), self.run(images[self.most_pictures :])]
            boxes, scores, classes = (np.concatenate(pair) for pair in zip(*halves, strict=True))
            return boxes, scores, classes
        found = self._worker.submit(self._network, images).result()
        if self._rest is None:
            boxes, scores, classes = (found[name] for name in OUTPUTS)
        else:
            boxes, scores, classes = self._rest.run(OUTPUTS, found)
        return boxes, scores, classes

    def _network(self, images: npt.NDArray[np.uint8]) -> Arrays:
        if not self._buffers:
            return dict(zip(self._names, self.onnx.run(self._names, {"images": images}), strict=True))
        size = next(size for size in self._buffers if size >= len(images))
        return self._buffers[size].run(self.onnx, images)


class _Buffers:
    """Memory for a batch of one size, made once: a captured graph reads and writes there."""

    def __init__(self, network: Any, outputs: Arrays, spec: ModelSpec, size: int, where: str) -> None:
        self._images = np.zeros((size, spec.input_height, spec.input_width, 3), np.uint8)
        self._input = onnxruntime.OrtValue.ortvalue_from_numpy(self._images, where, 0)
        self._outputs = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(np.repeat(one, size, axis=0), where, 0)
            for name, one in outputs.items()
        }
        self._binding = network.io_binding()
        self._binding.bind_ortvalue_input("images", self._input)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(size))

    def run(self, network: Any, images: npt.NDArray[np.uint8]) -> Arrays:
        count = len(images)
        if count < len(self._images):
            self._images[:count] = images
            images = self._images
        self._input.update_inplace(images)
        network.run_with_iobinding(self._binding, self._options)
        return {name: value.numpy()[:count] for name, value in self._outputs.items()}


def open_on_gpu(path: Path, spec: ModelSpec, device: str, reason: str, options: Any) -> Session:
    """Load a model, and run it in every size.

    Raises:
        Exception: onnxruntime's, which share no base class.
    """
    model = load(path)
    network, rest = cut(model) or (model, None)
    suppression = None
    if rest is not None:
        suppression = onnxruntime.InferenceSession(rest.SerializeToString(), options, providers=[_CPU])
    data, threads = network.SerializeToString(), options.intra_op_num_threads
    most_pictures = max(SIZES)
    worker = ThreadPoolExecutor(1, thread_name_prefix="gpu")
    if device == "cuda":
        try:
            session = _load(data, options, _providers(device, spec, capture=True))
            buffers = worker.submit(_captured, session, network, spec).result()
            sizes = ", ".join(map(str, buffers))
            reason = f"{reason}; CUDA graphs for {sizes} pictures"
            return GpuSession(worker, session, suppression, buffers, most_pictures, device, reason, threads)
        except Exception as error:
            why_not = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
            reason, most_pictures = f"{reason}; no CUDA graphs, so picture by picture: {why_not}", 1
    session = _load(data, options, _providers(device, spec, capture=False))
    opened = GpuSession(worker, session, suppression, {}, most_pictures, device, reason, threads)
    if session.get_providers()[0] != _CPU:
        opened.run(_blank(spec, most_pictures))
        opened.run(_blank(spec, 1))
    return opened


def _load(data: bytes, options: Any, providers: list[Any]) -> Any:
    return onnxruntime.InferenceSession(data, options, providers=providers, enable_fallback=0)


def _captured(session: Any, network: onnx.ModelProto, spec: ModelSpec) -> dict[int, _Buffers]:
    """Buffers of each size, each run until its graph is captured: once to plan, once to record, once to replay."""
    buffers = {size: _Buffers(session, _one_of_each(network), spec, size, "cuda") for size in SIZES}
    for size, each in buffers.items():
        for _ in range(3):
            each.run(session, _blank(spec, size))
    return buffers


def _one_of_each(network: onnx.ModelProto) -> Arrays:
    """For each output an array of its type and shape for one picture.

    Raises:
        ValueError: a side other than the batch is not known.
    """
    ones = {}
    for value in network.graph.output:
        tensor = value.type.tensor_type
        sides = [side.dim_value for side in tensor.shape.dim][1:]
        if not all(sides):
            raise ValueError(f"the shape of {value.name} depends on the picture")
        ones[value.name] = np.zeros((1, *sides), helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return ones


def _blank(spec: ModelSpec, count: int) -> npt.NDArray[np.uint8]:
    return np.zeros((count, spec.input_height, spec.input_width, 3), np.uint8)


def _providers(device: str, spec: ModelSpec, *, capture: bool) -> list[Any]:
    """Providers in order of preference; what the first cannot run goes to the next."""
    # TF32, the default on Ampere and later, keeps 10 bits of a factor: boxes would not be those that the
    # parity check at export proved.
    settings = {
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
        "enable_cuda_graph": str(int(capture)),
    }
    cuda = _CUDA, settings
    if device == "tensorrt":
        return [(_TENSORRT, tensorrt_options(spec.input_height, spec.input_width, max(SIZES))), cuda, _CPU]
    return [cuda, _CPU]
