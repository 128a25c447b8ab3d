"""Against torchvision 0.28.0's own code, without it: names, shapes and outputs that it gave once.

``torchvision_facts.json`` was written by running its classes with the weights and the 64x96 picture of
``fill``, normalised as torchvision does: every 125th of the thousand logits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.backbones import BACKBONES
from models.backbones.backbone import Classifier
from models.backbones.googlenet import GoogLeNet
from tests.models.backbones.fill import filled, picture

FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "torchvision_facts.json").read_text())
NETWORKS: dict[str, Callable[[], Any]] = {**BACKBONES, "googlenet": lambda: GoogLeNet(auxiliary=True)}


def build(name: str) -> Classifier:
    """Without memory for weights, which are about to be written or are not needed."""
    with torch.device("meta"):
        network: Classifier = NETWORKS[name]()
    return network


def agree(found: torch.Tensor, expected: list[float]) -> None:
    reference = torch.tensor(expected)
    difference = (found - reference).abs()
    print(f"max {difference.max():.2e} mean {difference.mean():.2e} of values to {reference.abs().max():.1f}")
    assert difference.max() <= 1e-4


@pytest.mark.parametrize("name", FACTS)
def test_tensors_have_torchvisions_names_and_shapes(name: str) -> None:
    found = {key: list(tensor.shape) for key, tensor in build(name).state_dict().items()}
    assert found == FACTS[name]["shapes"]


@pytest.mark.parametrize("name", FACTS)
def test_the_same_weights_give_the_same_logits(name: str) -> None:
    network = filled(build(name))
    with torch.no_grad():
        logits = network(network.normalise(picture(64, 96)))
    assert logits.shape == (1, 1000)
    agree(logits[0, ::125], FACTS[name]["logits"])


def test_googlenets_auxiliary_logits_are_the_same() -> None:
    network = filled(build("googlenet"))
    with torch.no_grad():
        logits, first, second = network.all_logits(network.normalise(picture(64, 96)))
    for name, found in (("logits", logits), ("aux1", first), ("aux2", second)):
        agree(found[0, ::125], FACTS["googlenet"][name])
    with pytest.raises(ValueError, match="without its auxiliary classifiers"):
        GoogLeNet().all_logits(torch.zeros(1, 3, 64, 64))


def test_none_of_torchvisions_networks_is_left_out() -> None:
    assert set(BACKBONES) - set(FACTS) == {"efficientnet_lite0", "zfnet"}
