"""Features of a cohort: the planes, the neighbours and their scores against truths of their own, and the verb."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nigradat.anatomy import Side, mirror_pair
from nigradat.cli import main
from nigradat.errors import CohortError, ConfigError
from nigradat.explain.embedding import (
    SCORES,
    FeatureMaps,
    find_neighbours,
    map_features,
    neighbour_scores,
    pca,
    tower_features,
    tsne,
)
from nigradat.explain.embedding_report import neighbour_table, write_features
from nigradat.io.pack import PackedCohort
from nigradat.metrics.error import mae, pearson_r
from nigradat.models.weights import load_model
from nigradat.training.split import make_split
from nigradat.uncertainty.mc_dropout import predict_sbr
from small_runs import write_cohort, write_run


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> PackedCohort:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "cohort", 24, kind="phantom", twice=2)


@pytest.fixture(scope="module")
def runs(cohort, tmp_path_factory) -> dict[str, Path]:
    """One network for both sides, one for each, one for the left; of one split."""
    base, split = tmp_path_factory.mktemp("runs"), make_split(cohort, seed=1)
    for i, method in enumerate(("sym-vgg-plus", "vgg-small", "vgg-left")):
        write_run(base / method, cohort, method=method, seed=i, split=split)
    return {folder.name: folder for folder in base.iterdir()}


@pytest.fixture(scope="module")
def found(cohort, runs) -> FeatureMaps:
    return map_features(cohort, list(runs.values()), subset="all", neighbours=3, perplexity=5)


# -- Features -----------------------------------------------------------------------------------------------------


def test_the_head_makes_the_prediction_of_the_features(cohort, runs):
    loaded = load_model(runs["vgg-small"])
    patches = np.asarray(cohort.patches[:5])
    features = tower_features(loaded, patches, chunk=2)
    assert features.shape == (5, 2, loaded.model.net(Side.LEFT).tower.n_features)
    sbr = predict_sbr(loaded.model, patches)
    for side in Side:
        head = loaded.model.net(side).head
        made = features[:, side.index] @ head.weight.detach().numpy()[0] + head.bias.item()
        np.testing.assert_allclose(made * 6.84, sbr[:, side.index], rtol=1e-5)


def test_features_are_those_of_the_canonical_view(cohort, runs):
    loaded, patches = load_model(runs["sym-vgg-plus"]), np.asarray(cohort.patches[:3])
    features = tower_features(loaded, patches)
    np.testing.assert_allclose(tower_features(loaded, mirror_pair(patches)), features[:, ::-1], rtol=1e-5, atol=1e-6)
    one_by_one = tower_features(loaded, (patch for patch in patches), chunk=1)
    np.testing.assert_allclose(one_by_one, features, rtol=1e-5, atol=1e-6)
    assert np.isnan(tower_features(load_model(runs["vgg-left"]), patches)[:, Side.RIGHT.index]).all()
    for wrong in (patches[0], patches[:, :1], patches[:0]):
        with pytest.raises(ConfigError):
            tower_features(loaded, wrong)


# -- Planes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 7), (6, 40)])
def test_pca_equals_scikit_learn(shape):
    decomposition = pytest.importorskip("sklearn.decomposition")
    points = np.random.default_rng(1).normal(size=shape) @ np.diag(np.arange(1.0, shape[1] + 1))
    ours, explained = pca(points, 3)
    reference = decomposition.PCA(3).fit(points)
    theirs = reference.transform(points)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    np.testing.assert_allclose(explained, reference.explained_variance_ratio_, rtol=1e-9)
    assert (ours.max(axis=0) >= -ours.min(axis=0)).all()


def test_tsne_keeps_groups_together_and_obeys_its_seed():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.normal(size=(20, 30)), rng.normal(size=(20, 30)) + 20])
    plane = tsne(points, perplexity=6, seed=1)
    assert np.array_equal(plane, tsne(points, perplexity=6, seed=1))
    distance = np.linalg.norm(plane[:, None] - plane, axis=2) + np.diag(np.full(40, np.inf))
    assert ((distance.argmin(axis=1) < 20) == (np.arange(40) < 20)).all()
    with pytest.raises(ConfigError, match="perplexity of 40 for 40 sides"):
        tsne(points, perplexity=40)


# -- Neighbours ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_neighbours_are_those_of_a_plain_search(seed, k):
    rng = np.random.default_rng(seed)
    features, sbr = rng.normal(size=(9, 2, 3)) + 100, rng.uniform(1, 4, (9, 2))
    patients = [*"aabcddefg"]
    found = find_neighbours(features, sbr, patients, k)
    for i, side in itertools.product(range(9), (0, 1)):
        others = [j for j in range(9) if patients[j] != patients[i]]
        nearest = sorted(others, key=lambda j: np.linalg.norm(features[i, side] - features[j, side]))[:k]
        assert found.predicted[i, side] == pytest.approx(sbr[nearest, side].mean())
        assert found.difference[i, side] == pytest.approx(np.abs(sbr[nearest, side] - sbr[i, side]).mean())
        assert found.by_chance[i, side] == pytest.approx(np.abs(sbr[others, side] - sbr[i, side]).mean())


def test_chance_is_zero_exactly():
    """Over all ways to hand five labels to five patients the agreement of fixed neighbours is 0 on average."""
    features = np.random.default_rng(4).normal(size=(5, 1, 2)).repeat(2, axis=1)
    agreements = []
    for labels in itertools.permutations([0.5, 1.0, 2.5, 3.0, 6.0]):
        found = find_neighbours(features, np.array(labels)[:, None].repeat(2, axis=1), [*"abcde"], 2)
        agreements.append(1 - found.difference.mean() / found.by_chance.mean())
    assert np.mean(agreements) == pytest.approx(0, abs=1e-12)
    assert np.ptp(agreements) > 0.3


def test_scores_are_the_metrics_of_the_neighbours():
    rng = np.random.default_rng(6)
    sbr = rng.uniform(0.5, 5, (60, 2))
    features = (sbr + rng.normal(0, 0.3, (60, 2)))[..., None] * np.ones(4)
    patients, own = [f"p{i}" for i in range(60)], sbr + rng.normal(0, 0.5, (60, 2))
    found = find_neighbours(features, sbr, patients, 4)
    scores = neighbour_scores(found, sbr, own, patients, seed=3)
    assert tuple(scores) == SCORES
    for side in Side:
        y, p, q = (v[:, side.index] for v in (sbr, found.predicted, own))
        truth = {"pearson_r": pearson_r(y, p), "mae": mae(y, p), "own_pearson_r": pearson_r(y, q), "own_mae": mae(y, q)}
        truth["agreement"] = 1 - found.difference[:, side.index].mean() / found.by_chance[:, side.index].mean()
        for name, value in truth.items():
            estimate = scores[name][side]
            assert estimate.value == pytest.approx(float(value))
            assert estimate.low < estimate.value < estimate.high
    assert scores["agreement"].right.value > 0.6
    assert scores["mae"].average.value == pytest.approx((scores["mae"].right.value + scores["mae"].left.value) / 2)


def test_features_that_know_nothing_agree_as_chance_does():
    rng = np.random.default_rng(8)
    sbr, patients = rng.uniform(0.5, 5, (80, 2)), [f"p{i // 2}" for i in range(80)]
    found = find_neighbours(rng.normal(size=(80, 2, 5)), sbr, patients, 10)
    agreement = neighbour_scores(found, sbr, sbr, patients)["agreement"]
    assert agreement.right.n_patients == 40
    assert agreement.right.low < 0 < agreement.right.high


def test_impossible_numbers_of_neighbours_are_refused():
    features, sbr = np.zeros((4, 2, 3)), np.ones((4, 2))
    for k in (0, 3):
        with pytest.raises(ConfigError, match=f"{k} neighbours among 4 visits.*1 to 2"):
            find_neighbours(features, sbr, [*"aabc"], k)


# -- A cohort -----------------------------------------------------------------------------------------------------


def test_models_side_by_side(found, cohort, runs):
    shared, separate, left = (
        next(m for m in found.models if m.name == name) for name in ("sym-vgg-plus", "vgg-small", "vgg-left")
    )
    assert [m.joint for m in (shared, separate, left)] == [True, False, False]
    assert len(found.participants) == len(cohort) == 26
    assert np.array_equal(shared.explained[0], shared.explained[1])
    assert not np.array_equal(separate.explained[0], separate.explained[1])
    for model in (shared, separate):
        assert np.isfinite(model.tsne).all()
        assert all(score.average is not None for score in model.scores.values())
    assert np.isnan(left.tsne[:, Side.RIGHT.index]).all()
    assert np.isfinite(left.tsne[:, Side.LEFT.index]).all()
    assert left.scores["mae"].right is None
    assert left.scores["mae"].average is None
    assert set(found.parts) == {"train", "stop", "calibration", "test"}
    own_answer = predict_sbr(load_model(runs["sym-vgg-plus"]).model, np.asarray(cohort.patches))
    np.testing.assert_allclose(shared.predicted, own_answer, rtol=1e-4)
    others = [[cohort.sbr[[q != p for q in cohort.patient_ids], i].mean() for i in (0, 1)] for p in cohort.patient_ids]
    assert found.chance_mae.left == pytest.approx(np.abs(np.array(others) - cohort.sbr)[:, 1].mean())


def test_a_part_and_a_limit(cohort, runs):
    model = load_model(runs["sym-vgg-plus"])
    part = map_features(cohort, [model], subset="train", neighbours=2, perplexity=3, limit=7)
    assert part.parts == ("train",) * 7
    assert part.available > 7
    assert f"7 visits (evenly spaced among the {part.available}" in neighbour_table(part).notes[-1]
    told: list[tuple[int, int]] = []
    map_features(
        cohort, [model] * 2, subset="all", limit=4, neighbours=1, perplexity=2, progress=lambda *d: told.append(d)
    )
    assert told == [(i, 8) for i in range(1, 9)]


def test_the_folder(found, tmp_path):
    pytest.importorskip("matplotlib")
    found = replace(found, models=tuple(m for m in found.models if m.name != "sym-vgg-plus"))
    out = write_features(tmp_path / "out", found)
    names = {"comparison.png", "comparison.svg", "neighbours.csv", "neighbours.json"}
    for model in found.models:
        names |= {f"coordinates-{model.name}.tsv", f"features-{model.name}.png", f"features-{model.name}.svg"}
    assert {path.name for path in out.iterdir()} == names
    with (out / "coordinates-vgg-left.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    left = next(m for m in found.models if m.name == "vgg-left")
    assert {row["side"] for row in rows} == {"left"}
    assert [row["participant_id"] for row in rows] == [p.participant_id for p in found.participants]
    assert [float(row["tsne_2"]) for row in rows] == pytest.approx(list(left.tsne[:, 1, 1]), rel=1e-5)
    for name in ("neighbours.csv", "coordinates-vgg-left.tsv", "comparison.svg", "features-vgg-small.svg"):
        assert "digital phantom, not patients" in (out / name).read_text()
    data = json.loads((out / "neighbours.json").read_text())
    assert data["label"] == "digital phantom, not patients"
    assert [m["name"] for m in data["models"]] == [m.name for m in found.models]


def test_equal_names_are_told_apart(cohort, runs):
    model = load_model(runs["sym-vgg-plus"])
    two = map_features(cohort, [model, model], subset="all", limit=5, neighbours=1, perplexity=2)
    assert [m.name for m in two.models] == ["sym-vgg-plus-1", "sym-vgg-plus-2"]
    assert len({m.title for m in two.models}) == 2


def test_what_cannot_be_compared_is_refused(cohort, runs, tmp_path):
    own = load_model(runs["sym-vgg-plus"])
    other, _ = write_run(tmp_path / "other", cohort, split=make_split(cohort, seed=2))
    with pytest.raises(CohortError, match=r"the part 'train' of .*--subset all"):
        map_features(cohort, [own, other], subset="train", neighbours=1, perplexity=2)
    assert set(map_features(cohort, [own, other], subset="all", limit=4, neighbours=1, perplexity=2).parts) == {"n/a"}
    for wrong, words in (
        ({"models": []}, "no model"),
        ({"subset": "half"}, "the subset 'half'.*all"),
        ({"subset": "all", "neighbours": 25}, "--neighbours 25.*1 to 24"),
        ({"subset": "all", "perplexity": 26}, "--perplexity 26 with 26 visits"),
    ):
        with pytest.raises(ConfigError, match=words):
            map_features(cohort, **({"models": [own]} | wrong))


# -- The verb -----------------------------------------------------------------------------------------------------


def test_the_verb(cohort, runs, tmp_path, capsys):
    words = ["features", cohort.folder, tmp_path / "out", "--model", runs["vgg-small"], "--subset", "all"]
    assert main([*map(str, words), "--neighbours", "3", "--perplexity", "5"]) == 0
    said = capsys.readouterr().out
    assert "digital phantom, not patients" in said
    assert "VGG-small, average" in said
    assert (tmp_path / "out" / "neighbours.csv").is_file()
    assert main([*map(str, words), "--neighbours", "3"]) == 2
    assert "already holds" in capsys.readouterr().err


def test_a_cohort_without_labels_is_refused(runs, tmp_path, capsys):
    unlabelled = write_cohort(
        tmp_path / "cohort", 6, change=lambda fields: fields.update(sbr_right=None, sbr_left=None)
    )
    words = ["features", unlabelled.folder, tmp_path / "out", "--model", runs["sym-vgg-plus"]]
    assert main([*map(str, words)]) == 2
    said = capsys.readouterr()
    assert "6 of 6 visits" in said.err
    assert "have no SBR label" in said.err
    assert not said.out
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]
