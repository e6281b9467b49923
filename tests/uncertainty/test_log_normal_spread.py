"""The spread of a model with a noise of its own: against brute-force sampling, and the whole way through a cohort."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from nigradat.anatomy import PATCH_SHAPE, mirror_pair
from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.evaluation.evaluate import evaluate
from nigradat.io.pack import PackedCohort
from nigradat.models.dropout import one_network_draw
from nigradat.models.symmetric import ModelSpec, PairRegressor, build
from nigradat.models.weights import load_model, save_model
from nigradat.pair import NigralPair
from nigradat.training.config import make_config
from nigradat.training.data import canonical_tensor
from nigradat.training.fit import train
from nigradat.training.split import Split, make_split
from nigradat.uncertainty.calibration import calibrate, load_calibration
from nigradat.uncertainty.mc_dropout import (
    Draws,
    draw_predictions,
    draw_seeds,
    has_spread,
    mc_samples,
    predict_sbr,
    predict_with_samples,
)
from nigradat.uncertainty.predict import predict_pairs
from nigradat.uncertainty.symmetric_mc import MODES, Fusion, symmetric_spread

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from small_runs import write_cohort

TINY = (2, 3, 3, 4)
SCALE = 6.84
FUSION = Fusion(a=0.1, b=0.7, c=0.2, s0=0.3, s1=0.1)
KINDS = {"head": {"head_dropout": 0.3}, "blocks": {"head_dropout": 0.3, "block_dropout": 0.02}}


def some_patches() -> np.ndarray:
    """Noise whose contrast, to which a fresh tower's features are proportional, differs between patches."""
    rng = np.random.default_rng(11)
    contrast = rng.uniform(0.2, 0.9, (4, 2, 1, 1, 1))
    return (1 + contrast * rng.uniform(-1, 1, (4, 2, *PATCH_SHAPE))).astype(np.float32)


def a_model(sharing: str = "shared", output: str = "log-normal", **options: float) -> PairRegressor:
    """Predictions about 2 SBR, an SD of log SBR about 0.3, and dropout that moves the log by about 0.15."""
    spec = ModelSpec(widths=TINY, sharing=sharing, output=output, **options)  # type: ignore[arg-type]
    model = build(spec, seed=6).eval()
    with torch.no_grad():
        features = model.features(canonical_tensor(some_patches()))
    rows = torch.rand(2, features.shape[-1], generator=torch.Generator().manual_seed(5))
    for side in model.sides:
        head, h = model.net(side).head, features[:, side.index]  # type: ignore[union-attr]
        weight = 0.2 * rows / ((h[:, None] * rows) ** 2).sum(dim=2).sqrt().mean(dim=0)[:, None]
        bias = torch.tensor([-1.3, -1.3]) - (h @ weight.T).mean(dim=0)
        head.weight.data, head.bias.data = weight[: len(head.weight)], bias[: len(head.bias)]
    return model


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return some_patches()


def distributions(model: PairRegressor, patches: np.ndarray, seed: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """mu and SD ``(T, n, 2)`` of each thinned network, by running it whole."""
    found = []
    for draw in draw_seeds(seed, draws):
        with one_network_draw(model, draw), torch.no_grad():
            found.append(torch.stack(model.distribution(model.features(canonical_tensor(patches)))).double().numpy())
    mu, sd = np.stack(found, axis=1)
    return mu, sd


@pytest.mark.parametrize("sharing", ["shared", "separate", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_and_noise_are_those_of_the_thinned_networks(kind: str, sharing: str, patches: np.ndarray) -> None:
    model = a_model(sharing, **KINDS[kind])
    drawn = draw_predictions(model, patches, samples=6, seed=3)
    mu, sd = distributions(model, patches, 3, 6)
    truth = stats.lognorm(s=sd, scale=SCALE * np.exp(mu))
    assert drawn.samples == pytest.approx(truth.mean(), rel=1e-4, nan_ok=True)
    assert drawn.noise_sd == pytest.approx(np.sqrt(truth.var().mean(axis=0)), rel=1e-4, nan_ok=True)
    assert drawn.point == pytest.approx(predict_sbr(model, patches), rel=1e-6, nan_ok=True)
    left = drawn.noise_sd[:, 1]  # type: ignore[index]
    assert (left > 0.1).all()
    assert len(np.unique(left.round(4))) == len(left)
    assert np.isnan(drawn.noise_sd[:, 0]).all() == (sharing == "left")  # type: ignore[index]


def test_the_total_variance_is_that_of_labels_drawn_from_the_networks(patches: np.ndarray) -> None:
    draws, labels, patches = 60, 20000, patches[:2]
    model = a_model(head_dropout=0.3)
    drawn = draw_predictions(model, patches, samples=draws, seed=3)
    found = symmetric_spread(drawn.samples, "mc", noise_sd=drawn.noise_sd)
    mu, sd = distributions(model, patches, 3, draws)
    y = SCALE * np.exp(mu + sd * np.random.default_rng(0).normal(size=(labels, *mu.shape)))
    y = y.reshape(-1, *mu.shape[1:])
    assert found.centre == pytest.approx(y.mean(axis=0), rel=0.005)
    assert found.spread == pytest.approx(y.std(axis=0), rel=0.01)  # 60 networks: 1 / 60 of their variance is ddof
    raw = symmetric_spread(drawn.samples, "mc").spread
    assert (raw < 0.9 * found.spread).all()  # both parts are needed to get there
    assert (drawn.noise_sd < 0.98 * found.spread).all()


def test_every_mode_adds_the_noise_where_its_formula_has_a_variance() -> None:
    rng = np.random.default_rng(4)
    samples, noise = rng.normal([2.0, 3.0], [0.2, 0.3], (30, 5, 2)), rng.uniform(0.2, 1, (5, 2))
    var = samples.var(axis=0, ddof=1)
    pooled = np.repeat((noise**2).mean(axis=1, keepdims=True), 2, axis=1)
    added = {"mc": noise**2, "s3": noise**2, "s4": noise**2, "s5": noise**2, "s1": pooled, "s2": pooled, "s2b": pooled}
    added["s6"] = (var + noise**2).max(axis=1, keepdims=True) - var.max(axis=1, keepdims=True)
    added["s7"] = np.zeros((5, 2))
    assert added.keys() == set(MODES)
    for mode, more in added.items():
        plain, noisy = (symmetric_spread(samples, mode, fusion=FUSION, noise_sd=sd) for sd in (None, noise))  # type: ignore[arg-type]
        assert noisy.spread**2 == pytest.approx(plain.spread**2 + more)
        assert np.array_equal(noisy.centre, plain.centre)
        assert noisy.cut_with_other == plain.cut_with_other
        silent = symmetric_spread(samples, mode, fusion=FUSION, noise_sd=np.zeros((5, 2)))  # type: ignore[arg-type]
        assert np.array_equal(silent.spread, plain.spread)


def test_noise_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(3, 2\)"):
        symmetric_spread(np.ones((4, 5, 2)), "mc", noise_sd=np.ones((3, 2)))


def test_the_spread_grows_with_the_prediction(patches: np.ndarray) -> None:
    """One SD of log SBR for all: the noise is proportional to the SBR."""
    model = a_model(head_dropout=0.0)
    for side in model.sides:
        model.net(side).head.weight.data[1].zero_()  # type: ignore[union-attr]
    drawn = draw_predictions(model, patches)
    order = np.argsort(drawn.point, axis=None)
    assert np.ptp(drawn.point) > 0.1
    assert (np.diff(drawn.noise_sd.ravel()[order]) > 0).all()  # type: ignore[union-attr]
    _, sd = distributions(model, patches, 0, 1)
    assert drawn.noise_sd / drawn.point == pytest.approx(np.sqrt(np.expm1(sd[0] ** 2)), rel=1e-5)


def test_exchanged_sides_exchange_samples_and_noise(patches: np.ndarray) -> None:
    model = a_model(head_dropout=0.3)
    here, there = (draw_predictions(model, p, samples=5) for p in (patches, mirror_pair(patches)))
    assert there.samples == pytest.approx(here.samples[:, :, ::-1], rel=1e-4)
    assert there.noise_sd == pytest.approx(here.noise_sd[:, ::-1], rel=1e-4)  # type: ignore[index]


def test_neither_company_nor_chunks_matter(patches: np.ndarray) -> None:
    model = a_model(head_dropout=0.3)
    together = draw_predictions(model, patches, samples=5, seed=2)
    for other in (
        draw_predictions(model, patches, samples=5, seed=2, chunk=1),
        Draws.joined([draw_predictions(model, patches[i : i + 2], samples=5, seed=2) for i in (0, 2)]),
    ):
        for name in ("point", "samples", "noise_sd"):
            assert getattr(other, name) == pytest.approx(getattr(together, name), rel=1e-5)


def test_a_model_of_one_number_states_no_noise(patches: np.ndarray) -> None:
    model = a_model(output="sbr", head_dropout=0.3)
    drawn = draw_predictions(model, patches, samples=5, seed=2)
    point, samples = predict_with_samples(model, patches, samples=5, seed=2)
    assert drawn.noise_sd is None
    assert Draws.joined([drawn, drawn]).noise_sd is None
    assert np.array_equal(drawn.point, point)
    assert np.array_equal(drawn.samples, samples)
    silent = a_model(output="sbr", head_dropout=0.0)
    assert not has_spread(silent)
    with pytest.raises(CalibrationError, match="no dropout"):
        draw_predictions(silent, patches)


def test_without_dropout_the_noise_alone_is_the_spread(patches: np.ndarray) -> None:
    model = a_model(head_dropout=0.0)
    assert has_spread(model)
    drawn = draw_predictions(model, patches, samples=7)
    assert drawn.samples.shape == (7, 4, 2)
    assert (drawn.samples == drawn.point).all()
    assert symmetric_spread(drawn.samples, "mc", noise_sd=drawn.noise_sd).spread == pytest.approx(drawn.noise_sd)
    with pytest.raises(CalibrationError, match="no dropout"):  # there are no thinned networks to sample
        mc_samples(model, patches)


def test_without_dropout_there_is_still_an_interval(
    make_cohort: Callable[..., PackedCohort], tmp_path: Path, patches: np.ndarray
) -> None:
    cohort = make_cohort(24, seed=50)
    card = {"training": {"kind": "phantom"}}
    calibrate(save_model(tmp_path / "m", a_model(head_dropout=0.0), card), cohort, mode="mc")
    loaded = load_model(tmp_path / "m")
    k = load_calibration(loaded).multiplier(0.95)  # type: ignore[union-attr]
    pairs = [NigralPair.from_arrays(*pair) for pair in patches]
    drawn = draw_predictions(loaded.model, np.stack([pair.patches for pair in pairs]))
    for i, prediction in enumerate(predict_pairs(loaded, pairs)):
        assert "no-interval" not in {flag.code for flag in prediction.flags}
        for j, side in enumerate((prediction.right, prediction.left)):
            assert side is not None
            assert side.interval is not None
            assert side.sd == pytest.approx(drawn.noise_sd[i, j])  # type: ignore[index]
            high = drawn.point[i, j] + k[j] * drawn.noise_sd[i, j]  # type: ignore[index]
            assert side.interval[1] == pytest.approx(high, rel=1e-5)


def test_an_uncalibrated_one_shows_its_raw_spread(tmp_path: Path, patches: np.ndarray) -> None:
    loaded = load_model(save_model(tmp_path / "m", a_model(head_dropout=0.3), {}))
    (prediction,) = predict_pairs(loaded, [NigralPair.from_arrays(*patches[0])], samples=9)
    drawn = draw_predictions(loaded.model, patches[:1], samples=9)
    expected = symmetric_spread(drawn.samples, "s1", noise_sd=drawn.noise_sd).spread
    assert prediction.left is not None
    assert prediction.left.sd == pytest.approx(expected[0, 1], rel=1e-5)
    assert prediction.left.interval is None


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PackedCohort:
    """Four patients calibrate in this one; enough for 60 %."""
    return write_cohort(tmp_path_factory.mktemp("cohort") / "packed", 60, kind="phantom")


PLAIN = {"model": "sym-vgg-log", "widths": (2, 2, 2, 2), "epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "seed": 3}


@pytest.fixture(scope="module")
def run(cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(cohort, tmp_path_factory.mktemp("run") / "run", make_config(changes=PLAIN))


def test_the_whole_way(cohort: PackedCohort, run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run, tmp_path / "run")
    calibration = calibrate(run, cohort, samples=10, level=0.6)
    loaded = load_model(run)
    assert loaded.spec.output == "log-normal"
    rows = Split.load(run / "split.json").rows(cohort, "calibration")
    drawn = draw_predictions(loaded.model, np.asarray(cohort.patches[rows]), samples=10)
    spread = symmetric_spread(drawn.samples, "s1", noise_sd=drawn.noise_sd)
    assert calibration.scores == pytest.approx(spread.score(cohort.sbr[rows]).T, rel=1e-4)

    (prediction,) = predict_pairs(loaded, [NigralPair.from_arrays(*cohort.read(0))], level=0.6)
    alone = draw_predictions(loaded.model, cohort.read(0)[None], samples=10)
    low, high = calibration.spread(alone, SCALE).interval(calibration.multiplier(0.6))
    assert prediction.right is not None
    assert prediction.right.interval == pytest.approx((max(low[0, 0], 0), high[0, 0]), rel=1e-5)

    result = evaluate(run, cohort, level=0.6, resamples=100)
    tested = Split.load(run / "split.json").rows(cohort, "test")
    own = predict_sbr(loaded.model, np.asarray(cohort.patches[tested]))
    assert result.model.predicted == pytest.approx(own, rel=1e-5)
    assert ["own noise" in trace.title for trace in result.model.traces] == [True, True]
    assert len(result.model.intervals) == 1


def test_the_first_step_starts_from_the_training_labels(cohort: PackedCohort, tmp_path: Path) -> None:
    """A learning rate of nearly nothing leaves the output layer where it began."""
    still = {**PLAIN, "epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "average_decay": 0.0}
    still |= {"warm_up": 0.0, "feature_weight": 0.0, "unit_activations": False, "output_penalty": 0.0}
    run = train(cohort, tmp_path / "run", make_config(changes=still))
    logs = np.log(cohort.sbr[Split.load(run / "split.json").rows(cohort, "train")] / SCALE)
    bias = load_model(run).model.nets["both"].head.bias.detach()  # type: ignore[union-attr]
    assert float(bias[0]) == pytest.approx(logs.mean(), abs=1e-5)
    assert 0.02 + 1.48 * float(torch.sigmoid(bias[1])) == pytest.approx(logs.std(), abs=1e-5)


def test_labels_without_a_logarithm_are_refused_for_this_head_only(cohort: PackedCohort, tmp_path: Path) -> None:
    split = make_split(cohort, 1)

    def with_zero(part: str) -> PackedCohort:
        zeroed = getattr(split, part)[0]
        lower = lambda fields: fields.update(sbr_left=0.0) if fields["participant_id"] == zeroed else None  # noqa: E731
        return write_cohort(tmp_path / part, 60, kind="phantom", change=lower)

    once = {**PLAIN, "epochs": 1}
    trained_on = with_zero("train")
    with pytest.raises(CohortError, match="1 training labels of SBR 0 or below"):
        train(trained_on, tmp_path / "refused", make_config(changes=once), split=split)
    assert not (tmp_path / "refused").exists()
    train(trained_on, tmp_path / "plain", make_config(changes={**once, "model": "sym-vgg-plus"}), split=split)
    train(with_zero("test"), tmp_path / "tested", make_config(changes=once), split=split)  # nobody takes that log
