"""A model on disk: what comes back is what was written, or an error that says why not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nigradat.anatomy import PATCH_SHAPE
from nigradat.errors import WeightsError
from nigradat.io.files import sha256_of
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import CARD_NAME, WEIGHTS_NAME, load_model, read_card, save_model

SPEC = ModelSpec(widths=(2, 2, 2, 3), sharing="separate", head_dropout=0.4, centred=False, sbr_max=5.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", build(SPEC, seed=2), {"title": "A title", "training": {"kind": "phantom"}})


def edit_card(folder: Path, change: Callable[[dict], object]) -> None:
    card = json.loads((folder / CARD_NAME).read_text())
    change(card)
    (folder / CARD_NAME).write_text(json.dumps(card))


def vouch_again(folder: Path) -> None:
    edit_card(folder, lambda c: c.update(sha256={WEIGHTS_NAME: sha256_of(folder / WEIGHTS_NAME)}))


def test_what_was_saved_comes_back_bit_equal(folder: Path) -> None:
    model, loaded = build(SPEC, seed=2), load_model(folder)
    saved, back = model.state_dict(), loaded.model.state_dict()
    assert saved.keys() == back.keys()
    assert all(torch.equal(saved[k], back[k]) for k in saved)
    assert loaded.spec == SPEC
    assert not any(m.training for m in loaded.model.modules())
    x = torch.rand((2, 2, 1, *PATCH_SHAPE))
    with torch.no_grad():
        assert torch.equal(model.eval()(x), loaded.model(x))


def test_the_card_says_what_it_is(folder: Path) -> None:
    card, loaded = read_card(folder), load_model(folder)
    assert card["sha256"] == {WEIGHTS_NAME: sha256_of(folder / WEIGHTS_NAME)}
    assert card["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert "not for diagnosis" in card["intended_use"]
    assert "mirrored" in card["preprocessing"]
    assert "minus 1" not in card["preprocessing"]  # this one is not centred
    assert loaded.is_phantom_trained
    assert "phantom" in loaded.title


def test_no_pickle_is_written(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [CARD_NAME, WEIGHTS_NAME]
    header = (folder / WEIGHTS_NAME).read_bytes()
    json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])  # the documented safetensors header


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit_is_found(folder: Path, seed: int) -> None:
    path = folder / WEIGHTS_NAME
    whole = path.read_bytes()
    rng = random.Random(seed)
    data = bytearray(whole)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_model(folder)
    path.write_bytes(whole)
    load_model(folder)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_weights_are_refused(folder: Path, kept: int) -> None:
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match="SHA-256"):
        load_model(folder)
    vouch_again(folder)  # even with a card that vouches for the rest
    with pytest.raises(WeightsError):
        load_model(folder)


@pytest.mark.parametrize("name", [CARD_NAME, WEIGHTS_NAME])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load_model(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="card"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', '{"format": 2}', "{}"])
def test_a_card_of_another_kind_is_refused(folder: Path, text: str) -> None:
    (folder / CARD_NAME).write_text(text)
    with pytest.raises(WeightsError):
        load_model(folder)


def test_a_card_that_is_no_text(folder: Path) -> None:
    (folder / CARD_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("sha256"),
        lambda c: c.update(sha256=None),
        lambda c: c.update(sha256="abc"),
        lambda c: c.pop("spec"),
        lambda c: c.update(spec=3),
        lambda c: c["spec"].update(unknown=1),
        lambda c: c["spec"].update(widths=[1, 2, 3]),
        lambda c: c["spec"].update(widths=["a", 2, 3, 4]),
        lambda c: c["spec"].update(head_dropout=1.5),
    ],
)
def test_a_card_whose_entries_do_not_fit(folder: Path, change: Callable[[dict], object]) -> None:
    edit_card(folder, change)
    with pytest.raises(WeightsError):
        load_model(folder)


@pytest.mark.parametrize("change", [{"widths": [2, 2, 2, 4]}, {"sharing": "shared"}])
def test_tensors_that_do_not_fit_the_card(folder: Path, change: dict[str, object]) -> None:
    edit_card(folder, lambda c: c["spec"].update(change))
    with pytest.raises(WeightsError, match="do not fit"):
        load_model(folder)
