"""A model on disk: ``model.safetensors`` and ``card.json`` with its SHA-256, checked before a tensor is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nigradat import __version__
from nigradat.errors import ConfigError, WeightsError
from nigradat.io.files import new_file, sha256_of, write_json
from nigradat.models.head import SD_MAX, SD_MIN
from nigradat.models.symmetric import ModelSpec, PairRegressor, in_fast_layout
from nigradat.smwi.recipe import recipe_differences

WEIGHTS_NAME, CARD_NAME = "model.safetensors", "card.json"
CARD_FORMAT = 1
INTENDED_USE = (
    "Research only. Not a medical device, not for diagnosis or for decisions about a patient. "
    "It estimates the SBR scale of its own training labels from SMWI patches of its own recipe."
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in evaluation mode with its card.

    Attributes:
        model: the network.
        card: what it was trained on, SBR scale, SMWI recipe, preprocessing, metrics, intended use, licence.
        folder: where it lies.
    """

    model: PairRegressor
    card: dict[str, Any]
    folder: Path

    @property
    def spec(self) -> ModelSpec:
        """How the network is built."""
        return self.model.spec

    @property
    def is_phantom_trained(self) -> bool:
        """Whether the digital phantom was its training material."""
        return bool(self.card.get("training", {}).get("kind") == "phantom")

    @property
    def smwi_recipe(self) -> Mapping[str, Any] | None:
        """How the images that trained it were made, None where that is not known."""
        recipe: Mapping[str, Any] | None = self.card.get("smwi_recipe")
        return recipe

    def differs_in(self, recipe: Mapping[str, Any] | None) -> tuple[str, ...]:
        """Where an image's SMWI recipe contradicts that of the training, in words; nothing where one is not known."""
        return recipe_differences(self.smwi_recipe or {}, recipe or {})

    @property
    def title(self) -> str:
        """One line for tables and pages."""
        note = " (trained on the digital phantom)" if self.is_phantom_trained else ""
        return f"{self.card.get('title', self.folder.name)}{note}"


def save_model(folder: Path, model: PairRegressor, card: dict[str, Any]) -> Path:
    """Write weights, then the card that vouches for them. ``card`` may hold any plain values.

    Returns:
        The folder.

    Raises:
        OutputError: the disk does not take them.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with new_file(folder / WEIGHTS_NAME) as hidden:
        save_file(tensors, hidden)
    full = {
        "format": CARD_FORMAT,
        "nigradat": __version__,
        "torch": torch.__version__,
        "spec": model.spec.to_json(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "preprocessing": "canonical view (right patch mirrored along the right-left axis); each patch divided by its "
        "own mean"
        + (", minus 1" if model.spec.centred else "")
        + ("" if model.spec.mirrored else "; the network then undoes the mirroring"),
        "output": _output_in_words(model.spec),
        "intended_use": INTENDED_USE,
        **card,
        "sha256": {WEIGHTS_NAME: sha256_of(folder / WEIGHTS_NAME)},
    }
    write_json(folder / CARD_NAME, full)
    return folder


def _output_in_words(spec: ModelSpec) -> str:
    scaled = f"SBR / {spec.sbr_max:g}"
    if spec.output == "log-normal":
        return f"mean of log({scaled}) and, through a sigmoid from {SD_MIN:g} to {SD_MAX:g}, its SD"
    return scaled


def read_card(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The card of a model folder.

    Raises:
        WeightsError: no finished model lies there, or the card is no JSON object of a known format.
    """
    path = Path(folder) / CARD_NAME
    if not path.is_file():
        raise WeightsError(
            f"{folder} holds no {CARD_NAME}",
            "the folder of a finished training run or of imported weights",
            "Name the folder that 'nigradat train' or 'nigradat import-published' wrote",
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not JSON ({error})", "the card as it was written") from error
    if not isinstance(card, dict) or card.get("format") != CARD_FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise WeightsError(f"{path} has format {found}", f"format {CARD_FORMAT}", "Use the version that wrote it")
    return card


def load_model(folder: str | os.PathLike[str]) -> LoadedModel:
    """A trained or imported model, in evaluation mode.

    Raises:
        WeightsError: missing, truncated or altered files, or tensors that do not fit the card's network.

    Example:
        >>> loaded = load_model("study/quick/sym-vgg-plus")          # doctest: +SKIP
        >>> loaded.card["intended_use"]                              # doctest: +SKIP
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    card = read_card(folder)
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise WeightsError(f"{path} is missing", "the weights beside their card")
    hashes = card.get("sha256")
    expected = hashes.get(WEIGHTS_NAME) if isinstance(hashes, dict) else None
    if (found := sha256_of(path)) != expected:
        raise WeightsError(
            f"{path}: SHA-256 {found[:12]}...",
            f"{str(expected)[:12]}... as its card says",
            "The file is truncated or was changed; take a fresh copy of the whole folder",
        )
    try:
        spec = ModelSpec(**card["spec"])
        tensors = load(path.read_bytes())
    except (KeyError, TypeError, ValueError, ConfigError, SafetensorError) as error:
        raise WeightsError(f"{folder} cannot be read ({error})", "a card and weights written by nigradat") from error
    model = PairRegressor(spec)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path}: tensors do not fit the card's network", "one written by nigradat") from error
    return LoadedModel(in_fast_layout(model).eval(), card, folder)
