"""The commands that work on cameras and files, ``lookout watch``, ``detect``, ``collect`` and ``label``: their
options, as configuration. Knows nothing of how they work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stream.arguments import names, renamed
from stream.errors import UsageError
from stream.logs import configure_logging

Say = Callable[[str], None]
Settings = dict[str, dict[str, object]]

DEVICES = ("auto", "cpu", "cuda", "tensorrt", "openvino")


def add_model_options(command: argparse.ArgumentParser) -> None:
    """What every command that detects can be told of its model."""
    command.add_argument("--model", help="name or .onnx file (default: lookout-nano)")
    command.add_argument(
        "--device",
        choices=DEVICES,
        help="where to run it (default: auto)",
    )
    command.add_argument("--threads", type=int, help="onnxruntime threads on CPU")
    command.add_argument("--score", type=float, metavar="S", help="lowest score that counts (default: 0.3)")
    command.add_argument("--transport", choices=("tcp", "udp"), help="RTSP transport (default: tcp)")


def settings_of(options: argparse.Namespace) -> Settings:
    """Command-line values by configuration section; what was not given is left out."""
    given = {
        "server": {"host": getattr(options, "host", None), "port": getattr(options, "port", None)},
        "detector": {
            "model": options.model,
            "device": options.device,
            "threads": options.threads,
            "score_threshold": options.score,
        },
    }
    return {section: _given(values) for section, values in given.items()}


def _given(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def add_watch(commands: Any, say: Say) -> None:
    """Add ``watch`` to the command line's subparsers."""
    command = commands.add_parser("watch", help="watch cameras in a browser")
    text = "URL, file, folder of pictures, device number, synthetic:WIDTHxHEIGHT@FPS, 'whip' or 'demo'"
    command.add_argument("source", nargs="*", help=text)
    command.add_argument("--config", type=Path, help="YAML configuration (see configs/)")
    add_model_options(command)
    command.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    command.add_argument("--port", type=int, help="port to listen on, 0 for a free one (default: 8000)")
    command.add_argument("--overlay", choices=("smooth", "exact"), help="every frame, or only detected ones")
    command.add_argument("--once", action="store_true", help="play files once instead of looping")
    text = "begin files, and each round of them, so many seconds after their first picture"
    command.add_argument("--start", type=float, metavar="S", help=text)
    text = "play files by their timestamps, each picture detected, or as fast as can be (default: realtime)"
    command.add_argument("--pace", choices=("realtime", "lossless", "fastest"), help=text)
    command.set_defaults(run=partial(_watch, say))


def _watch(say: Say, options: argparse.Namespace) -> None:
    from stream.app import watch
    from stream.config_file import config_from_sources, load_config, override

    settings = settings_of(options)
    camera = _given(
        {
            "overlay": options.overlay,
            "transport": options.transport,
            "loop": False if options.once else None,
            "start_s": options.start,
            "pace": options.pace,
        }
    )
    if options.config is not None:
        if options.source or camera:
            raise UsageError(
                "--config names the cameras: give no SOURCE, --overlay, --transport, --once, --start or --pace"
            )
        config = override(load_config(options.config), settings)
    elif options.source:
        config = config_from_sources(options.source, settings, camera)
    else:
        raise UsageError("expected a SOURCE or --config FILE; try: lookout watch demo")
    configure_logging(config.log)
    watch(config, say, options.config)


def add_detect(commands: Any, say: Say) -> None:
    """Add ``detect`` to the command line's subparsers."""
    command = commands.add_parser("detect", help="run over a video or pictures offline, frame by frame")
    command.add_argument("source", help="file, URL, folder of pictures, or a pattern such as 'shots/*.jpg'")
    add_model_options(command)
    command.add_argument("--format", choices=("jsonl", "mot", "coco"), default="jsonl", help="default: jsonl")
    command.add_argument("--out", type=Path, help="output file (default: stdout)")
    command.add_argument("--video", type=Path, metavar="OUT.mp4", help="also write the annotated video")
    text = "seconds after its first picture at which to begin a file"
    command.add_argument("--start", type=float, metavar="S", help=text)
    command.add_argument("--end", type=float, metavar="S", help="seconds before which to stop")
    text = "give boxes an identity over time (default: in videos, not in pictures)"
    command.add_argument("--track", action=argparse.BooleanOptionalAction, default=None, help=text)
    text = "go on where a run that was cut short had come to; the result is the same"
    command.add_argument("--resume", action="store_true", help=text)
    command.set_defaults(run=partial(_detect, say))


def _detect(say: Say, options: argparse.Namespace) -> None:
    from stream.app import open_detector
    from stream.config_file import config_from_sources
    from stream.offline import Outputs, detect

    camera = _given({"transport": options.transport, "start_s": options.start})
    settings = settings_of(options)
    config = config_from_sources([options.source], settings, {"pace": "lossless", "loop": False, **camera})
    (source,) = config.cameras.values()
    outputs = Outputs(
        kind=options.format,
        out=options.out,
        video=options.video,
        end_s=options.end,
        track=options.track,
        resume=options.resume,
    )
    detect(source, open_detector(config.detector, say), config.detector, outputs)


def add_collect(commands: Any, say: Say) -> None:
    """Add ``collect`` to the command line's subparsers."""
    text = "keep the pictures of a camera that are worth annotating"
    command = commands.add_parser("collect", help=text, description=text.capitalize() + ".")
    command.add_argument("source", help="URL, file, device number or 'demo'")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where to; a later run goes on"
    )
    add_model_options(command)
    command.add_argument("--count", type=int, default=200, help="keep at most so many (default: 200)")
    text = "keep at most one of so many seconds (default: 2)"
    command.add_argument("--every", type=float, default=2.0, metavar="S", help=text)
    command.add_argument(
        "--seconds", type=float, help="end after so many (default: with the source, or Ctrl-C)"
    )
    command.set_defaults(run=partial(_collect, say))


def _collect(say: Say, options: argparse.Namespace) -> None:
    from contextlib import closing

    from stream.app import open_detector
    from stream.collect import Bounds, Collection, collect
    from stream.config_file import config_from_sources
    from stream.sources import SourceOptions, open_source
    from stream.tracking import Tracker, TrackerParameters

    if not 1 <= options.count <= 10_000 or not 0 < options.every <= 86_400:
        raise UsageError(
            f"--count {options.count}, --every {options.every:g}: expected 1 to 10000 pictures, and up to a day"
        )
    settings = settings_of(options)
    config = config_from_sources([options.source], settings, _given({"transport": options.transport}))
    (camera,) = config.cameras.values()
    collection = Collection(options.out, Bounds(options.count, options.every))
    detector = open_detector(config.detector, say)
    tracker = Tracker(TrackerParameters.for_threshold(config.detector.score_threshold))
    pace = SourceOptions(transport=camera.transport, pace="lossless", stall_s=camera.stall_s)
    with closing(open_source(camera.source, pace)) as source:
        try:
            looked, kept = collect(source, detector, tracker, collection, options.seconds)
            say(f"looked at {looked} pictures, kept {kept}")
        finally:
            say(f"{len(collection.kept)} pictures in {options.out}")


def add_label(commands: Any, say: Say) -> None:
    """Add ``label`` to the command line's subparsers."""
    text = "label pictures with what a better model finds in them, to train on"
    command = commands.add_parser("label", help=text, description=text.capitalize() + ".")
    command.add_argument("pictures", type=Path, help="folder of pictures, or a pattern such as 'shots/*.jpg'")
    command.add_argument("--teacher", required=True, dest="model", help="the model: a name or .onnx file")
    command.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="COCO JSON to write")
    text = "classes to label, with commas, or a file with one a line (default: all of the teacher's)"
    command.add_argument("--names", help=text)
    text = "call a class of the teacher otherwise; may be given several times"
    command.add_argument("--map", action="append", default=[], metavar="ITS-NAME=NAME", help=text)
    text = "lowest score of a label (default: 0.5)"
    command.add_argument("--sure", type=float, default=0.5, metavar="S", help=text)
    text = "lowest score of a place that is left open, neither object nor background (default: 0.25)"
    command.add_argument("--unsure", type=float, default=0.25, metavar="S", help=text)
    text = "leave boxes open whose shorter side has fewer pixels (default: 0)"
    command.add_argument("--min-size", type=float, default=0.0, metavar="PX", help=text)
    text = "annotations that stay: their pictures alone are labelled, with what they lack"
    command.add_argument("--add-to", type=Path, metavar="COCO.json", help=text)
    text = "draw the pictures with their boxes, the least sure first"
    command.add_argument("--sheet", type=Path, metavar="FILE.jpg", help=text)
    command.add_argument("--device", choices=DEVICES, help="where to run it (default: auto)")
    command.add_argument("--threads", type=int, help="onnxruntime threads on CPU")
    command.set_defaults(run=partial(_label, say), score=None)


def _label(say: Say, options: argparse.Namespace) -> None:
    from stream.app import open_detector
    from stream.config_file import config_from_sources
    from stream.label import Wishes, label_to_files, rules

    wishes = Wishes(
        names=names(options.names),
        renamed=renamed("--map", options.map),
        rules=rules(options.sure, options.unsure, options.min_size),
        add_to=options.add_to,
    )
    detector = open_detector(config_from_sources(["demo"], settings_of(options)).detector, say)
    label_to_files(options.pictures, detector, detector.spec.names, wishes, options.out, options.sheet, say)
