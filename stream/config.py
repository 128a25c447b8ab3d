"""What can be configured: frozen, validated models, one a section of the file.

Knows nothing of files (``stream/config_file.py``) or of how the values are used.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

CAMERA_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
TOKEN = re.compile(r"[!-~]{8,256}")
ICE_URL = r"^(stuns?|turns?):[A-Za-z0-9.\-\[\]:]{1,255}(\?transport=(udp|tcp))?$"
ORIGIN = r"^https?://[A-Za-z0-9.\-\[\]]{1,255}(:[0-9]{1,5})?$"
DEFAULT_DETECTOR = "default"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class IceServerConfig(_Section):
    """A STUN or TURN server for viewers beyond this network.

    TURN wants ``username`` and ``credential``, or the ``secret`` that it shares with us, of which
    credentials are made that expire (coturn: ``use-auth-secret``).
    """

    urls: Annotated[tuple[Annotated[str, Field(pattern=ICE_URL)], ...], Field(min_length=1, max_length=8)]
    username: Annotated[str, Field(pattern=r"^[!-~]{1,256}$")] | None = None
    credential: SecretStr | None = None
    secret: SecretStr | None = None

    @model_validator(mode="after")
    def _credentials_fit(self) -> IceServerConfig:
        needs = any(url.startswith("turn") for url in self.urls)
        plain = self.username is not None and self.credential is not None
        if needs and plain == (self.secret is not None):
            raise ValueError("a turn: server needs username and credential, or secret; give one of the two")
        if not needs and any((self.username, self.credential, self.secret)):
            raise ValueError("a stun: server takes no username, credential or secret; leave them out")
        for hidden in (self.credential, self.secret):
            if hidden is not None and not re.fullmatch(r"[!-~]{1,256}", hidden.get_secret_value()):
                raise ValueError("expected 1 to 256 printable ASCII characters without spaces")
        return self


AllowedSource = Annotated[str, Field(pattern=r"^(/.{0,1023}|[a-z]{3,12})$")]
AllowedFolder = Annotated[str, Field(pattern=r"^/.{0,1023}$")]
DEFAULT_SOURCES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "whip", "demo", "synthetic")


class ServerConfig(_Section):
    """Where the app listens, how much it will serve, and to whom.

    ``allow_origins`` are sites whose pages may play from here (CORS), such as ``https://wall.example.net``.
    ``allow_sources`` is what callers of the API may name as a camera's source: schemes, ``device``, ``demo``,
    ``synthetic``, ``whip``, and folders (absolute paths) whose files they may play. The file's own cameras
    are not bound by it. ``allow_models`` are folders (absolute paths) whose files they may have a detector run;
    models that lookout knows by name they always may.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    token: SecretStr | None = None
    max_viewers: Annotated[int, Field(ge=1, le=10_000)] = 64
    allow_sources: Annotated[tuple[AllowedSource, ...], Field(max_length=64)] = DEFAULT_SOURCES
    allow_models: Annotated[tuple[AllowedFolder, ...], Field(max_length=64)] = ()
    ice_servers: Annotated[tuple[IceServerConfig, ...], Field(max_length=8)] = ()
    allow_origins: Annotated[tuple[Annotated[str, Field(pattern=ORIGIN)], ...], Field(max_length=32)] = ()

    @field_validator("token")
    @classmethod
    def _token_is_usable(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not TOKEN.fullmatch(token.get_secret_value()):
            raise ValueError("expected 8 to 256 printable ASCII characters without spaces")
        return token

    @property
    def is_loopback(self) -> bool:
        """Only this machine can connect."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _public_needs_token(self) -> ServerConfig:
        if not self.is_loopback and self.token is None:
            raise ValueError(
                f"host {self.host!r} can be reached from other machines, so a token is required: "
                "set server.token or the environment variable LOOKOUT_TOKEN"
            )
        return self


class DetectorConfig(_Section):
    """Which model runs, where, and from which score a detection counts.

    ``threads`` are those of one run on the CPU; ``max_batch`` is how many cameras may share a run;
    ``max_wait_ms`` is how long a frame may wait for others to share one. None chooses by the device
    (``stream/device.py``, ``stream/batching.py``).
    """

    model: str = "lookout-nano"
    device: Literal["auto", "cpu", "cuda", "tensorrt", "openvino"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    score_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_batch: Annotated[int, Field(ge=1, le=8)] | None = None
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] | None = None


RenditionHeight = Annotated[int, Field(ge=90, le=4320, multiple_of=2)]


class EncoderConfig(_Section):
    """What viewers receive.

    ``bitrate_kbps`` is for pictures of the camera's own size. ``heights`` are the smaller ones, in pixels, that
    viewers may ask for, and are given where their network cannot carry more; they get fewer bits. ``h264`` is
    what makes H.264, by FFmpeg's name.
    """

    h264: Literal["libx264", "h264_nvenc", "h264_v4l2m2m"] = "libx264"

    bitrate_kbps: Annotated[int, Field(ge=100, le=50_000)] = 2000
    heights: Annotated[tuple[RenditionHeight, ...], Field(max_length=8)] = (1080, 720, 360, 180)


Coordinate = Annotated[float, Field(ge=0, le=16384)]
Region = Annotated[tuple[tuple[Coordinate, Coordinate], ...], Field(min_length=3, max_length=64)]


class CameraConfig(_Section):
    """One camera.

    ``hwaccel`` is for the backend ``pyav`` (``cuda`` is NVIDIA's NVDEC); GStreamer takes what hardware it finds.
    ``transport`` and ``latency_ms`` (GStreamer's jitter buffer; None: 0 over TCP, 50 over UDP) are for RTSP;
    ``loop``, ``start_s`` and ``pace`` are for files: ``realtime`` plays by their own timestamps,
    ``fastest`` as fast as they can be decoded, and ``lossless`` waits until each picture was detected.
    ``regions`` are polygons, points (x, y) in pixels of the camera's picture: only what lies in one of them
    is shown to the detector. ``detect_fps`` is how often it is asked at most.
    """

    source: Annotated[str, Field(min_length=1, max_length=2048)]
    backend: Literal["auto", "pyav", "gstreamer"] = "auto"
    hwaccel: Literal["none", "cuda"] = "none"
    transport: Literal["tcp", "udp"] = "tcp"
    latency_ms: Annotated[int, Field(ge=0, le=10_000)] | None = None
    overlay: Literal["smooth", "exact"] = "smooth"
    detector: str = DEFAULT_DETECTOR
    detect: Literal["always", "when-watched"] = "always"
    detect_fps: Annotated[float, Field(ge=0.1, le=240)] | None = None
    regions: Annotated[tuple[Region, ...], Field(max_length=16)] = ()
    loop: bool = True
    start_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    pace: Literal["realtime", "lossless", "fastest"] = "realtime"
    stall_s: Annotated[float, Field(ge=0.5, le=300)] = 5.0
    max_backoff_s: Annotated[float, Field(ge=0.5, le=600)] = 30.0

    @model_validator(mode="after")
    def _hwaccel_is_pyavs(self) -> CameraConfig:
        if self.hwaccel != "none" and self.backend == "gstreamer":
            raise ValueError(
                f"hwaccel: {self.hwaccel} is for backend: pyav; GStreamer takes what hardware it finds, so leave it out"
            )
        return self

    @field_validator("source", mode="before")
    @classmethod
    def _device_number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class LogConfig(_Section):
    """What is written to standard error: ``json`` is one object a line, for machines."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class AppConfig(_Section):
    """The whole file. ``detector`` serves every camera that names none of ``detectors``."""

    server: ServerConfig = ServerConfig()
    log: LogConfig = LogConfig()
    detector: DetectorConfig = DetectorConfig()
    detectors: Annotated[dict[str, DetectorConfig], Field(max_length=8)] = {}
    encoder: EncoderConfig = EncoderConfig()
    cameras: Annotated[dict[str, CameraConfig], Field(max_length=256)]

    @field_validator("cameras", "detectors")
    @classmethod
    def _usable_names(cls, named: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        kind = str(info.field_name).removesuffix("s")
        for name in named:
            if not CAMERA_ID.fullmatch(name):
                raise ValueError(
                    f"{kind} name {name!r}: use lower-case letters, digits, '-' and '_', at most 40"
                )
        if DEFAULT_DETECTOR in named and kind == "detector":
            raise ValueError(f"{DEFAULT_DETECTOR!r} is what `detector:` above is called; use another name")
        return named

    @model_validator(mode="after")
    def _detectors_are_there(self) -> AppConfig:
        known = (DEFAULT_DETECTOR, *self.detectors)
        for name, camera in self.cameras.items():
            if camera.detector not in known:
                raise ValueError(
                    f"cameras.{name}.detector: there is no detector {camera.detector!r}; expected one of: "
                    f"{', '.join(known)}"
                )
        return self
