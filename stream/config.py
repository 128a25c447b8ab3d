"""Configuration: YAML or command line -> frozen, validated models.

Unknown keys and wrong values are refused by their path and line; nothing is guessed. Knows
nothing of how the values are used.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stream.errors import ConfigError, redact

CAMERA_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
TOKEN = re.compile(r"[!-~]{8,256}")
ICE_URL = r"^(stuns?|turns?):[A-Za-z0-9.\-\[\]:]{1,255}(\?transport=(udp|tcp))?$"
ORIGIN = r"^https?://[A-Za-z0-9.\-\[\]]{1,255}(:[0-9]{1,5})?$"
_HIDDEN = {"token", "credential", "secret"}
MAX_CONFIG_BYTES = 1 << 20


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


class ServerConfig(_Section):
    """Where the app listens, how much it will serve, and to whom.

    ``allow_origins`` are sites whose pages may play from here (CORS), such as ``https://wall.example.net``.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    token: SecretStr | None = None
    max_viewers: Annotated[int, Field(ge=1, le=10_000)] = 64
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

    ``threads`` are those of one run on the CPU; ``max_batch`` is how many cameras may share a run.
    None chooses by the device (``stream/session.py``, ``stream/pipeline.py``).
    """

    model: str = "lookout-nano"
    device: Literal["auto", "cpu", "cuda", "tensorrt", "openvino"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    score_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_batch: Annotated[int, Field(ge=1, le=8)] | None = None


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


class CameraConfig(_Section):
    """One camera. ``transport`` is for RTSP, ``loop`` and ``pace`` are for files."""

    source: Annotated[str, Field(min_length=1, max_length=2048)]
    transport: Literal["tcp", "udp"] = "tcp"
    overlay: Literal["smooth", "exact"] = "smooth"
    detect: Literal["always", "when-watched"] = "always"
    loop: bool = True
    pace: Literal["realtime", "lossless"] = "realtime"
    stall_s: Annotated[float, Field(ge=0.5, le=300)] = 5.0
    max_backoff_s: Annotated[float, Field(ge=0.5, le=600)] = 30.0

    @field_validator("source", mode="before")
    @classmethod
    def _device_number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class AppConfig(_Section):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    detector: DetectorConfig = DetectorConfig()
    encoder: EncoderConfig = EncoderConfig()
    cameras: Annotated[dict[str, CameraConfig], Field(min_length=1, max_length=256)]

    @field_validator("cameras")
    @classmethod
    def _camera_ids(cls, cameras: dict[str, CameraConfig]) -> dict[str, CameraConfig]:
        for name in cameras:
            if not CAMERA_ID.fullmatch(name):
                raise ValueError(
                    f"camera name {name!r}: use lower-case letters, digits, '-' and '_', at most 40"
                )
        return cameras


def load_config(path: Path) -> AppConfig:
    """Read a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or a key or value is wrong; one line a
            fault, each with its line number and key path.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"{path}: larger than {MAX_CONFIG_BYTES} bytes; expected a lookout YAML configuration"
            )
        document = YAML().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); expected a YAML configuration"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text; expected a YAML configuration") from error
    except YAMLError as error:
        raise ConfigError(f"{path}{_yaml_fault(error)}") from error
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply; expected a lookout YAML configuration") from None
    if not isinstance(document, Mapping):
        raise ConfigError(
            f"{path}: expected keys such as 'cameras:' at the top level, got {type(document).__name__}"
        )
    return _validate(document, str(path))


def config_from_sources(
    sources: Sequence[str],
    settings: Mapping[str, Mapping[str, object]],
    camera: Mapping[str, object] | None = None,
) -> AppConfig:
    """The configuration of a command line: its sources, values by section, and for every camera.

    Raises:
        ConfigError: a value is wrong.
    """
    cameras: dict[str, dict[str, object]] = {}
    for source in sources:
        cameras[_camera_name(source, cameras)] = {"source": source, **(camera or {})}
    return _validate({**settings, "cameras": cameras}, "command line")


def override(config: AppConfig, settings: Mapping[str, Mapping[str, object]]) -> AppConfig:
    """``config`` with single values replaced, section by section, and validated again."""
    document = config.model_dump()
    for section, values in settings.items():
        document[section] = {**document[section], **values}
    return _validate(document, "command line")


def _validate(document: Mapping[str, Any], origin: str) -> AppConfig:
    token = os.environ.get("LOOKOUT_TOKEN")
    server = document.get("server", {})
    if token and isinstance(server, Mapping) and not server.get("token"):
        document = {**document, "server": {**server, "token": token}}
    try:
        return AppConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(_fault(document, origin, fault) for fault in error.errors())) from None


def _fault(document: Mapping[str, Any], origin: str, fault: Any) -> str:
    """One line for one pydantic error: where, what was expected, what came."""
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    line = _line_of(document, path)
    where = f"{origin}:{line}" if line else origin
    key = ".".join(path) or "configuration"
    if fault["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
        return f"{where}: {key}: unknown key; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{where}: {key}: is missing"
    given = fault["input"]
    shown = f" (got {redact(repr(given))[:80]})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {key}: {message[0].lower()}{message[1:]}{'' if _HIDDEN & set(path) else shown}"


def _known_keys(path: list[str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "server": ServerConfig,
        "detector": DetectorConfig,
        "encoder": EncoderConfig,
        "cameras": CameraConfig,
    }
    return list((sections[path[0]] if path else AppConfig).model_fields)


def _line_of(document: Any, path: list[str]) -> int | None:
    """The 1-based line of the deepest key of ``path`` that the YAML document has."""
    line: int | None = None
    for part in path:
        positions = getattr(document, "lc", None)
        if not isinstance(document, Mapping) or part not in document or positions is None:
            break
        line = positions.data[part][0] + 1 if part in (positions.data or {}) else line
        document = document[part]
    return line


def _yaml_fault(error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f":{error.problem_mark.line + 1}: not valid YAML: {error.problem}"
    return ": not valid YAML"


def _camera_name(source: str, taken: Mapping[str, object]) -> str:
    """A short name for a source: the file's stem, the host, ``demo``, ``camera`` for a device."""
    source = redact(source)
    if "://" in source:
        stem = re.sub(r"^.*?://(?:\*\*\*@)?([^/:?]*).*$", r"\1", source)
    elif source.isdigit():
        stem = f"camera{source}"
    else:
        stem = (
            re.split(r"[:@]", source, maxsplit=1)[0] if source.startswith("synthetic") else Path(source).stem
        )
    stem = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:32] or "camera"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name
