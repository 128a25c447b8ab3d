"""Numbers that training, export and the live app must agree on. Imports nothing."""

from __future__ import annotations

NMS_THRESHOLD = 0.65
"""Default IoU above which the lower-scoring box of one class is dropped (YOLOX, arXiv 2107.08430)."""
