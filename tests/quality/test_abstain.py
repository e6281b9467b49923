"""Withheld answers: which, why, and how many are left."""

from __future__ import annotations

import numpy as np
import pytest

from nigradat.errors import CalibrationError, ConfigError
from nigradat.models.weights import load_model
from nigradat.pair import NigralPair
from nigradat.quality.abstain import answered, resolve_policy
from nigradat.quality.check import check_pairs
from nigradat.quality.reference import QUALITY_NAME
from nigradat.uncertainty.predict import predict_pairs, predictions_to_json


@pytest.fixture
def pairs(phantom) -> list[NigralPair]:
    """Eight patients as they are and four with their patches exchanged."""
    native = [phantom.read(i) for i in range(8)]
    return [NigralPair.from_arrays(*p) for p in native] + [NigralPair.from_arrays(*p[::-1]) for p in native[:4]]


def test_flagged_pairs_get_no_answer(loaded, quality, pairs):
    found = predict_pairs(loaded, pairs, abstain="flagged")
    unusual = [bool(c.flags) for c in check_pairs(loaded, quality, pairs)]
    assert all(unusual[8:])
    assert [p.right is None and p.left is None for p in found] == unusual
    assert [any(f.code == "abstained" for f in p.flags) for p in found] == unusual
    why = next(f.message for f in found[-1].flags if f.code == "abstained")
    assert "the policy 'flagged' withholds the most unusual 25 %" in why
    assert next(f.message for f in found[-1].flags if f.code.startswith("unusual-")) in why
    assert answered(found) == 12 - sum(unusual)
    assert predictions_to_json(loaded, found)["yield"] == {"visits": 12, "answered": 12 - sum(unusual)}


def test_a_larger_share_withholds_at_least_as_many(loaded, pairs):
    counts = [answered(predict_pairs(loaded, pairs, abstain=share)) for share in ("none", "0.25", "0.5", "0.75")]
    assert counts[0] == 12
    assert counts == sorted(counts, reverse=True)


def test_without_a_policy_answers_are_those_of_a_model_without_a_reference(loaded, own_run, pairs):
    (own_run / QUALITY_NAME).unlink()
    bare = predict_pairs(load_model(own_run), pairs)
    flagged = predict_pairs(loaded, pairs)
    assert [(p.right, p.left) for p in flagged] == [(p.right, p.left) for p in bare]
    assert not any(f.code.startswith("unusual-") for p in bare for f in p.flags)
    assert all(any(f.code == "unusual-handedness" for f in p.flags) for p in flagged[8:])


def test_a_policy_that_cannot_be_kept_is_refused(loaded, quality, own_run, pairs):
    with pytest.raises(CalibrationError, match=r"3 held-out patients for a rate of 0.1.*at least 9 patients"):
        predict_pairs(loaded, pairs, abstain="0.1")
    (own_run / QUALITY_NAME).unlink()
    bare = load_model(own_run)
    for policy in ("flagged", "0.5"):
        with pytest.raises(CalibrationError, match="nigradat fit-quality"):
            predict_pairs(bare, pairs, abstain=policy)
    for policy in ("always", "0", "1", "nan", "-0.1", ""):
        with pytest.raises(ConfigError, match="none, flagged, or a share"):
            predict_pairs(loaded, [], abstain=policy)
    assert resolve_policy("none", bare, None) is None


def test_dropout_in_the_tower_does_not_change_the_flags(phantom, tmp_path, pairs):
    from nigradat.models.symmetric import ModelSpec, build
    from nigradat.models.weights import save_model
    from nigradat.quality.reference import fit_quality, require_quality

    spec = ModelSpec(widths=(2, 2, 2, 4), block_dropout=0.2)
    loaded = load_model(save_model(tmp_path / "net", build(spec, 1), {"training": {"kind": "phantom"}}))
    fit_quality(loaded, phantom)
    predicted = predict_pairs(loaded, pairs, samples=3)
    alone = check_pairs(loaded, require_quality(loaded), pairs)
    for p, c in zip(predicted, alone, strict=True):
        assert [f for f in p.flags if f.code.startswith("unusual-")] == list(c.flags)
    assert not np.isnan(alone[0].score)
