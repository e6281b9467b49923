"""The distance from healthy persons of the same age, against statsmodels' prediction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nigradat.anatomy import Side
from nigradat.errors import ConfigError, ImageError
from nigradat.spect.normals import read_normals, z_scores
from nigradat.spect.registration import Alignment
from nigradat.spect.sbr import PartSbr, SbrMeasurement, SbrRecipe

SCALE = SbrRecipe().describe()
FOUND = SbrMeasurement(
    SbrRecipe(),
    (PartSbr("striatum", 1.2, 2.4, (10, 10)), PartSbr("caudate", 1.5, 2.6, (4, 4))),
    30.0,
    "own",
    Alignment(np.eye(4)),
)


@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    age = rng.uniform(40, 80, 25)
    return {"age": age} | {f"striatum_{side.value}": 3.5 - 0.015 * age + rng.normal(0, 0.25, age.size) for side in Side}


@pytest.fixture
def table(tmp_path, people):
    def write(rows=None, scale=SCALE, **columns):
        used = people | columns
        lines = ["\t".join(["scale", *used])]
        for i in range(rows or len(people["age"])):
            lines.append(
                "\t".join([scale if isinstance(scale, str) else scale[i], *(f"{v[i]}" for v in used.values())])
            )
        path = tmp_path / "healthy.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("age", [40.0, 61.0, 80.0])
def test_scores_are_those_of_a_regression(table, people, age):
    statsmodels = pytest.importorskip("statsmodels.api")
    scores = z_scores(FOUND, read_normals(table()), age)
    for side, z in zip(Side, scores["striatum"], strict=True):
        fitted = statsmodels.OLS(people[f"striatum_{side.value}"], statsmodels.add_constant(people["age"])).fit()
        predicted = fitted.get_prediction([[1.0, age]])
        spread = np.sqrt(predicted.var_pred_mean[0] + fitted.mse_resid)
        assert z == pytest.approx((FOUND["striatum"][side] - predicted.predicted_mean[0]) / spread)
    assert scores["striatum"][0] < scores["striatum"][1]
    assert scores["caudate"] == (None, None)


def test_healthy_persons_score_about_zero(table, people):
    normals = read_normals(table())
    z = [
        normals.z_score("striatum", Side.RIGHT, sbr, age)
        for sbr, age in zip(people["striatum_right"], people["age"], strict=True)
    ]
    assert abs(np.mean(z)) < 0.05
    assert 0.8 < np.std(z) < 1.1


def test_scales_are_not_mixed(table):
    with pytest.raises(ConfigError, match=r"an SBR by 'hottest.*' and healthy persons by 'voi-mean"):
        z_scores(dataclasses.replace(FOUND, recipe=SbrRecipe("hottest")), read_normals(table()), 60)
    with pytest.raises(ConfigError, match="SBR on 2 scales"):
        read_normals(table(scale=[SCALE] * 24 + ["other"]))


def test_an_age_beyond_theirs_is_refused(table):
    with pytest.raises(ConfigError, match="an age of 20 years for healthy persons of 4"):
        z_scores(FOUND, read_normals(table()), 20)


def test_an_unusable_table_is_refused(table, tmp_path):
    with pytest.raises(ConfigError, match="9 healthy persons"):
        read_normals(table(rows=9))
    with pytest.raises(ConfigError, match="of different ages"):
        read_normals(table(age=np.full(25, 60.0)))
    with pytest.raises(ImageError, match="no finite number"):
        read_normals(table(striatum_left=np.full(25, np.nan)))
    with pytest.raises(ImageError, match="columns age, scale"):
        read_normals(table(age=["old"] * 25))
    with pytest.raises(ImageError, match="columns age, scale"):
        read_normals(tmp_path / "none.tsv")
    (tmp_path / "bare.tsv").write_text("age\tscale\n" + f"60\t{SCALE}\n" * 12)
    with pytest.raises(ConfigError, match="0 columns of SBR"):
        read_normals(tmp_path / "bare.tsv")
