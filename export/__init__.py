"""PyTorch models and strangers' ONNX files, turned into the one graph contract.

``artifact`` is the joint with the live app and imports neither torch nor onnxruntime.
"""
