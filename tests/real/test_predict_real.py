"""The real published pair through the command line: the authors' net, and a small phantom-trained model."""

from __future__ import annotations

import json

import pytest

from nigradat.cli import main
from nigradat.io.files import sha256_of


@pytest.fixture(scope="module")
def published(shared_data):
    return shared_data / "published"


@pytest.fixture(scope="module")
def authors_net(published, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "model"
    assert main(["import-published", str(published / "net_vgg_left"), str(out)]) == 0
    return out


def ask(capsys, *arguments):
    capsys.readouterr()
    assert main(["predict", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_authors_net_gives_tensorflows_value(capsys, published, authors_net):
    source = published / "nigral_patch_example.mat"
    before = sha256_of(source)
    data = json.loads(ask(capsys, source, "--model", authors_net, "--json"))
    (patient,) = data["patients"]
    assert patient["left"]["sbr"] == pytest.approx(1.0205, abs=5e-5)
    assert patient["left"]["interval"] is None
    assert patient["left"]["level"] is None
    assert patient["left"]["sd"] is None
    assert patient["right"] is None
    flags = {flag["code"]: flag for flag in patient["flags"]}
    assert {"no-interval", "no-answer", "nominal-affine"} <= set(flags)
    assert flags["no-answer"]["side"] == "right"
    assert "phantom-trained" not in flags
    assert data["model"]["licence"].startswith("GPL-3.0")
    assert sha256_of(source) == before


def test_the_table_shows_the_value_and_invents_no_interval(capsys, published, authors_net):
    out = ask(capsys, published / "nigral_patch_example.mat", "--model", authors_net)
    (row,) = [line for line in out.splitlines() if line.startswith("nigral_patch_example")]
    assert row.split() == ["nigral_patch_example", "-", "-", "-", "1.0205", "-", "-"]
    assert "no interval" in out
    assert "does not answer for the right side" in out


def test_a_phantom_trained_model_answers_for_both_sides_and_is_marked(capsys, published, make_cohort, tmp_path):
    cohort, run = make_cohort(24).folder, tmp_path / "run"
    assert main(["train", str(cohort), str(run), "--widths", "2,2,2,2", "--epochs", "1"]) == 0
    assert main(["calibrate", str(run), str(cohort), "--level", "0.5"]) == 0
    source = published / "nigral_patch_example.mat"
    data = json.loads(ask(capsys, source, "--model", run, "--level", 0.5, "--json"))
    (patient,) = data["patients"]
    for side in ("right", "left"):
        low, high = patient[side]["interval"]
        assert 0 <= low < high
        assert patient[side]["level"] == 0.5
        assert patient[side]["sd"] > 0
    assert {"phantom-trained", "nominal-affine"} <= {flag["code"] for flag in patient["flags"]}
    assert "WARNING: The model was trained on a phantom" in ask(capsys, source, "--model", run, "--level", 0.5)
