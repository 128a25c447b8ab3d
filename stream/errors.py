"""The exception tree.

    LookoutError                     one line for the user, no traceback; exit code 1
    ├── UsageError                   the call itself is wrong; exit code 2
    │   └── ConfigError              a YAML key or value, named by its path
    ├── ArtifactError                not a model lookout can run        (export/artifact.py)
    │   └── AdaptError               a signature no adapter recognises  (export/signature.py)
    ├── PullError                    a published model cannot be had    (export/pull.py)
    ├── ParityError                  the export differs from its model  (export/parity.py)
    ├── GateError                    it is no better than the current   (export/gate.py)
    ├── DataError, RecipeError       annotations, training recipes      (models/errors.py)
    ├── CheckpointError              not a checkpoint of lookout train  (models/checkpoint.py)
    ├── DarknetError                 a .cfg or .weights not to be read  (models/lineage/darknet_cfg.py)
    ├── TrainingDiverged             the loss is no longer a number     (models/trainer.py)
    ├── TrainingStopped              no memory, or a worker killed      (models/train.py)
    ├── DeviceUnavailable            asked-for hardware or backend is not there
    ├── SourceError                  a camera's fault, and only its own
    │   ├── SourceUnreachable        refused, no route, unknown host
    │   ├── SourceUnauthorised       401, 403
    │   ├── SourceNotFound           404, no such file, no such device
    │   ├── NoVideo                  opened, but there is no video in it
    │   ├── CodecUnsupported         its video is of a kind that nothing here decodes
    │   ├── SourceTimeout            no answer, or no frame for too long
    │   ├── NothingPublished         it is published to, and nobody does
    │   └── SourceBroken             it was playing and then failed to decode
    └── SignallingError              a WHEP or WHIP request, with its HTTP status

A credential never enters a message: sources are named by ``redact(url)``.
"""

from __future__ import annotations

from export.artifact import ArtifactError, LookoutError
from stream.redaction import redact

__all__ = [
    "ArtifactError",
    "CodecUnsupported",
    "ConfigError",
    "DeviceUnavailable",
    "LookoutError",
    "NoVideo",
    "NothingPublished",
    "SignallingError",
    "SourceBroken",
    "SourceError",
    "SourceNotFound",
    "SourceTimeout",
    "SourceUnauthorised",
    "SourceUnreachable",
    "UsageError",
    "redact",
]


class UsageError(LookoutError):
    """The command or request is wrong as written."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key or value, named by its path in the file."""


class DeviceUnavailable(LookoutError):
    """The device, backend or codec that was asked for is not there; says the remedy."""


class SourceError(LookoutError):
    """A source cannot be opened or read. ``reason`` is the word shown in the API and on the page."""

    reason = "failed"


class SourceUnreachable(SourceError):
    reason = "unreachable"


class SourceUnauthorised(SourceError):
    reason = "unauthorised"


class SourceNotFound(SourceError):
    reason = "not found"


class NoVideo(SourceError):
    reason = "no video"


class CodecUnsupported(SourceError):
    """It is video, of a kind that nothing here decodes."""

    reason = "codec unsupported"


class SourceTimeout(SourceError):
    reason = "timed out"


class NothingPublished(SourceError):
    """No fault: somebody may publish at any moment."""

    reason = "waiting"


class SourceBroken(SourceError):
    reason = "broken"


class SignallingError(LookoutError):
    """A WHEP or WHIP request that is refused.

    Args:
        message: what was given, what was expected.
        status: HTTP status code (400, 404, 406, 409, 412, 413, 415, 422, 503).
        retry_after_s: sent as ``Retry-After`` where given.
    """

    def __init__(self, message: str, status: int, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
