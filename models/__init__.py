"""Detectors in PyTorch: architectures, losses, data, training, evaluation.

Knows nothing of ``export`` or ``stream``. ``errors`` and ``letterbox`` are free of torch,
so that the live app can share them through ``export.artifact``.
"""
