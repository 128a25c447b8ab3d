"""A quiet onnxruntime session on the CPU: what models are tried and proven with."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime

_ONLY_FATAL = 4  # whatever it has to say comes as an exception too; a stranger's oddities are not our user's


def cpu_session(model: onnx.ModelProto | str, *, as_written: bool = False) -> Any:
    """A session of a model, or of the file of that path; onnxruntime's errors as they come.

    Args:
        model: the graph.
        as_written: run every node as it stands, none fused with others.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other work waits for the cores
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
