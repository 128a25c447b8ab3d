"""Training recipes: YAML files read into frozen, checked types.

Paths in a recipe are relative to the current directory. Knows nothing of torch; what the numbers do is
in :mod:`models.train`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from models.errors import RecipeError
from models.parts import ModelPart, Positive, Share, Strict, YoloxPart

AnyPath = Annotated[Path, Field(strict=False)]


class ValidationSource(Strict):
    """Annotations and their pictures."""

    annotations: AnyPath
    """A COCO JSON file, a folder of VOC's or ImageNet's XML or of YOLO's text files, or a VOC list (.txt)."""
    images: AnyPath
    map: dict[str, str] | None = None
    """What categories of the annotations are called in ``names``, where that is something else."""


class TrainingSource(Strict):
    """Annotations, their pictures, and how they are used."""

    annotations: AnyPath | None = None
    """As to measure by. Without, all pictures of the folder are learned from a teacher alone."""
    images: AnyPath
    map: dict[str, str] | None = None
    """As to measure by."""
    labelled: Literal["all", "partial"] = "all"
    """``partial``: objects without a box may be anywhere in these pictures. Only a family that learns by cells can
    leave places open by itself; for others ``lookout label --add-to`` marks them."""
    extend_top: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Grow boxes upwards by this part of their height, where annotators left out the heads."""
    leave_out: str | None = None
    """Pictures whose file names this pattern matches are left out, such as ``night_*``."""
    repeat: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often each picture is used in an epoch."""


class ProposalsPart(Strict):
    """See :func:`models.lineage.proposals.propose`."""

    method: Literal["selective-search", "edge-boxes"]
    count: Annotated[int, Field(ge=1, le=10000)]


class DataPart(Strict):
    train: Annotated[tuple[TrainingSource, ...], Field(min_length=1, strict=False)]
    validation: ValidationSource | None = None
    hold_out: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """In place of ``validation``: this part of the training pictures is measured by instead of learned from. Which
    ones, their names decide: the same in every training, also when more pictures come."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What is done about wrong entries of the training data and missing pictures: both list them first."""
    in_memory: bool = False
    """Decode every training picture once, before the first epoch, where there is memory for all of them."""
    proposals: ProposalsPart | None = None
    """The boxes that are judged, by a family that does not find its own."""

    @model_validator(mode="after")
    def _measured_by_one(self) -> DataPart:
        if self.validation is not None and self.hold_out is not None:
            raise ValueError("validation and hold_out are both there; remove one of them")
        return self


Size = Annotated[float, Field(ge=0.25, le=4)]


class AugmentationPart(Strict):
    """See :class:`models.augment.Augmentation`."""

    flip: Share = 0.5
    mosaic: Share = 0.5
    mixup: Share = 0.0
    paste: Share = 0.0
    crop: Annotated[float, Field(ge=0, le=0.9)] = 0.4
    shrink: Annotated[float, Field(ge=0, le=0.9)] = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    saturation: Share = 0.5
    brightness: Share = 0.4
    sizes: Annotated[tuple[Size, Size], Field(strict=False)] = (1.0, 1.0)
    """Each batch is of another size: as parts of the input's, the least and the largest."""
    plain_epochs: Annotated[int, Field(ge=0)] = 3
    """The last epochs do without mosaics, mixtures, pasted objects and other sizes: they end on natural pictures."""

    @model_validator(mode="after")
    def _sizes_ascend(self) -> AugmentationPart:
        if self.sizes[0] > self.sizes[1]:
            raise ValueError(f"sizes are {self.sizes[0]} and {self.sizes[1]}, expected the smaller one first")
        return self


def _default_warmup(checked: dict[str, Any]) -> float:
    epochs: int = checked.get("epochs", 2)
    return min(1.0, epochs / 2)


class SchedulePart(Strict):
    """AdamW; the learning rate warms up linearly, then falls along a cosine to a hundredth."""

    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 16
    accumulate: Annotated[int, Field(ge=1, le=1000)] = 1
    """Batches whose gradients make one step: what does not fit into memory at once."""
    learning_rate: Positive = 0.001
    backbone_rate: Share = 0.3
    """The backbone's learning rate as a part of ``learning_rate``."""
    warmup_epochs: Annotated[float, Field(ge=0, default_factory=_default_warmup)]
    """By default one epoch, but at most half of the training."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    clip_norm: Positive = 20.0
    """Longer gradients are scaled down to this norm."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    frozen_blocks: Annotated[int, Field(ge=0, le=12)] = 0
    """Keep the backbone's stem and first blocks as they start; 0 trains everything."""
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between validations; the last epoch is always validated."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """End when so many validations in a row were no better than the best; by default never."""

    @model_validator(mode="after")
    def _warm_up_ends(self) -> SchedulePart:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be less than epochs {self.epochs}")
        return self


Place = Annotated[int, Field(ge=1)]
"""In a row, from 1."""


class DistillationPart(Strict):
    """See :mod:`models.teacher`."""

    teacher: AnyPath
    """The checkpoint of a stronger detector of the same cells, that knows all of the classes."""
    weight: Positive = 1.0
    """Of what it teaches, beside what annotations do."""
    imitation: Annotated[float, Field(ge=0)] = 0.0
    """Of the maps that it predicts from, which the student then imitates."""
    hints: Annotated[float, Field(ge=0)] = 0.0
    """Of its backbone's maps, likewise."""
    blocks: Annotated[float, Field(ge=0)] = 0.0
    """Of what every block gives, channel by channel: for a yolox of its teacher's size. See
    :mod:`models.blockwise`."""
    alone: Annotated[tuple[Place, Place], Field(strict=False)] | None = None
    """The first and the last of the blocks that learn, each handed what its teacher's predecessor gives: those of the
    backbone count from 1, what is behind it is one more. By default all learn, together."""

    @model_validator(mode="after")
    def _blocks_learn(self) -> DistillationPart:
        if self.alone and not self.blocks:
            raise ValueError("alone is for blocks that learn; add blocks: 1.0")
        if self.alone and (self.imitation or self.hints):
            raise ValueError(
                "blocks that learn alone imitate nothing else; remove imitation and hints, or alone"
            )
        if self.alone and self.alone[0] > self.alone[1]:
            raise ValueError(f"alone is {list(self.alone)}, expected the smaller one first")
        return self

    @property
    def blocks_alone(self) -> range | None:
        """``alone``, counted from 0."""
        return range(self.alone[0] - 1, self.alone[1]) if self.alone else None


class Recipe(Strict):
    """Everything a training depends on besides the data itself."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    names: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    """The classes, in the order of their indices."""
    data: DataPart
    schedule: SchedulePart
    model: ModelPart = YoloxPart()
    augmentation: AugmentationPart = AugmentationPart()
    distillation: DistillationPart | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "mixed"] = "auto"
    """``mixed``: 16-bit where it is safe. ``auto``: mixed where the device computes with bfloat16."""
    workers: Annotated[int, Field(ge=0, le=64)] = 2
    """Processes that prepare samples; 0 prepares them between the steps."""
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """CPU threads that compute; 0 leaves the choice to the machine."""
    runs: AnyPath = Path("runs")
    """The folder that gets this training's own folder, called ``name``."""

    @model_validator(mode="after")
    def _names_differ(self) -> Recipe:
        if len(set(self.names)) < len(self.names):
            raise ValueError("names has the same class twice")
        return self

    @model_validator(mode="after")
    def _mapped_to_names(self) -> Recipe:
        for source in (*self.data.train, self.data.validation):
            for old, new in ((source and source.map) or {}).items():
                if new not in self.names:
                    raise ValueError(f"data: map {{{old}: {new}}}: {new} is not among names")
        return self

    @model_validator(mode="after")
    def _proposals_fit(self) -> Recipe:
        family, takes = self.model.family, self.model.takes_proposals
        if takes and self.data.proposals is None:
            raise ValueError(
                f"a {family} judges proposals; add data.proposals, such as {{method: selective-search, count: 1000}}"
            )
        if not takes and self.data.proposals is not None:
            raise ValueError(f"a {family} finds its own boxes; remove data.proposals")
        return self

    @model_validator(mode="after")
    def _somebody_teaches(self) -> Recipe:
        if self.distillation is None and any(source.annotations is None for source in self.data.train):
            raise ValueError(
                "data.train has pictures without annotations; add them, or a distillation.teacher"
            )
        if self.distillation is not None and not self.model.by_cell:
            raise ValueError(f"a {self.model.family} has no cells to be taught in; remove distillation")
        if self.distillation is not None and self.distillation.blocks and not self.model.by_block:
            raise ValueError(f"a {self.model.family} does not learn by blocks; remove distillation.blocks")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> Recipe:
        if self.augmentation.sizes != (1.0, 1.0) and not self.model.by_cell:
            raise ValueError(f"a {self.model.family} has one input size; remove augmentation.sizes")
        return self

    @model_validator(mode="after")
    def _partial_fits(self) -> Recipe:
        if not self.model.by_cell and any(source.labelled == "partial" for source in self.data.train):
            raise ValueError(
                f"data.train: a {self.model.family} cannot learn from pictures that are labelled: partial; "
                "remove that, and mark what has no box: lookout label --add-to"
            )
        return self

    @model_validator(mode="after")
    def _steps_are_batches(self) -> Recipe:
        if getattr(self.model, "training", None) == "alternating" and self.schedule.accumulate > 1:
            raise ValueError(
                "schedule.accumulate: would have both losses in every step; leave it out with training: alternating"
            )
        return self

    def network(self) -> dict[str, Any]:
        """The configuration of its family's network."""
        wanted = self.data.proposals
        proposals = {} if wanted is None else {"proposals": f"{wanted.method}:{wanted.count}"}
        return {"names": self.names, **self.model.config(), **proposals}

    @property
    def folder(self) -> Path:
        """Where checkpoints go."""
        return self.runs / self.name


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe; of one in phases, the last.

    Raises:
        RecipeError: the file is missing, is not YAML, or has an unknown key or a wrong value, named by
            its path in the file.
    """
    return load_phases(path)[-1]


def load_phases(path: Path) -> tuple[Recipe, ...]:
    """A recipe's trainings, in their order: one, or as many as its ``phases``.

    What a phase says stands in place of what the recipe says: keys are looked for in depth, lists are replaced as they
    are. Each begins with the best weights of the one before it, and all but the last are called after their number.

    Raises:
        RecipeError: as :func:`load_recipe`.
    """
    document = _document(path)
    phases = document.pop("phases", [{}])
    if not (isinstance(phases, list) and phases and all(isinstance(each, dict) for each in phases)):
        raise RecipeError(
            f"{path}: phases: is {phases!r:.80}, expected a list of what differs in each of them"
        )
    recipes: list[Recipe] = []
    for number, changes in enumerate(phases, 1):
        where = f"{path}: phases.{number - 1}" if len(phases) > 1 else f"{path}"
        if changes.keys() & {"name", "runs"}:
            raise RecipeError(f"{where}: has a name or runs of its own; say them once, for all phases")
        whole = _merged(document, changes)
        if recipes:
            whole = _merged(whole, {"model": {"start": str(recipes[-1].folder / "best.pt")}})
        if number < len(phases) and "name" in whole:
            whole["name"] = f"{whole['name']}-{number}"
        try:
            recipes.append(Recipe.model_validate(whole))
        except ValidationError as error:
            raise RecipeError(f"{where}: {'; '.join(_one_line(error))}") from error
    return tuple(recipes)


def _merged(whole: Any, changes: Any) -> Any:
    """``whole`` with what ``changes`` says instead."""
    if not (isinstance(whole, dict) and isinstance(changes, dict)):
        return changes
    return whole | {key: _merged(whole.get(key), value) for key, value in changes.items()}


def _document(path: Path) -> dict[str, Any]:
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); expected a recipe in YAML") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{path}: expected keys such as name, names, data and schedule; see configs/train/")
    return document


def _keys(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """A place in the file: what pydantic adds to it, the model's family, is no key."""
    return (*loc[:1], *loc[2:]) if loc[:1] == ("model",) and len(loc) > 2 else loc


def _one_line(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in _keys(problem["loc"])) or "recipe"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key; remove it or correct its spelling")
        elif problem["type"] == "missing":
            lines.append(f"{where}: is missing")
        elif problem["type"] == "union_tag_invalid":
            context = problem["ctx"]
            lines.append(f"{where}.family: is {context['tag']!r:.80}, expected {context['expected_tags']}")
        elif isinstance(problem["input"], dict):  # its keys disagree; the message names them
            lines.append(f"{where}: {problem['msg']}")
        elif problem["type"] != "default_factory_not_called":  # follows from another mistake
            lines.append(f"{where}: {problem['msg']}, not {problem['input']!r:.80}")
    return lines
