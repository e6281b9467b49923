"""Names of methods."""

from __future__ import annotations

import pytest

from nigradat.errors import ConfigError
from nigradat.models.registry import create_model, get_method, list_models
from nigradat.models.symmetric import ModelSpec


def test_the_papers_rows() -> None:
    """Per-side net; shared tower without the symmetric term (lambda 0, as in the released graph); and with it."""
    methods = {name: get_method(name) for name in list_models()}
    assert {n: m.sharing for n, m in methods.items()} == {
        "vgg-small": "separate",
        "sym-vgg": "shared",
        "sym-vgg-plus": "shared",
    }
    assert methods["vgg-small"].symmetry_weight == methods["sym-vgg"].symmetry_weight == 0
    assert methods["sym-vgg-plus"].symmetry_weight > 0


@pytest.mark.parametrize(
    ("typed", "near"), [("sym-vgg+", "sym-vgg"), ("vgg_smal", "vgg-small"), ("symvggplus", "sym-vgg-plus")]
)
def test_an_unknown_name_shows_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get_method(typed)
    assert f"'{near}'" in caught.value.todo
    assert typed in caught.value.found
    assert all(name in caught.value.expected for name in list_models())


def test_nothing_near_is_no_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("0000000")
    assert caught.value.todo == ""


def test_the_name_decides_on_sharing() -> None:
    spec = ModelSpec(widths=(1, 1, 1, 1), sharing="left")
    assert create_model("vgg-small", spec).spec.sharing == "separate"
    assert create_model("sym-vgg", spec).spec.sharing == "shared"
