"""GStreamer as PyGObject gives it, loaded in the order that keeps the process alive.

Needs PyGObject and GStreamer's typelibs (ImportError, ValueError).
"""

from __future__ import annotations

# GStreamer brings libunwind. A C++ library that is loaded after it was seen to end the process when it threw, instead
# of catching its own exception; those that were loaded before still catch theirs. So first comes what throws.
import cv2  # noqa: F401
import gi
import onnx  # noqa: F401
import onnxruntime  # noqa: F401

for _namespace in ("Gst", "GstApp", "GstVideo"):
    gi.require_version(_namespace, "1.0")

from gi.repository import GLib, Gst, GstApp, GstVideo  # noqa: E402

__all__ = ["GLib", "Gst", "GstApp", "GstVideo"]

Gst.init(None)
for _name in ("hlsdemux", "dashdemux", "mssdemux"):  # their playlists may name files of this machine
    if _feature := Gst.Registry.get().lookup_feature(_name):
        _feature.set_rank(Gst.Rank.NONE)  # instead hlsdemux2 and its kin, which speak HTTP alone
