"""Names of methods."""

from __future__ import annotations

import pytest

from nigradat.errors import ConfigError
from nigradat.models.registry import create_model, get_method, list_models
from nigradat.models.symmetric import ModelSpec
from nigradat.training.config import make_config

PER_SIDE = ("vit", "mobilenetv3", "resnet18", "vgg16", "vgg-small")
SHARED = ("sym-vgg", "sym-vgg-plus", "sym-vgg-plus-unmirrored", "sym-vgg-log")


def test_the_papers_rows_and_ours() -> None:
    methods = {name: get_method(name) for name in list_models()}
    sharing = {n: m.sharing for n, m in methods.items()}
    assert sharing == dict.fromkeys(PER_SIDE, "separate") | {"vgg-left": "left"} | dict.fromkeys(SHARED, "shared")
    assert [m.title for m in methods.values()][:5] == ["ViT", "MobileNetV3", "ResNet-18", "VGG-16", "VGG-small"]
    assert (methods["sym-vgg"].title, methods["sym-vgg-plus"].title) == ("Sym. VGG", "Sym. VGG+")
    assert len({m.title for m in methods.values()}) == len(methods)


def test_the_ablations_differ_in_one_thing_each() -> None:
    """Towers, sharing, lambda, mirroring, output: neighbours of Sym. VGG+ differ from it in just what they are for."""
    plus = get_method("sym-vgg-plus")
    assert plus.symmetry_weight > 0

    def differences(name: str) -> set[str]:
        other = get_method(name)
        fields = ("sharing", "symmetry_weight", "tower", "mirrored", "output")
        return {field for field in fields if getattr(other, field) != getattr(plus, field)}

    assert differences("sym-vgg") == {"symmetry_weight"}
    assert differences("sym-vgg-plus-unmirrored") == {"mirrored"}
    assert differences("sym-vgg-log") == {"output"}
    assert differences("vgg-small") == differences("vgg-left") == {"sharing", "symmetry_weight"}
    for name in ("vit", "mobilenetv3", "resnet18", "vgg16"):
        assert differences(name) == {"sharing", "symmetry_weight", "tower"}
        assert get_method(name).symmetry_weight == 0  # separate nets share nothing for a symmetric term to act on


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("sym-vgg+", ["sym-vgg", "sym-vgg-plus"]),
        ("vgg_smal", ["vgg-small"]),
        ("symvggplus", ["sym-vgg-plus"]),
        ("resnet-18", ["resnet18"]),
        ("mobilenet", ["mobilenetv3"]),
        ("vgg-16", ["vgg16"]),
        ("ViT", ["vit"]),
    ],
)
def test_an_unknown_name_shows_the_nearest(typed: str, near: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        get_method(typed)
    assert all(f"'{name}'" in caught.value.todo for name in near)
    assert typed in caught.value.found
    assert all(name in caught.value.expected for name in list_models())


def test_nothing_near_is_no_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("0000000")
    assert caught.value.todo == ""


@pytest.mark.parametrize("name", list_models())
def test_the_name_decides_on_all_but_size_and_dropout(name: str) -> None:
    method = get_method(name)
    asked = ModelSpec(widths=(1, 2, 3, 4), sharing="right", tower="vgg", head_dropout=0.4, centred=False, sbr_max=5.0)
    spec = method.applied_to(asked)
    assert (spec.sharing, spec.tower, spec.mirrored, spec.output) == (
        method.sharing,
        method.tower,
        method.mirrored,
        method.output,
    )
    assert (spec.widths, spec.head_dropout, spec.centred, spec.sbr_max) == ((1, 2, 3, 4), 0.4, False, 5.0)
    config = make_config(changes={"model": name, "widths": (1, 2, 3, 4), "head_dropout": 0.4, "sbr_max": 5.0})
    assert config.spec == method.applied_to(ModelSpec(widths=(1, 2, 3, 4), head_dropout=0.4, sbr_max=5.0))


@pytest.mark.parametrize("name", ["vit", "mobilenetv3", "resnet18"])
def test_dropout_that_a_tower_has_no_place_for_is_refused_before_training(name: str) -> None:
    with pytest.raises(ConfigError, match="no place"):
        make_config(changes={"model": name, "block_dropout": 0.2})
    assert make_config(changes={"model": "vgg16", "block_dropout": 0.2}).spec.block_dropout == 0.2
