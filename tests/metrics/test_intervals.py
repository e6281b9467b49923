"""Coverage, the sharpness-CP curve, its optimum and proper scores: hand-solved, closed forms, brute force."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.metrics import intervals as iv

SCALE = 6.84
CRITERIA = ("ideal_distance", "balanced", "product", "f1")


def curve_of(s, spread=1.0, scale=10.0):
    """The curve of cases whose normalised errors are ``s``."""
    s = np.asarray(s, dtype=float)
    return iv.sharpness_cp_curve(2.0 + s * spread, np.full(s.shape, 2.0), np.full(s.shape, spread), scale)


@st.composite
def sides(draw, n_sides=2):
    """Truth, centre and spread ``(n, 2)`` on a coarse grid, so that ties and perfect predictions occur."""
    n = draw(st.integers(1, 12))
    grid = st.integers(1, 12)
    numbers = draw(st.lists(st.tuples(grid, grid, grid), min_size=n_sides * n, max_size=n_sides * n))
    return (np.array(numbers, dtype=float).reshape(n, n_sides, 3) / 4).transpose(2, 0, 1)


# -- coverage and width


def test_three_intervals_by_hand():
    lower, upper, truth = [0.0, 1.0, 2.0], [1.0, 3.0, 5.0], [1.0, 0.5, 3.0]
    assert iv.coverage(lower, upper, truth) == pytest.approx(2 / 3)  # the end belongs to the interval
    assert iv.mpiw(lower, upper) == pytest.approx(2.0)
    assert iv.nmpiw(lower, upper, truth) == pytest.approx(2.0 / 2.5)
    assert iv.sharpness(lower, upper, 4.0) == pytest.approx(1 - 1.0 / 4.0)
    # the second is missed by .5: 2 + 2 / .1 * .5
    np.testing.assert_allclose(iv.interval_score(lower, upper, truth, 0.9), [1.0, 12.0, 3.0])


def test_a_missing_truth_is_not_a_miss():
    assert np.isnan(iv.coverage([0.0, 0.0], [1.0, 1.0], [0.5, np.nan]))
    assert iv.coverage([-np.inf, 0.0], [np.inf, 1.0], [0.5, 2.0]) == 0.5


def test_exchanged_ends_are_refused():
    for function in (lambda: iv.mpiw([1.0], [0.0]), lambda: iv.coverage([1.0], [0.0], [0.5])):
        with pytest.raises(CalibrationError, match="lower end"):
            function()


def test_a_constant_truth_has_no_normalised_width():
    assert np.isnan(iv.nmpiw([0.0, 0.0], [1.0, 1.0], [0.5, 0.5]))


# -- the curve


def test_three_cases_by_hand():
    # errors .5, 1, 3 over spreads .5, .5, 1: nodes 1, 2, 3; mean spread 2/3, scale 4: a sixth lost per unit of k
    curve = iv.sharpness_cp_curve([2.5, 1.0, 5.0], [2.0, 2.0, 2.0], [0.5, 0.5, 1.0], 4.0)
    np.testing.assert_allclose(curve.k, [0, 1, 2, 3])
    np.testing.assert_allclose(curve.cp, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(curve.sharpness, [1, 5 / 6, 4 / 6, 3 / 6])
    assert iv.k_at_cp(curve, 0.95) == pytest.approx(2.85)
    assert iv.sharpness_at_cp(curve, 0.95) == pytest.approx(1 - 2.85 / 6)
    assert iv.sharpness_at_cp(curve, 0.5) == pytest.approx(1 - 1.5 / 6)
    point = iv.point_at_k(curve, 1.5)
    assert (point.sharpness, point.cp) == (pytest.approx(0.75), pytest.approx(0.5))
    assert iv.point_at_k(curve, 30.0) == iv.CurvePoint(30.0, pytest.approx(-4.0), 1.0)  # not clipped


@pytest.mark.parametrize(("sd", "published"), [(0.763, 0.781), (0.998, 0.714)])
def test_gaussian_errors_give_the_closed_form(sd, published):
    n = 20_000
    error = stats.norm.ppf((np.arange(n) + 0.5) / n) * sd
    curve = iv.sharpness_cp_curve(2 + error, np.full(n, 2.0), np.ones(n), SCALE)
    assert iv.sharpness_at_cp(curve) == pytest.approx(1 - 1.959964 * sd / SCALE, abs=2e-4)
    assert round(float(iv.sharpness_at_cp(curve)), 3) == published


def test_a_curve_agrees_with_its_intervals():
    # at a node, CP and Sharpness are those of the very intervals c +- k S
    rng = np.random.default_rng(0)
    c, s = rng.uniform(1, 4, 30), rng.uniform(0.2, 1, 30)
    y = c + s * rng.standard_t(4, 30)
    curve = iv.sharpness_cp_curve(y, c, s, SCALE)
    for k, cp, sharp in zip(curve.k[1:], curve.cp[1:], curve.sharpness[1:], strict=True):
        wider = k * (1 + 1e-12)
        assert iv.coverage(c - wider * s, c + wider * s, y) == pytest.approx(cp)
        assert iv.sharpness(c - k * s, c + k * s, SCALE) == pytest.approx(sharp)


@given(sides(), st.floats(0.01, 0.99))
@settings(max_examples=80)
def test_curve_properties(arrays, cp):
    y, c, s = arrays[..., 0]
    curve = iv.sharpness_cp_curve(y, c, s, SCALE)
    assert (np.diff(curve.k) >= 0).all()
    assert (np.diff(curve.cp) > 0).all()
    assert (np.diff(curve.sharpness) <= 0).all()
    # CP(k) is monotone between the nodes as well
    assert (np.diff([iv.point_at_k(curve, k).cp for k in np.linspace(0, curve.k[-1] * 1.1, 41)]) >= -1e-12).all()
    # the multiplier for a CP reaches it
    assert iv.point_at_k(curve, float(iv.k_at_cp(curve, cp))).cp >= cp - 1e-9
    # the order of the cases does not matter, nor the unit of k
    other = iv.sharpness_cp_curve(y[::-1], c[::-1], 3.0 * s[::-1], SCALE)
    assert iv.sharpness_at_cp(other, cp) == pytest.approx(float(iv.sharpness_at_cp(curve, cp)), abs=1e-9)
    # nor the unit of SBR
    double = iv.sharpness_cp_curve(2 * y, 2 * c, 2 * s, 2 * SCALE)
    assert iv.sharpness_at_cp(double, cp) == pytest.approx(float(iv.sharpness_at_cp(curve, cp)), abs=1e-9)


def test_ties_make_a_vertical_piece():
    curve = curve_of([1.0, 2.0, 2.0, 4.0])
    assert iv.k_at_cp(curve, 0.6) == 2.0
    assert iv.point_at_k(curve, 2.0).cp == 0.75
    assert iv.point_at_k(curve, 1.5).cp == pytest.approx(0.375)
    assert iv.point_at_k(curve, 3.0).cp == pytest.approx(0.875)


def test_a_perfect_case_is_covered_from_the_start():
    curve = curve_of([0.0, 0.0, 1.0, 2.0])
    assert iv.point_at_k(curve, 0.0).cp == 0.5
    assert iv.k_at_cp(curve, 0.4) == 0.0


def test_zero_spread_is_covered_never_or_always():
    curve = iv.sharpness_cp_curve([2.0, 3.0, 2.0], [2.0, 2.0, 1.0], [0.0, 1.0, 0.0], 10.0)
    np.testing.assert_array_equal(curve.k, [0, 0, 1, np.inf])
    assert curve.sharpness[-1] == -np.inf
    assert iv.sharpness_at_cp(curve, 0.6) == pytest.approx(1 - 0.8 / 30)
    assert iv.sharpness_at_cp(curve, 0.95) == -np.inf  # no width gets there, and none is invented
    assert iv.point_at_k(curve, 50.0).cp == pytest.approx(2 / 3)
    best = iv.optimal_point(curve, curve)
    assert best.sides.average.cp == pytest.approx(2 / 3)


def test_all_spreads_zero():
    curve = iv.sharpness_cp_curve([2.0, 3.0], [2.0, 2.0], [0.0, 0.0], 10.0)
    assert iv.sharpness_at_cp(curve, 0.95) == -np.inf
    assert iv.optimal_point(curve, curve).sides.right == iv.CurvePoint(0.0, 1.0, 0.5)


def test_one_case():
    curve = curve_of([2.0])
    assert iv.k_at_cp(curve, 0.95) == pytest.approx(1.9)


def test_a_level_on_a_node_meets_that_node():
    # .55 * 20 is 11.000000000000002 in floating point: with an infinite 12th node the 11th must still be found
    s = np.append(np.arange(1.0, 12.0), np.full(9, np.inf))
    spread = np.where(np.isfinite(s), 1.0, 0.0)
    curve = iv.sharpness_cp_curve(np.where(np.isfinite(s), s, 1.0), np.zeros(20), spread, 10.0)
    assert iv.k_at_cp(curve, 0.55) == 11.0


def test_a_block_of_samples_equals_its_rows():
    rng = np.random.default_rng(1)
    y, c, s = rng.uniform(0.5, 4, (3, 7, 21))
    block = iv.sharpness_at_cp(iv.sharpness_cp_curve(y, c, s, SCALE), 0.9)
    rows = [iv.sharpness_at_cp(iv.sharpness_cp_curve(*row, SCALE), 0.9) for row in zip(y, c, s, strict=True)]
    np.testing.assert_allclose(block, rows, rtol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (([1.0], [1.0], [-0.1], SCALE), CalibrationError),
        (([1.0], [1.0], [np.nan], SCALE), CalibrationError),
        (([np.nan], [1.0], [1.0], SCALE), CohortError),
        (([1.0], [1.0, 2.0], [1.0], SCALE), CohortError),
        (([1.0], [1.0], [1.0], 0.0), ConfigError),
    ],
    ids=["negative", "nan spread", "nan truth", "shapes", "scale"],
)
def test_bad_input_is_refused(arguments, kind):
    with pytest.raises(kind):
        iv.sharpness_cp_curve(*arguments)


# -- the optimum


@pytest.mark.parametrize(
    ("criterion", "k"),
    [
        # one piece: Sharpness 1 - k / 2, CP k / 3
        ("ideal_distance", (1 / 3) / (1 / 4 + 1 / 9)),
        ("balanced", 6 / 5),
        ("product", 1.0),
        ("f1", np.sqrt(2 / 3) / (1 / 3 + np.sqrt(2 / 3) / 2)),
    ],
)
def test_optimum_by_hand(criterion, k):
    curve = curve_of([1.0, 2.0, 3.0], scale=2.0)
    best = iv.optimal_point(curve, curve, criterion)
    assert best.sides.right.k == pytest.approx(k)
    assert best.sides.average.sharpness == pytest.approx(1 - k / 2)
    assert best.sides.average.cp == pytest.approx(k / 3)
    assert best.criterion == criterion


def test_joint_k_judges_the_averages():
    right, left = curve_of([1.0, 2.0]), curve_of([2.0, 4.0], spread=0.5)
    joint = iv.optimal_point(right, left)
    assert joint.joint
    assert joint.sides.right.k == joint.sides.left.k == joint.sides.average.k
    assert joint.sides.average.cp == pytest.approx((joint.sides.right.cp + joint.sides.left.cp) / 2)
    own = iv.optimal_point(right, left, joint=False)
    assert own.sides.right == iv.optimal_point(right, right).sides.right
    assert own.sides.left == iv.optimal_point(left, left).sides.left
    assert own.sides.right.k != own.sides.left.k


@given(sides(), st.sampled_from(CRITERIA), st.sampled_from([2.0, SCALE]))
@settings(max_examples=80)
def test_no_grid_point_is_better(arrays, criterion, scale):
    y, c, s = arrays
    curves = [iv.sharpness_cp_curve(y[:, i], c[:, i], s[:, i], scale) for i in range(2)]
    best = iv.optimal_point(*curves, criterion).sides.average

    def value(k):
        points = [iv.point_at_k(curve, float(k)) for curve in curves]
        sharp, cp = np.mean([p.sharpness for p in points]), np.mean([p.cp for p in points])
        return {
            "ideal_distance": -np.hypot(1 - sharp, 1 - cp),
            "balanced": min(sharp, cp),
            "product": sharp * cp,
            "f1": 2 * sharp * cp / (sharp + cp) if sharp > 0 and cp > 0 else min(sharp, 0),
        }[criterion]

    top = max(curve.k[-1] for curve in curves)
    assume(top > 0)
    assert value(best.k) >= max(value(k) for k in np.linspace(0, top * 1.05, 101)) - 1e-9


def test_sides_can_be_exchanged():
    rng = np.random.default_rng(2)
    a, b = (iv.sharpness_cp_curve(*rng.uniform(0.5, 4, (3, 55)), SCALE) for _ in range(2))
    one, two = iv.optimal_point(a, b), iv.optimal_point(b, a)
    assert one.sides.right == two.sides.left
    assert one.sides.average.k == two.sides.average.k


def test_unknown_criterion_is_refused():
    with pytest.raises(ConfigError, match="ideal_distance"):
        iv.optimal_point(curve_of([1.0]), curve_of([1.0]), "best")


# -- proper scores


def test_gaussian_crps_equals_its_definition():
    for mean, sd, y in [(2.0, 0.7, 1.1), (1.0, 0.2, 2.5), (3.0, 1.5, 3.0)]:

        def square(x, mean=mean, sd=sd, y=y):
            return (stats.norm.cdf(x, mean, sd) - (x >= y)) ** 2

        parts = [integrate.quad(square, a, b)[0] for a, b in ((mean - 12 * sd, y), (y, mean + 12 * sd))]
        assert iv.crps_gaussian([y], [mean], [sd])[0] == pytest.approx(sum(parts), abs=1e-7)


def test_crps_of_no_spread_is_the_absolute_error():
    np.testing.assert_allclose(iv.crps_gaussian([1.0, 2.0], [3.0, 2.0], [0.0, 0.0]), [2.0, 0.0])
    np.testing.assert_allclose(iv.crps_sample([1.0], np.full((1, 9), 3.0)), [2.0])


@given(st.lists(st.floats(0, 7), min_size=1, max_size=12), st.floats(0, 7))
@settings(max_examples=60)
def test_sample_crps_equals_the_double_sum(samples, y):
    x = np.array(samples)
    double = np.abs(x - y).mean() - np.abs(x[:, None] - x).mean() / 2
    assert iv.crps_sample([y], x[None])[0] == pytest.approx(double, abs=1e-12)


def test_sample_crps_tends_to_the_gaussian():
    t = 20_001
    x = 2 + 0.6 * stats.norm.ppf((np.arange(t) + 0.5) / t)
    y = np.array([0.5, 2.0, 2.7])
    np.testing.assert_allclose(
        iv.crps_sample(y, np.tile(x, (3, 1))), iv.crps_gaussian(y, [2] * 3, [0.6] * 3), atol=1e-4
    )


def test_interval_score_is_least_at_the_quantiles():
    # a proper score: of all intervals the central one of the truth's own distribution scores best
    t = 50_000
    y = stats.norm.ppf((np.arange(t) + 0.5) / t)

    def score(ends):
        return iv.interval_score(np.full(t, ends[0]), np.full(t, ends[1]), y, 0.9).mean()

    found = optimize.minimize(score, [-1.0, 1.0], method="Nelder-Mead").x
    np.testing.assert_allclose(found, stats.norm.ppf([0.05, 0.95]), atol=0.01)


def test_scores_refuse_what_does_not_fit():
    with pytest.raises(CohortError):
        iv.crps_sample([1.0, 2.0], np.ones((3, 5)))
    with pytest.raises(CalibrationError):
        iv.crps_gaussian([1.0], [1.0], [-1.0])
    with pytest.raises(ConfigError):
        iv.interval_score([0.0], [1.0], [0.5], level=1.0)
