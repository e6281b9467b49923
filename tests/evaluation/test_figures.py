"""Figures: what they show, how they refuse, and that their SVG can stand in one page with others."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from nigradat.anatomy import Side
from nigradat.errors import CohortError, ConfigError, MissingExtraError, NigradatError
from nigradat.evaluation import figures
from nigradat.metrics.agreement import bland_altman_clustered
from nigradat.metrics.intervals import optimal_point, sharpness_at_cp, sharpness_cp_curve

pytest.importorskip("matplotlib")
LABEL = "Digital phantom, preset easy"


def cohort(n=40):
    rng = np.random.default_rng(n)
    truth = np.exp(0.6 + 0.5 * rng.normal(size=(n, 2)))
    return truth, 0.7 * truth + 0.6 + rng.normal(0, 0.4, (n, 2))


def curves(n=40, spread=0.5):
    truth, predicted = cohort(n)
    return tuple(sharpness_cp_curve(truth[:, i], predicted[:, i], np.full(n, spread), 6.84) for i in (0, 1))


def every_figure(n=40):
    truth, predicted = cohort(n)
    epoch = np.arange(5)
    return {
        "scatter": figures.scatter_figure(truth, predicted, predicted - 0.8, predicted + 0.8, label=LABEL),
        "bland_altman": figures.bland_altman_figure(truth, predicted, label=LABEL),
        "sharpness": figures.sharpness_cp_figure({"MC + VGG": curves(n), "MC + Sym.": curves(n, 1.0)}, label=LABEL),
        "training": figures.training_figure(epoch, {"Loss": {"training": 1.0 / (1 + epoch)}}, label=LABEL),
    }


@pytest.fixture(scope="module")
def drawn():
    return every_figure()


@pytest.fixture(scope="module")
def svgs(drawn):
    return {name: figures.figure_svg(figure, f"a {name} figure") for name, figure in drawn.items()}


@pytest.mark.parametrize("name", ["scatter", "bland_altman", "sharpness", "training"])
def test_svg_is_whole_labelled_and_the_same_every_time(svgs, name):
    root = ElementTree.fromstring(svgs[name])
    assert root.tag.endswith("svg")
    words = "".join(root.itertext())
    assert LABEL in words  # as text, not as outlines
    assert f"a {name} figure" in words
    assert figures.figure_svg(every_figure()[name], f"a {name} figure") == svgs[name]
    assert not re.search(r"20\d\d-\d\d-\d\d", svgs[name])  # no date


def test_inline_svgs_share_no_id_and_every_reference_resolves(svgs):
    seen = set()
    for svg in svgs.values():
        own = set(re.findall(r'\sid="([^"]+)"', svg))
        assert own
        assert not own & seen
        seen |= own
        references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)
        assert {a or b for a, b in references} <= own


def test_png_is_an_image_and_the_same_every_time():
    png = figures.figure_png(every_figure()["scatter"], dpi=60)
    assert png.startswith(b"\x89PNG")
    assert png == figures.figure_png(every_figure()["scatter"], dpi=60)


def test_scatter_has_a_point_for_each_patient_and_says_its_numbers():
    truth, predicted = cohort()
    figure = figures.scatter_figure(truth, predicted, predicted - 0.8, predicted + 0.8)
    for side, axes in zip(Side, figure.axes, strict=True):
        assert axes.get_title(loc="left") == side.value.capitalize()
        points = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections if len(c.get_offsets()) == 40])
        np.testing.assert_allclose(points, np.stack([truth[:, side.index], predicted[:, side.index]], 1))
        text = axes.get_title(loc="right")
        assert f"R = {np.corrcoef(truth[:, side.index], predicted[:, side.index])[0, 1]:.2f}" in text
        assert f"cover {100 * np.mean(np.abs(truth - predicted)[:, side.index] <= 0.8):.1f} %" in text


def test_bland_altman_draws_its_own_limits():
    truth, predicted = cohort()
    found = bland_altman_clustered(truth, predicted)
    axes = figures.bland_altman_figure(truth, predicted).axes[0]
    levels = {round(float(line.get_ydata()[0]), 9) for line in axes.lines}
    assert {round(x, 9) for x in (found.lower, found.bias, found.upper, 0.0)} <= levels


def test_the_optimum_and_the_point_at_cp_are_marked():
    both = curves()
    figure = figures.sharpness_cp_figure({"MC": both})
    best = optimal_point(*both).sides
    for side, axes in zip(Side, figure.axes[:2], strict=True):
        marked = {line.get_marker(): (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines}
        assert marked["*"] == pytest.approx((best[side].cp, best[side].sharpness))
        assert marked["o"] == pytest.approx((0.95, float(sharpness_at_cp(both[side.index]))))


def test_a_point_that_is_not_reached_is_left_out():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    half_dumb = sharpness_cp_curve(truth, truth + 0.5, [1.0, 1.0, 0.0, 0.0], 6.84)
    svg = figures.figure_svg(figures.sharpness_cp_figure({"MC": (half_dumb, half_dumb)}))
    assert "not reached at CP 0.95" in svg


def test_large_cohorts_stay_small_files():
    truth, predicted = cohort(3000)
    svg = figures.figure_svg(figures.scatter_figure(truth, predicted, predicted - 1, predicted + 1))
    assert len(svg) < 1_000_000


def test_perfect_and_constant_predictions_can_be_drawn():
    truth, _ = cohort(5)
    for predicted in (truth, np.full_like(truth, 2.0)):
        figures.figure_svg(figures.scatter_figure(truth, predicted))
        figures.figure_svg(figures.bland_altman_figure(truth, predicted))


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: figures.scatter_figure(np.ones(4), np.ones(4)), CohortError),
        (lambda: figures.scatter_figure(np.ones((4, 2)), np.ones((4, 2)), np.ones((4, 2))), CohortError),
        (lambda: figures.bland_altman_figure(np.ones((2, 2)), np.ones((2, 2))), CohortError),
        (lambda: figures.sharpness_cp_figure({}), ConfigError),
        (lambda: figures.training_figure([0, 1], {}), ConfigError),
        (lambda: figures.training_figure([0, 1], {"Loss": {"training": [1.0]}}), NigradatError),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, kind):
    with pytest.raises(kind):
        call()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"nigradat\[report\]"):
        figures.scatter_figure(*cohort())


def test_importing_loads_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys, numpy as np\n"
        "from nigradat.evaluation import figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "figures.scatter_figure(np.ones((3, 2)), np.ones((3, 2)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
