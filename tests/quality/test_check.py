"""Flags on pairs with known faults, and the one fault that no image shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nigradat.anatomy import Side, mirror, mirror_pair
from nigradat.metrics.binary import auc
from nigradat.pair import NigralPair
from nigradat.quality.check import check, check_pairs
from nigradat.quality.measures import MEASURES, NAMES
from nigradat.quality.reference import scores_of
from nigradat.training.split import Split


@pytest.fixture
def ordinary(phantom, loaded) -> np.ndarray:
    """The test patients' pairs."""
    rows = Split.load(loaded.folder / "split.json").rows(phantom, "test")
    return np.stack([phantom.read(int(i)) for i in rows])


def checked(loaded, quality, patches):
    return check_pairs(loaded, quality, [NigralPair.from_arrays(*pair, f"sub-{i}") for i, pair in enumerate(patches)])


def codes(found) -> set[tuple[str, Side | None]]:
    return {(flag.code, flag.side) for flag in found.flags}


def test_exchanged_patches_are_flagged_on_both_sides(loaded, quality, ordinary):
    for found in checked(loaded, quality, ordinary[:, ::-1]):
        assert {("unusual-handedness", side) for side in Side} <= codes(found)
        assert found.p_value == pytest.approx(1 / 4)


@pytest.mark.parametrize("side", Side)
def test_one_patch_mirrored_is_flagged_on_its_side(side, loaded, quality, ordinary):
    spoilt = ordinary.copy()
    spoilt[:, side.index] = mirror(spoilt[:, side.index])
    for found in checked(loaded, quality, spoilt):
        assert ("unusual-handedness", side) in codes(found)
        assert ("unusual-handedness", side.other) not in codes(found)
        assert ("unusual-mirror-correlation", None) in codes(found)


def test_a_flag_says_what_was_measured_what_is_usual_and_what_to_do(loaded, quality, ordinary):
    spoilt = ordinary[:1].copy()
    spoilt[:, 1] = np.roll(spoilt[:, 1], 7, axis=1)
    (found,) = checked(loaded, quality, spoilt)
    flag = next(f for f in found.flags if f.code == "unusual-centring")
    value = found.values[1, NAMES.index("centring")]
    assert flag.side is Side.LEFT
    assert flag.message.startswith(f"left: distance from the usual place is {value:.3g} mm, usual is at most ")
    assert "Check the nigrosome-1 centre" in flag.message
    assert value == pytest.approx(3.5, abs=1.5)
    worst = [float(found.deviations[f.side.index, NAMES.index(f.code[8:])]) for f in found.flags if f.side]
    assert worst == sorted(worst, reverse=True)
    assert min(worst) > quality.cut


def test_an_ordinary_pair_has_no_flag_exactly_where_its_score_is_within_the_cut(loaded, quality, ordinary):
    for found in checked(loaded, quality, ordinary):
        assert bool(found.flags) == (found.score > quality.cut) == (found.p_value <= quality.alarm + 1e-9)


def test_a_head_that_was_mirrored_as_a_whole_looks_like_another_head(loaded, quality, ordinary):
    straight = quality.measure(loaded, ordinary)
    flipped = quality.measure(loaded, np.stack([mirror_pair(pair) for pair in ordinary]))
    assert flipped == pytest.approx(straight[:, ::-1], rel=1e-4, abs=1e-5)
    scores = np.concatenate([scores_of(quality.deviations(v)).round(3) for v in (straight, flipped)])
    assert float(auc(np.repeat([False, True], len(ordinary)), scores)) == pytest.approx(0.5, abs=0.05)


def test_features_that_are_known_already_are_used(loaded, quality, ordinary):
    from nigradat.quality.features import tower_features

    pairs = [NigralPair.from_arrays(*pair) for pair in ordinary[:2]]
    features = tower_features(loaded.model, ordinary[:2])
    plain, given = check_pairs(loaded, quality, pairs), check_pairs(loaded, quality, pairs, features)
    assert [p.values.tolist() for p in plain] == [g.values.tolist() for g in given]
    elsewhere = check_pairs(loaded, quality, pairs, features + 100)
    distances = slice(len(MEASURES) - 2, None)
    assert (elsewhere[0].values[:, distances] > plain[0].values[:, distances]).all()


def test_what_check_takes_predict_takes_too(loaded, quality, phantom, ordinary):
    pair = NigralPair.from_arrays(*ordinary[0], "one")
    assert [found.participant_id for found in check([pair, pair], loaded.folder)] == ["one", "one"]
    assert len(check(phantom.folder, loaded)) == len(phantom)
    assert check_pairs(loaded, quality, []) == []


def test_a_measure_that_never_varied_does_not_divide_by_zero(quality):
    from nigradat.quality.reference import _usual

    middle, below, above = _usual(np.ones((9, 2, len(MEASURES))), shared=True)
    flat = replace(quality, middle=middle, below=below, above=above)
    assert np.isfinite(flat.deviations(np.full((2, len(MEASURES)), 2.0))).all()
