"""FFmpeg's own WHIP muxer, for a process of its own: it holds Python's lock while it connects.

``python -m tests.stream.ffmpeg_publisher URL PROFILE FOLDER`` publishes the synthetic camera as H.264
until its standard input ends; FOLDER takes its certificate.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import av
from aiortc import RTCCertificate
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stream.sources.base import SourceOptions
from stream.sources.synthetic import SyntheticSource

RATE = 30


def publish(url: str, profile: str, folder: Path, ending: threading.Event) -> None:
    source = SyntheticSource(f"synthetic:320x180@{RATE}", SourceOptions())
    with av.open(url, "w", format="whip", options=certificate_in(folder)) as out:
        settings = {"preset": "veryfast", "tune": "zerolatency", "profile": profile, "g": "30"}
        video = out.add_stream("libx264", rate=RATE, options=settings)
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        while not ending.is_set():
            taken = source.read()
            assert taken is not None
            out.mux(video.encode(taken.picture))


def certificate_in(folder: Path) -> dict[str, str]:
    """A certificate for FFmpeg: with GnuTLS it would make itself one on a curve (P-224) that OpenSSL refuses."""
    made = RTCCertificate.generateCertificate()
    key, certificate = folder / "key.pem", folder / "cert.pem"
    key.write_bytes(made._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(made._cert.public_bytes(Encoding.PEM))
    return {"key_file": str(key), "cert_file": str(certificate)}


def main() -> None:
    ending = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ending.set()), daemon=True).start()
    publish(sys.argv[1], sys.argv[2], Path(sys.argv[3]), ending)


if __name__ == "__main__":
    main()
