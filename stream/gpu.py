"""What an NVIDIA GPU needs before onnxruntime can use it, and how TensorRT is told to.

Knows nothing of models but their input's size.
"""

from __future__ import annotations

import ctypes
import io
import os
import sys
from contextlib import redirect_stdout
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import onnxruntime

_TENSORRT = {"win32": "nvinfer_10.dll"}.get(sys.platform, "libnvinfer.so.10")


def driver_fault() -> str | None:
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


def tensorrt_fault() -> str | None:
    """Why TensorRT cannot be loaded here, or None if it can. Its pip package is loaded so that it is found."""
    package = find_spec("tensorrt_libs")
    folders = [Path(place) for place in package.submodule_search_locations or []] if package else []
    for library in (*(folder / _TENSORRT for folder in folders), _TENSORRT, find_library("nvinfer")):
        try:
            if library is not None:
                ctypes.CDLL(str(library))
                return None
        except OSError:
            continue
    return f"TensorRT is not installed here ({_TENSORRT} not found)"


def preload() -> str:
    """Load the CUDA libraries of the nvidia wheels; returns what it says is missing, on one line."""
    said = io.StringIO()
    with redirect_stdout(said):  # it reports by print
        onnxruntime.preload_dlls()
    return next((line for line in said.getvalue().splitlines() if line.startswith("Failed")), "")


def tensorrt_options(input_height: int, input_width: int, most_pictures: int) -> dict[str, str]:
    """Options of onnxruntime's TensorRT provider: engines are kept on disk, for all batches at once.

    Each engine is for one GPU, TensorRT and graph; the provider names its files by these.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lookout" / "tensorrt"
    cache.mkdir(parents=True, exist_ok=True)
    least, most = (f"images:{count}x{input_height}x{input_width}x3" for count in (1, most_pictures))
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_profile_min_shapes": least,
        "trt_profile_opt_shapes": most,
        "trt_profile_max_shapes": most,
    }
