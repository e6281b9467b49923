"""What each rule promises, checked on errors whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest

from nigradat.anatomy import Side
from nigradat.errors import CalibrationError, ConfigError
from nigradat.metrics.conformal import beta_binomial_range, conformal_quantile
from nigradat.uncertainty.calibration import RULES, Calibration, Rule, check_rule

LEVEL = 0.9


def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and errors ``(n, 2)``: sides alike, the error growing with the prediction, as in the phantom."""
    severity = rng.normal(0, 1, (n, 1))
    centre = 2 + 0.8 * (severity + rng.normal(0, 0.3, (n, 2)))
    error = np.exp(0.6 * (centre - 2)) * (0.8 * rng.normal(0, 1, (n, 1)) + 0.6 * rng.normal(0, 1, (n, 2)))
    return centre, error


def calibration(centre: np.ndarray, error: np.ndarray) -> Calibration:
    return Calibration("mc", 10, 0, np.abs(error).T, centre.T, len(centre), "", "")


def covered(rule: Rule, n: int, m: int, seed: int, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Which of ``m`` new patients' sides are covered after a calibration on ``n``, and the new centres."""
    rng = np.random.default_rng(seed)
    made = calibration(*draw(rng, n))
    centre, error = draw(rng, m)
    return np.abs(error) <= made.multiplier(level, rule, centre), centre


def test_conformal_is_the_quantile_of_each_side():
    rng = np.random.default_rng(0)
    made = calibration(*draw(rng, 50))
    assert made.multiplier(LEVEL).tolist() == [conformal_quantile(made.scores[i], LEVEL) for i in (0, 1)]


def test_joint_is_the_quantile_of_the_larger_score():
    made = calibration(*draw(np.random.default_rng(0), 50))
    k = made.multiplier(LEVEL, "joint")
    assert k[0] == k[1] == conformal_quantile(made.scores.max(axis=0), LEVEL)
    assert (k >= made.multiplier(LEVEL)).all()


def test_joint_covers_both_sides_together():
    count = np.mean([covered("joint", 39, 200, seed)[0].all(axis=1).mean() for seed in range(200)])
    # on average exactly 36 / 40 = .9; 200 calibrations scatter by sqrt(.9 x .1 / 41 / 200)
    assert count == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 41 / 200))
    apart = np.mean([covered("conformal", 39, 200, seed)[0].all(axis=1).mean() for seed in range(200)])
    assert apart < 0.88  # what side by side does not promise


@pytest.mark.parametrize("side", list(Side))
def test_mondrian_covers_in_each_third_where_one_k_does_not(side: Side):
    by_third: dict[str, list[list[float]]] = {"mondrian": [], "conformal": []}
    for seed in range(150):
        for rule, found in by_third.items():
            inside, centre = covered(check_rule(rule), 89, 600, seed)
            order = np.argsort(centre[:, side.index])
            found.append([inside[third, side.index].mean() for third in np.array_split(order, 3)])
    mondrian, conformal = (np.mean(by_third[rule], axis=0) for rule in ("mondrian", "conformal"))
    # each third of 29 patients: rank 27 of 29, so 27 / 30 = .9 on average. The tested thirds are those of 600 others,
    # so a few patients near a cut change places, which moves the average far less than the tolerance.
    assert mondrian == pytest.approx([0.9] * 3, abs=0.02)
    assert conformal[0] > 0.95
    assert conformal[2] < 0.85


def test_a_large_mondrian_calibration_keeps_its_promise_within_its_own_categories():
    inside, centre = covered("mondrian", 2500, 6000, 7, level=0.95)
    rng = np.random.default_rng(7)
    made = calibration(*draw(rng, 2500))
    for side in Side:
        cuts, scores = made.thirds(side)
        third = np.searchsorted(cuts, centre[:, side.index])
        for t in range(3):
            assert len(scores[t]) >= 800
            members = inside[third == t, side.index]
            low, high = beta_binomial_range(len(scores[t]), len(members), 0.95)
            assert low <= members.mean() <= high


@pytest.mark.parametrize("n", [59, 60, 61, 200])
def test_thirds_leave_the_two_patients_at_the_cuts_out(n: int):
    made = calibration(*draw(np.random.default_rng(n), n))
    cuts, scores = made.thirds(Side.LEFT)
    assert sum(map(len, scores)) == n - 2
    assert max(map(len, scores)) - min(map(len, scores)) <= 1
    centres, all_scores = made.centres[Side.LEFT.index], made.scores[Side.LEFT.index]
    third = np.searchsorted(cuts, centres)
    at_a_cut = np.isin(centres, cuts)
    for t in range(3):
        assert set(scores[t]) == set(all_scores[(third == t) & ~at_a_cut])


def test_thirds_are_those_of_the_rank_among_all_n_plus_one():
    """By definition: put the new one among the others, cut all n + 1 into thirds, take its third without itself."""
    rng = np.random.default_rng(3)
    made = calibration(*draw(rng, 62))
    centre, _ = draw(rng, 40)
    k = made.multiplier(LEVEL, "mondrian", centre)
    for i, side in [(i, side) for i in range(40) for side in Side]:
        everyone = np.append(made.centres[side.index], centre[i, side.index])
        thirds = np.array_split(np.argsort(everyone), 3)  # 63 patients: 21 each
        mine = next(third for third in thirds if 62 in third)
        others = made.scores[side.index][mine[mine != 62]]
        assert k[i, side.index] == conformal_quantile(others, LEVEL)


def test_too_few_are_refused_with_the_number_needed():
    made = calibration(*draw(np.random.default_rng(0), 58))
    with pytest.raises(CalibrationError, match="at least 59 patients"):
        made.multiplier(0.95, "mondrian", np.zeros((1, 2)))
    with pytest.raises(CalibrationError, match="at least 59 patients"):
        made.promise(0.95, "mondrian")
    assert np.isfinite(calibration(*draw(np.random.default_rng(0), 59)).multiplier(0.95, "mondrian", [[1, 2]])).all()
    few = calibration(*draw(np.random.default_rng(0), 18))
    with pytest.raises(CalibrationError, match="at least 19 patients"):
        few.multiplier(0.95, "joint")


def test_a_missing_side_stays_missing():
    centre, error = draw(np.random.default_rng(0), 80)
    error[:, 0] = np.nan
    made = calibration(centre, error)
    assert np.isnan(made.multiplier(LEVEL, "mondrian", centre)[:, 0]).all()
    assert made.multiplier(LEVEL, "joint")[1] == made.multiplier(LEVEL)[1]


def test_what_a_rule_needs_is_asked_for():
    made = calibration(*draw(np.random.default_rng(0), 80))
    with pytest.raises(ConfigError, match="centres"):
        made.multiplier(LEVEL, "mondrian")
    with pytest.raises(ConfigError, match=r"cv\+"):
        made.multiplier(LEVEL, "cv+")
    with pytest.raises(ConfigError, match="'exact'"):
        check_rule("exact")


def test_each_promise_says_what_it_rests_on():
    made = calibration(*draw(np.random.default_rng(0), 80))
    promises = {rule: made.promise(LEVEL, rule) for rule in RULES if rule != "cv+"}
    assert all("80 calibration patients" in promise for promise in promises.values())
    assert "together" in promises["joint"]
    assert "26 patients a third" in promises["mondrian"]
    assert "no promise" in promises["nominal-cp"]
    assert len(set(promises.values())) == 4
