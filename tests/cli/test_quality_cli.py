"""``fit-quality``, ``check`` and ``predict --abstain`` from files to what is printed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def fitted(call, small_cohort, small_run, tmp_path_factory) -> Path:
    run = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("fitted") / "run"))
    answer = call("fit-quality", run, small_cohort.folder, "--json").done().json
    # 2 held-out patients cannot promise 5 %: the rate is the least that they can
    assert (answer["reference_patients"], answer["held_out_patients"]) == (19, 2)
    assert answer["alarm"] == pytest.approx(1 / 3)
    return run


def test_fit_quality_says_what_the_flags_promise(call, fitted, small_cohort):
    out = call("fit-quality", fitted, small_cohort.folder, "--alarm", "0.5").done().out
    assert "Promise: at most 50 % of new pairs" in out


def test_check_prints_flags_and_json(call, fitted, small_cohort):
    plain = call("check", small_cohort.folder, "--model", fitted).done()
    assert f"of {len(small_cohort)} visits are unusual" in plain.out
    assert "mirrored as a whole cannot be told" in plain.out
    answer = call("check", small_cohort.folder, "--model", fitted, "--json").done().json
    assert answer["visits"] == len(answer["patients"]) == len(small_cohort)
    assert answer["reference"]["kind"] == "phantom"
    for patient in answer["patients"]:
        assert (patient["p"] <= answer["alarm"] + 1e-9) == bool(patient["flags"])
        assert set(patient["measures"]["centring"]) == {"right", "left"}


def test_predict_withholds_and_prints_the_yield(call, fitted, small_cohort):
    unusual = call("check", small_cohort.folder, "--model", fitted, "--json").done().json["unusual"]
    asked = ("predict", small_cohort.folder, "--model", fitted, "--abstain", "flagged")
    n = len(small_cohort)
    assert f"Answered {n - unusual} of {n} visits (--abstain flagged)." in call(*asked).done().out
    answer = call(*asked, "--json").done().json
    assert answer["yield"] == {"visits": n, "answered": n - unusual, "policy": "flagged"}
    withheld = [p for p in answer["patients"] if any(f["code"] == "abstained" for f in p["flags"])]
    assert len(withheld) == unusual
    assert all(p["right"] is None and p["left"] is None for p in withheld)


def test_a_promise_is_not_about_the_answered_alone(call, fitted, small_cohort):
    call("calibrate", fitted, small_cohort.folder, "--level", "0.5").done()
    asked = ("predict", small_cohort.folder, "--model", fitted, "--level", "0.5", "--json")
    plain, chosen = (call(*asked, *more).done().json["interval"]["promise"] for more in ((), ("--abstain", "flagged")))
    assert chosen.startswith(plain)
    assert "withheld included" in chosen.removeprefix(plain)


def test_what_is_refused(call, fitted, small_run, small_cohort, tmp_path):
    cohort = small_cohort.folder
    call("check", cohort, "--model", small_run).refused("quality.json", "nigradat fit-quality")
    call("check", "--model", fitted).refused("no input")
    call("predict", cohort, "--model", small_run, "--abstain", "flagged").refused("nigradat fit-quality")
    call("predict", cohort, "--model", fitted, "--abstain", "0.001").refused("held-out patients", "at least 999")
    call("fit-quality", tmp_path, cohort).refused("card.json")
    call("fit-quality", small_run, tmp_path).refused("no packed cohort")
    call("stress-test", small_run, tmp_path / "out").refused("nigradat fit-quality")
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("")
    call("stress-test", fitted, used).refused("already holds mine.txt")
    assert not (tmp_path / "out").exists()
    assert not (small_run / "quality.json").exists()
