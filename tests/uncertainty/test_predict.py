"""Pairs in, predictions out: with an interval where one was calibrated, and none where it was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nigradat.anatomy import PATCH_SHAPE, Side, mirror_pair
from nigradat.errors import CalibrationError
from nigradat.io.pack import PackedCohort
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import LoadedModel, load_model, save_model
from nigradat.pair import NigralPair, PatientPrediction, SidePrediction
from nigradat.uncertainty.calibration import calibrate
from nigradat.uncertainty.mc_dropout import mc_samples, predict_sbr
from nigradat.uncertainty.predict import predict_pairs
from nigradat.uncertainty.symmetric_mc import symmetric_spread

DRAWS = 10


@pytest.fixture(scope="module")
def pairs() -> list[NigralPair]:
    patches = np.random.default_rng(5).uniform(0.5, 1.5, (3, 2, *PATCH_SHAPE))
    return [NigralPair.from_arrays(*p, participant_id=f"p{i}") for i, p in enumerate(patches)]


@pytest.fixture(scope="module")
def calibrated(
    small_run: Path, make_cohort: Callable[..., PackedCohort], tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    run = shutil.copytree(small_run, tmp_path_factory.mktemp("calibrated") / "run")
    calibrate(run, make_cohort(24, seed=50), samples=DRAWS)
    return load_model(run)


def sides(prediction: PatientPrediction) -> list[SidePrediction]:
    found = [prediction[side] for side in Side]
    assert None not in found
    return found  # type: ignore[return-value]


def codes(prediction: PatientPrediction) -> set[str]:
    return {flag.code for flag in prediction.flags}


def stacked(pairs: list[NigralPair]) -> np.ndarray:
    return np.stack([pair.patches for pair in pairs])


def test_a_calibrated_model_gives_intervals(calibrated: LoadedModel, pairs: list[NigralPair]) -> None:
    calibration = calibrate_of(calibrated)
    spread = symmetric_spread(mc_samples(calibrated.model, stacked(pairs), samples=DRAWS), "s1")
    plain = predict_sbr(calibrated.model, stacked(pairs))
    for level in (0.95, 0.8):
        low, high = spread.interval(calibration.multiplier(level))
        for i, prediction in enumerate(predict_pairs(calibrated, pairs, level=level)):
            assert prediction.participant_id == f"p{i}"
            assert "no-interval" not in codes(prediction)
            assert "phantom-trained" in codes(prediction)
            for j, side in enumerate(sides(prediction)):
                assert side.level == level
                assert side.interval == pytest.approx((max(0, low[i, j]), high[i, j]), abs=1e-6)
                assert side.sbr == pytest.approx(plain[i, j])
                assert side.sd == pytest.approx(spread.spread[i, j])


def calibrate_of(loaded: LoadedModel):  # type: ignore[no-untyped-def]
    from nigradat.uncertainty.calibration import load_calibration

    calibration = load_calibration(loaded)
    assert calibration is not None
    return calibration


def test_a_higher_level_is_wider_and_too_high_a_one_is_refused(
    calibrated: LoadedModel, pairs: list[NigralPair]
) -> None:
    def width(level: float) -> float:
        (prediction,) = predict_pairs(calibrated, pairs[:1], level=level)
        return sum(np.ptp(side.interval) for side in sides(prediction) if side.interval)

    assert 0 < width(0.5) < width(0.95)
    with pytest.raises(CalibrationError, match="at least 99 patients"):
        predict_pairs(calibrated, pairs, level=0.99)


def test_the_rule_decides(calibrated: LoadedModel, pairs: list[NigralPair]) -> None:
    conformal, nominal = (predict_pairs(calibrated, pairs, level=0.6, rule=r) for r in ("conformal", "nominal-cp"))  # type: ignore[arg-type]
    k = [calibrate_of(calibrated).multiplier(0.6, r) for r in ("conformal", "nominal-cp")]
    assert (k[1] < k[0]).all()
    for one, two in zip(conformal, nominal, strict=True):
        for a, b in zip(sides(one), sides(two), strict=True):
            assert a.interval is not None
            assert b.interval is not None
            assert b.interval[1] < a.interval[1]


def test_an_uncalibrated_model_has_a_raw_spread_and_says_so(small_run: Path, pairs: list[NigralPair]) -> None:
    for prediction in predict_pairs(load_model(small_run), pairs, samples=DRAWS):
        assert "no-interval" in codes(prediction)
        for side in sides(prediction):
            assert side.interval is None
            assert side.level is None
            assert side.sd is not None
            assert side.sd > 0


def test_a_model_without_dropout_does_not_invent_one(tmp_path: Path, pairs: list[NigralPair]) -> None:
    model = build(ModelSpec(widths=(2, 2, 2, 2), head_dropout=0.0, sharing="left"))
    loaded = load_model(save_model(tmp_path / "m", model, {"training": {"kind": "patients"}}))
    (prediction, *_) = predict_pairs(loaded, pairs)
    assert prediction.right is None
    assert prediction.left is not None
    assert (prediction.left.sd, prediction.left.interval, prediction.left.level) == (None, None, None)
    assert {"no-interval", "no-answer"} <= codes(prediction)
    assert "phantom-trained" not in codes(prediction)
    assert [flag.side for flag in prediction.flags if flag.code == "no-answer"] == [Side.RIGHT]


def test_inputs_are_left_as_they_were_and_two_calls_agree(calibrated: LoadedModel, pairs: list[NigralPair]) -> None:
    before = stacked(pairs)
    one, two = predict_pairs(calibrated, pairs), predict_pairs(calibrated, pairs)
    assert one == two  # bit-equal
    assert np.array_equal(stacked(pairs), before)
    assert not any(module.training for module in calibrated.model.modules())


def test_company_does_not_matter(calibrated: LoadedModel, pairs: list[NigralPair]) -> None:
    together, alone = predict_pairs(calibrated, pairs), predict_pairs(calibrated, pairs[2:])[0]
    for a, b in zip(sides(together[2]), sides(alone), strict=True):
        assert a.sbr == pytest.approx(b.sbr, abs=1e-5)
        assert a.interval == pytest.approx(b.interval, abs=1e-5)


def test_the_mirrored_patient_has_the_mirrored_prediction(small_run: Path, pairs: list[NigralPair]) -> None:
    mirrored = NigralPair.from_arrays(*mirror_pair(pairs[0].patches))
    loaded = load_model(small_run)
    (one,), (two,) = (predict_pairs(loaded, [pair], samples=DRAWS) for pair in (pairs[0], mirrored))
    for a, b in zip(sides(one), sides(two)[::-1], strict=True):
        assert a.sbr == pytest.approx(b.sbr, abs=1e-5)
        assert a.sd == pytest.approx(b.sd, abs=1e-5)


def test_what_lies_outside_the_labels_range_is_flagged_and_nothing_is_negative(
    calibrated: LoadedModel, pairs: list[NigralPair], tmp_path: Path
) -> None:
    folder = shutil.copytree(calibrated.folder, tmp_path / "run")
    loaded = load_model(folder)
    head = loaded.model.nets["both"].head  # type: ignore[union-attr]
    for offset, expected in ((-5.0, True), (0.3, False), (5.0, True)):
        head.bias.data.fill_(offset)  # type: ignore[union-attr, operator]
        head.weight.data.mul_(0.01)  # type: ignore[union-attr, operator]
        (prediction,) = predict_pairs(loaded, pairs[:1], level=0.5)
        assert ("outside-training-range" in codes(prediction)) == expected
        for side in sides(prediction):
            assert side.sbr == pytest.approx(6.84 * offset, abs=1)  # the number itself is not touched
            assert side.interval is not None
            assert 0 <= side.interval[0] <= side.interval[1]


def test_a_made_up_affine_is_said(calibrated: LoadedModel, pairs: list[NigralPair]) -> None:
    assert "nominal-affine" in codes(predict_pairs(calibrated, pairs[:1])[0])
    real = NigralPair(pairs[0].patches, pairs[0].affines)
    assert "nominal-affine" not in codes(predict_pairs(calibrated, [real])[0])


def test_nothing_in_nothing_out(calibrated: LoadedModel) -> None:
    assert predict_pairs(calibrated, []) == []
