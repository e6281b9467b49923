"""The recipe: checked, written beside the image, packed, carried into the card, compared."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nigradat.errors import CohortError, ConfigError, ImageError, ManifestError
from nigradat.io.pack import load_cohort, pack_cohort
from nigradat.io.pairs import read_pair
from nigradat.models.weights import LoadedModel, load_model
from nigradat.phantom.cohort import simulate
from nigradat.smwi.recipe import SIDECAR_KEY, SPANS, SmwiRecipe, recipe_beside, recipe_differences, sidecar_of
from nigradat.uncertainty.predict import predict, predict_pairs

USUAL = SmwiRecipe().to_json()


def test_the_default_is_that_of_nam():
    assert (USUAL["chi_th_ppm"], USUAL["m"], USUAL["combination"]) == (1.0, 4.0, "rms")
    assert USUAL["inversion"] == "tv"


def test_only_what_had_a_part_is_stated():
    assert not [name for name in SmwiRecipe(inversion="tkd").to_json() if name.startswith("tv_")]
    assert not [name for name in USUAL if name.startswith("tkd_")]


@pytest.mark.parametrize(
    "bad",
    [
        {"chi_th_ppm": 0},
        {"m": -1},
        {"m": float("nan")},
        {"combination": "max"},
        {"inversion": "l2"},
        {"reference": "wm"},
        {"tkd_threshold": 0.7},
        {"sharp_threshold": 0},
        {"sharp_radius_mm": float("inf")},
        {"tv_lambda_ppm_mm": 0},
        {"tv_iterations": 0},
        {"rounds": 0},
    ],
)
def test_a_bad_value_is_named(bad):
    ((name, _),) = bad.items()
    with pytest.raises(ConfigError, match=name):
        SmwiRecipe(**bad)


VALUES = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))


@given(VALUES, VALUES)
def test_a_difference_is_a_contradiction(one, other):
    found = recipe_differences(one, other)
    assert len(found) == sum(one[k] != other[k] for k in one.keys() & other.keys())
    assert not recipe_differences(one, one)
    assert not recipe_differences(one, {})


def test_json_and_back_is_no_difference():
    assert not recipe_differences(USUAL, json.loads(json.dumps(USUAL)))


def test_where_the_sidecar_lies(tmp_path):
    assert sidecar_of("a/b_smwi.nii.gz").name == "b_smwi.json"
    assert sidecar_of("b.1_smwi.nii").name == "b.1_smwi.json"
    image = tmp_path / "x.nii.gz"
    assert recipe_beside(image) is None
    sidecar_of(image).write_text(json.dumps({"EchoTime": 0.01}))
    assert recipe_beside(image) is None
    sidecar_of(image).write_text(json.dumps({SIDECAR_KEY: USUAL}))
    assert recipe_beside(image) == USUAL
    strange = {"made_by": "Erika Mustermann", "combination": "by Erika", "m": "4", "Mustermann": 1}
    sidecar_of(image).write_text(json.dumps({SIDECAR_KEY: USUAL | strange}), encoding="utf-8")
    found = recipe_beside(image)
    assert found == {k: v for k, v in USUAL.items() if k != "m"} | {"combination": "other"}
    assert recipe_differences(USUAL, found) == ("combination rms against other",)
    for name, (low, high) in SPANS.items():  # a number may be a birth date, or none at all
        for value, is_told in ((low, True), (high, True), (19560704, False), (-1, False), (True, False)):
            sidecar_of(image).write_text(json.dumps({SIDECAR_KEY: {name: value}}), encoding="utf-8")
            assert recipe_beside(image) == ({name: value} if is_told else {})
        sidecar_of(image).write_text(f'{{"{SIDECAR_KEY}": {{"{name}": NaN}}}}', encoding="utf-8")
        assert recipe_beside(image) == {}
    for bad, words in (("{", "not JSON"), ('{"SmwiRecipe": 3}', "int"), ("[]", "NoneType")):
        sidecar_of(image).write_text(bad)
        with pytest.raises(ImageError, match=words):
            recipe_beside(image)


# -- On its way ---------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path):
    """Two visits of noise as NIfTI patches; ``recipes`` one for each visit, None for no sidecar."""
    from nibabel import Nifti1Image, save

    from nigradat.anatomy import Side, nominal_affine

    def write(*recipes):
        rng = np.random.default_rng(0)
        lines = ["participant_id\tright\tleft\tsbr_right\tsbr_left"]
        for i, recipe in enumerate(recipes):
            names = []
            for side in Side:
                path = tmp_path / f"sub-{i}_{side.value}.nii"
                save(Nifti1Image(rng.uniform(1, 2, (50, 50, 20)).astype(np.float32), nominal_affine(side)), path)
                if recipe is not None:
                    sidecar_of(path).write_text(json.dumps({SIDECAR_KEY: recipe}))
                names.append(path.name)
            lines.append("\t".join([f"sub-{i}", *names, "2.0", "3.0"]))
        (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
        return tmp_path / "m.tsv"

    return write


def test_from_the_sidecars_into_the_cohort(manifest, tmp_path):
    cohort = pack_cohort(manifest(USUAL, USUAL), tmp_path / "cohort")
    assert cohort.smwi_recipe == USUAL
    assert load_cohort(tmp_path / "cohort").pair(1).smwi_recipe == USUAL


def test_what_one_visit_does_not_state_the_cohort_does_not_state(manifest, tmp_path):
    assert pack_cohort(manifest(USUAL, None), tmp_path / "cohort").smwi_recipe is None


def test_mixed_recipes_are_refused_or_not_stated(manifest, tmp_path):
    table = manifest(USUAL, USUAL | {"chi_th_ppm": 0.2})
    with pytest.raises(ManifestError, match=r"recipes are mixed: chi_th_ppm 1 against 0\.2"):
        pack_cohort(table, tmp_path / "cohort")
    assert not (tmp_path / "cohort").exists()
    assert pack_cohort(table, tmp_path / "cohort", allow_mixed=True).smwi_recipe is None


def test_both_sides_of_a_pair_have_one_recipe(manifest, tmp_path):
    manifest(USUAL)
    (tmp_path / "sub-0_left.json").write_text(json.dumps({SIDECAR_KEY: USUAL | {"m": 2}}))
    with pytest.raises(ImageError, match="m 4 against 2"):
        read_pair(tmp_path / "sub-0_right.nii", tmp_path / "sub-0_left.nii")


def test_a_phantoms_recipe_is_known(tmp_path):
    cohort = load_cohort(simulate(tmp_path / "cohort", patients=1, preset="easy", seed=1, workers=1))
    assert cohort.smwi_recipe == {"chi_th_ppm": 1.0, "m": 4.0, "combination": "rms"}
    assert not recipe_differences(cohort.smwi_recipe, USUAL)


@pytest.fixture
def model(small_run) -> LoadedModel:
    loaded = load_model(small_run)
    return dataclasses.replace(loaded, card=loaded.card | {"smwi_recipe": USUAL})


def test_the_card_takes_it_from_the_cohort(small_run, small_cohort):
    assert load_model(small_run).smwi_recipe == small_cohort.smwi_recipe


def test_a_model_refuses_another_recipe_or_flags_it(model, random_pair):
    other = dataclasses.replace(random_pair, smwi_recipe=USUAL | {"chi_th_ppm": 0.2, "m": 2.0})
    with pytest.raises(ImageError, match=r"sub-0001.*chi_th_ppm 1 against 0\.2; m 4 against 2.*--allow-other-recipe"):
        predict_pairs(model, [random_pair, other])
    plain, flagged = predict([random_pair, other], model, allow_other_recipe=True)
    assert "other-recipe" not in {f.code for f in plain.flags}
    assert "other-recipe" in {f.code for f in flagged.flags}


@pytest.mark.parametrize("recipe", [None, {}, USUAL, {"chi_th_ppm": 1.0, "made_by": "somebody"}])
def test_what_does_not_contradict_is_not_refused(model, random_pair, recipe):
    (found,) = predict(dataclasses.replace(random_pair, smwi_recipe=recipe), model)
    assert "other-recipe" not in {f.code for f in found.flags}


def test_evaluation_refuses_another_recipe(small_run, small_cohort, tmp_path):
    from nigradat.evaluation.evaluate import evaluate
    from nigradat.io.files import write_json

    card = load_model(small_run).card
    (tmp_path / "model.safetensors").write_bytes((small_run / "model.safetensors").read_bytes())
    (tmp_path / "split.json").write_bytes((small_run / "split.json").read_bytes())
    write_json(tmp_path / "card.json", card | {"smwi_recipe": {"m": 2.0}})
    odd = dataclasses.replace(small_cohort, card=small_cohort.card | {"smwi_recipe": USUAL})
    with pytest.raises(CohortError, match=r"m 2 against 4.*--allow-other-recipe"):
        evaluate(tmp_path, odd, resamples=200)
    assert evaluate(tmp_path, odd, resamples=200, allow_other_recipe=True)
