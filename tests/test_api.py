"""The public names: they resolve, say what they are, show an example that runs, and do not change unnoticed."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

import nigradat
import nigradat.cli

FUNCTIONS = {
    "average_maps": "run, cohort, *, layers=, subset=, limit=, progress=",
    "calibrate": "run, cohort, *, mode=, samples=, seed=, level=",
    "calibrate_folds": "run, folds, cohort, *, mode=, samples=, seed=, level=",
    "check": "inputs, model, *, right=, left=, affine=",
    "compare": "records, *, level=, threshold=, scale, resamples=, seed=, confidence=, pairs=",
    "compare_spreads": "run, cohort, *, calibrate_on=, trained_on=, ensemble=, beside=, level=, samples=, resamples=, "
    "seed=, allow_other_scale=, progress=",
    "create_model": "name, spec=, seed=",
    "evaluate": "run, cohort, *, trained_on=, subset=, level=, rule=, resamples=, seed=, allow_other_scale=, "
    "allow_other_recipe=, progress=",
    "extract_pair": "volume, affine, right_mm, left_mm, participant_id=",
    "fit_quality": "model, cohort, *, alarm=, progress=",
    "hirescam": "loaded, pair, layers=, sides=",
    "import_published": "folders, out, side=",
    "list_models": "",
    "load": "folder",
    "load_cohort": "folder",
    "locate_nigrosomes": "volume, *, t1w=, atlas=, refined=, aligned=",
    "make_config": "recipe=, file=, changes=",
    "make_folds": "cohort, k, seed, *, validation=",
    "make_smwi": "gre, recipe=, *, mask=, say=",
    "make_split": "cohort, seed, *, validation=, test=, calibration=",
    "measure_sbr": "scan, recipe=, *, atlas=, alignment=, affine=",
    "pack_cohort": "manifest, out, *, affine=, allow_mixed=, label=, progress=",
    "predict": "inputs, model, *, right=, left=, affine=, level=, rule=, samples=, seed=, allow_other_recipe=, "
    "abstain=",
    "read_gre": "path, *, series=, phase_sign=, echo_times_ms=, field_strength_t=, affine=, any_body_part=, "
    "trust_phase=",
    "read_image": "path, *, series=, part=, echo_time_ms=, affine=, any_body_part=",
    "read_scan": "path, *, affine=",
    "run_study": "cohort, out, *, scale=, methods=, design=, splits=, seeds=, fresh=, seed=, level=, threshold=, "
    "disease=, samples=, changes=, engine=, workers=, address=, device=, retry_failed=, progress=, say=",
    "run_sweep": "cohort, out, vary, *, method=, scale=, changes=, grid=, samples=, seeds=, seed=, test=, engine=, "
    "workers=, address=, device=, retry_failed=, progress=, say=",
    "simulate": "out, *, patients, preset=, seed, workers=, progress=",
    "smwi_from_chi": "magnitude, chi, recipe=",
    "train": "cohort, out, config=, *, hardware=, split=, init=, report=",
    "write_located": "out, volume, located, *, smwi_recipe=, title=",
    "write_smwi": "result, out, *, diamagnetic=",
}
CLASSES = {
    "Hardware": "accelerator=, devices=, threads=, tensorboard=",
    "NigradatError": "found, expected=, todo=",
    "NigralPair": "patches, affines, participant_id=, session_id=, affine_is_nominal=, smwi_recipe=",
    "SbrPair": "right, left",
    "SbrRecipe": "method=, reference=, striatal_volume_ml=, hottest_ml=, recovery=",
    "Side": None,
    "SmwiRecipe": "chi_th_ppm=, m=, combination=, inversion=, tv_lambda_ppm_mm=, tv_iterations=, tkd_threshold=, "
    "sharp_radius_mm=, sharp_threshold=, rounds=, reference=",
    "Split": "train, stop, calibration, test, seed, scheme=",
}


def shape(callable_: object) -> str:
    """A signature without its types: names, ``=`` where there is a default, ``*`` before what goes by name."""
    words, starred = [], False
    for name, p in inspect.signature(callable_).parameters.items():
        if p.kind is p.KEYWORD_ONLY and not starred:
            words.append("*")
            starred = True
        words.append(name if p.default is p.empty else f"{name}=")
    return ", ".join(words)


def test_the_inventory_is_whole():
    assert sorted(nigradat.__all__) == sorted(["__version__", *FUNCTIONS, *CLASSES])
    assert dir(nigradat) == sorted(nigradat.__all__)


@pytest.mark.parametrize(("name", "expected"), [*FUNCTIONS.items(), *CLASSES.items()])
def test_a_public_name_resolves_and_keeps_its_shape(name, expected):
    value = getattr(nigradat, name)
    assert inspect.isclass(value) == (name in CLASSES)
    assert value.__doc__
    if expected is not None:
        assert shape(value) == expected
    assert getattr(nigradat, name) is value


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_shows_an_example_that_runs(name):
    """Lines that need files are marked to be passed over here; tests of the documentation run their like."""
    function = getattr(nigradat, name)
    assert "Example:" in function.__doc__
    run_examples(function)


def test_the_example_of_the_command_line_runs():
    run_examples(nigradat.cli.main)


def run_examples(function: object) -> None:
    home = importlib.import_module(function.__module__)
    (examples,) = doctest.DocTestFinder(recurse=False).find(
        function, globs=vars(home) | {"nigradat": nigradat}, module=home
    )
    assert examples.examples
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert result.failed == 0, "".join(said)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        nigradat.fit  # noqa: B018 - reading it is the test
    assert not hasattr(nigradat, "metric")
    with pytest.raises(ImportError):
        exec("from nigradat import nothing_of_the_kind")
