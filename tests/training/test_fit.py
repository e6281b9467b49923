"""Training from a cohort to a model folder."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nigradat.errors import CalibrationError, CohortError, ConfigError, NigradatError, OutputError, WeightsError
from nigradat.evaluation.evaluate import evaluate
from nigradat.io.manifest import Participant
from nigradat.io.pack import PackedCohort, load_cohort
from nigradat.models.symmetric import build
from nigradat.models.weights import load_model
from nigradat.training.config import Hardware, TrainConfig, make_config
from nigradat.training.fit import fingerprints, name_hash, train
from nigradat.training.module import FitModule
from nigradat.training.split import Split, make_split
from nigradat.uncertainty.mc_dropout import predict_sbr


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def tiny(**changes: object) -> TrainConfig:
    """The configuration of ``small_run``, changed."""
    plain = {"widths": (2, 2, 2, 2), "epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "seed": 3}
    return make_config(changes={**plain, **changes})


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).model.state_dict()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def log_of(folder: Path) -> list[dict[str, float]]:
    with (folder / "log.csv").open() as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def test_same_seed_same_weights_bit_for_bit(small_cohort: PackedCohort, small_run: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # torch's own random state plays no part
    again = train(small_cohort.folder, tmp_path / "again", tiny())
    assert equal(state(again), state(small_run))
    assert (again / "model.safetensors").read_bytes() == (small_run / "model.safetensors").read_bytes()
    assert not equal(state(train(small_cohort, tmp_path / "other", tiny(seed=4))), state(small_run))


def test_the_run_folder_explains_itself(small_cohort: PackedCohort, small_run: Path) -> None:
    names = {p.name for p in small_run.iterdir()}
    assert names == {"config.json", "split.json", "log.csv", "model.safetensors", "card.json"}
    split = Split.load(small_run / "split.json")
    assert split == make_split(small_cohort, 3)
    card = load_model(small_run).card
    training = card["training"]
    assert training["kind"] == "phantom"
    assert training["cohort_sha256"] == small_cohort.sha256
    assert training["seen_names"] == sorted(name_hash(p) for p in {*split.train, *split.stop})
    used = np.concatenate([split.rows(small_cohort, "train"), split.rows(small_cohort, "stop")])
    assert training["seen_fingerprints"] == sorted(fingerprints(small_cohort, used))
    assert card["config"] == tiny().to_json() == json.loads((small_run / "config.json").read_text())["config"]
    assert card["sbr_scale"]["max"] == pytest.approx(small_cohort.sbr.max())


def test_the_best_epochs_weights_are_kept_and_patience_stops(small_cohort: PackedCohort, tmp_path: Path) -> None:
    change = {
        "learning_rate": 0.005,
        "schedule": "constant",
        "average_decay": 0.3,
        "warm_up": 0.0,
        "output_penalty": 0.0,
    }
    config = tiny(epochs=40, patience=2, **change)
    reports: list[tuple[int, int, int]] = []
    run = train(
        small_cohort, tmp_path / "run", config, report=lambda h, best, epochs: reports.append((len(h), best, epochs))
    )
    log = log_of(run)
    errors = [row["stop_mse"] for row in log]
    best = int(np.argmin(errors))
    assert len(log) < 40
    assert len(log) - 1 - best == 2
    for end in range(1, len(log)):  # never before has patience ended
        assert end - 1 - int(np.argmin(errors[:end])) < 2
    assert reports == [(i + 1, int(np.argmin(errors[: i + 1])), 40) for i in range(len(log))]
    assert load_model(run).card["training"]["best_epoch"] == best
    assert_errors(run, small_cohort, log[best])


def assert_errors(run: Path, cohort: PackedCohort, said: dict[str, float]) -> None:
    """The stopping patients' errors are what is said of them."""
    rows = Split.load(run / "split.json").rows(cohort, "stop")
    predicted, truth = predict_sbr(load_model(run).model, np.asarray(cohort.patches[rows])), cohort.sbr[rows]
    assert np.mean((predicted - truth) ** 2) == pytest.approx(said["stop_mse"], rel=1e-4)
    assert np.mean(np.abs(predicted - truth)) == pytest.approx(said["stop_mae"], rel=1e-4)
    assert np.corrcoef(predicted.ravel(), truth.ravel())[0, 1] == pytest.approx(said["stop_r"], abs=1e-3)


def test_the_last_step_changes_the_output_layer_and_the_card_says_its_errors(
    small_cohort: PackedCohort, tmp_path: Path
) -> None:
    left, solved = (train(small_cohort, tmp_path / f"{p}", tiny(output_penalty=p)) for p in (0.0, 1.0))
    before, after = state(left), state(solved)
    assert {k for k in before if not torch.equal(before[k], after[k])} == {
        "nets.both.head.weight",
        "nets.both.head.bias",
    }
    for run in (left, solved):
        assert_errors(run, small_cohort, load_model(run).card["metrics"])


def test_it_learns(make_cohort, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A bright block that grows with the SBR is found: far better than predicting the mean."""
    cohort = make_cohort(50, seed=5)
    still = {"shift_voxels": 0, "shift_slices": 0, "rotation_deg": 0, "scale": 0, "noise": 0, "gain": 0}
    config = make_config(
        changes={
            "widths": (4, 8, 8, 8),
            "epochs": 10,
            "batch_size": 4,
            "learning_rate": 0.003,
            "weight_decay": 0.01,
            "average_decay": 0.0,
            "head_dropout": 0.0,
            "symmetry_weight": 0,
            "warm_up": 0.0,  # nothing to be named in a block
            "feature_weight": 0.0,
            "unit_activations": False,
            "augmentation": still,
        }
    )
    run = train(cohort, tmp_path / "run", config)
    rows = Split.load(run / "split.json").rows(cohort, "test")
    predicted, truth = predict_sbr(load_model(run).model, np.asarray(cohort.patches[rows])), cohort.sbr[rows]
    assert np.mean((predicted - truth) ** 2) < 0.5 * np.var(truth)


def test_separate_regressors_are_both_trained(small_cohort: PackedCohort, tmp_path: Path) -> None:
    config = tiny(model="vgg-small", epochs=1, learning_rate=0.01)
    start, end = build(config.spec, config.seed).state_dict(), state(train(small_cohort, tmp_path / "run", config))
    for side in ("right", "left"):
        moved = [k for k in end if k.startswith(f"nets.{side}.") and not torch.equal(end[k], start[k])]
        assert f"nets.{side}.head.weight" in moved
        assert f"nets.{side}.tower.blocks.0.conv1.weight" in moved


def test_fine_tuning_starts_from_the_given_weights(small_cohort: PackedCohort, small_run: Path, tmp_path: Path) -> None:
    standing = tiny(epochs=1, learning_rate=1e-12, weight_decay=0, seed=8, head_dropout=0.4)
    tuned = train(small_cohort, tmp_path / "run", standing, init=small_run)
    before, after = state(small_run), state(tuned)
    assert all(torch.allclose(before[k], after[k], atol=1e-9) for k in before)
    moving = tiny(epochs=1, learning_rate=0.01, seed=8)
    assert not equal(state(train(small_cohort, tmp_path / "moved", moving, init=small_run)), before)


def test_a_tuned_model_has_met_whom_the_first_one_met(
    make_cohort, small_cohort: PackedCohort, small_run: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    tuned = train(make_cohort(30, seed=91), tmp_path / "run", tiny(epochs=1), init=small_run)
    met, first = (load_model(run).card["training"]["seen_fingerprints"] for run in (tuned, small_run))
    assert set(first) < set(met)
    with pytest.raises(CalibrationError, match="used in training"):
        evaluate(tuned, small_cohort)
    other = make_split(small_cohort, 8)
    again = train(small_cohort, tmp_path / "again", tiny(epochs=1), split=other, init=small_run)
    assert {*other.test, *other.calibration} & {*Split.load(small_run / "split.json").train}
    with pytest.raises(CalibrationError, match="used in training"):
        evaluate(again, small_cohort)


def test_fine_tuning_refuses_another_network(small_cohort: PackedCohort, small_run: Path, tmp_path: Path) -> None:
    for change in ({"widths": (2, 2, 2, 3)}, {"model": "vgg-small"}, {"centred": False}, {"sbr_max": 7.0}):
        with pytest.raises(ConfigError, match="holds a network"):
            train(small_cohort, tmp_path / "run", tiny(**change), init=small_run)
    with pytest.raises(WeightsError):
        train(small_cohort, tmp_path / "run", tiny(), init=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()  # nothing was written


def test_a_finished_run_is_left_alone(small_cohort: PackedCohort, small_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.iterdir()}
    called: list[int] = []
    assert train(small_cohort, run, tiny(), report=lambda *_: called.append(1)) == run
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.iterdir()} == before
    assert not called


def test_another_configuration_or_cohort_is_refused(
    small_cohort: PackedCohort,
    make_cohort,  # type: ignore[no-untyped-def]
    small_run: Path,
    tmp_path: Path,
) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    with pytest.raises(OutputError, match=r"learning_rate: 0\.001 there, 0\.5 here"):
        train(small_cohort, run, tiny(learning_rate=0.5))
    with pytest.raises(OutputError, match="another run"):
        train(make_cohort(24, seed=77), run, tiny())
    with pytest.raises(OutputError, match="another run"):
        train(small_cohort, run, tiny(), split=make_split(small_cohort, 1))
    with pytest.raises(OutputError, match="another run"):
        train(small_cohort, run, tiny(), init=small_run)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    (run / "config.json").write_text("{")
    with pytest.raises(OutputError, match="unreadable"):
        train(small_cohort, run, tiny())


def test_a_folder_in_use_is_refused(small_cohort: PackedCohort, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.doc").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("used", "file", "file/below"):
        with pytest.raises(OutputError):
            train(small_cohort, tmp_path / name, tiny())
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["thesis.doc"]


def test_an_empty_folder_is_taken(small_cohort: PackedCohort, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert (train(small_cohort, tmp_path / "run", tiny(epochs=1)) / "card.json").is_file()


def test_labels_above_the_scale_are_refused(small_cohort: PackedCohort, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="sbr-max"):
        train(small_cohort, tmp_path / "run", tiny(sbr_max=2.0))
    assert not (tmp_path / "run").exists()


def test_missing_labels_are_refused(small_cohort: PackedCohort, tmp_path: Path) -> None:
    split = make_split(small_cohort, 1)
    cohort = load_cohort(small_cohort.folder)
    object.__setattr__(cohort, "participants", (Participant(cohort.patient_ids[0]), *cohort.participants[1:]))
    for given in (None, split):
        with pytest.raises(CohortError, match="labels"):
            train(cohort, tmp_path / "run", tiny(), split=given)
    assert not (tmp_path / "run").exists()


def test_a_split_of_other_patients_is_refused(small_cohort: PackedCohort, tmp_path: Path) -> None:
    split = Split(train=("x",), stop=("y",), calibration=(), test=(), seed=0)
    with pytest.raises(CohortError, match="differ"):
        train(small_cohort, tmp_path / "run", tiny(), split=split)
    assert not (tmp_path / "run").exists()


def test_altered_patches_are_refused(small_cohort: PackedCohort, tmp_path: Path) -> None:
    folder = shutil.copytree(small_cohort.folder, tmp_path / "cohort")
    with (folder / "patches.npy").open("r+b") as stream:
        stream.seek(-1000, 2)
        byte = stream.read(1)
        stream.seek(-1000, 2)
        stream.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CohortError, match="SHA-256"):
        train(folder, tmp_path / "run", tiny())
    assert not (tmp_path / "run").exists()


def test_divergence_is_an_error_and_not_a_model(small_cohort: PackedCohort, tmp_path: Path) -> None:
    config = tiny(learning_rate=1e30, schedule="constant", epochs=5)
    for _ in range(2):  # also when it is tried again
        with pytest.raises(NigradatError, match="diverged"):
            train(small_cohort, tmp_path / "run", config)
    assert not (tmp_path / "run" / "card.json").exists()


def test_a_fit_that_diverges_late_is_no_model_of_its_better_days(
    small_cohort: PackedCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(module: FitModule, *batch: Any) -> Any:
        loss = right(module, *batch)
        return loss * float("nan") if module.current_epoch == 3 else loss

    right = FitModule.training_step
    monkeypatch.setattr(FitModule, "training_step", step)
    for _ in range(2):
        with pytest.raises(NigradatError, match="diverged in epoch 4"):
            train(small_cohort, tmp_path / "run", tiny(epochs=6))
    assert not (tmp_path / "run" / "card.json").exists()


def test_a_machine_that_is_not_there(small_cohort: PackedCohort, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="abacus"):
        train(small_cohort, tmp_path / "run", tiny(epochs=1), hardware=Hardware(accelerator="abacus"))


def test_threads_are_set(small_cohort: PackedCohort, tmp_path: Path) -> None:
    train(small_cohort, tmp_path / "run", tiny(epochs=1), hardware=Hardware(accelerator="cpu", threads=1))
    assert load_model(tmp_path / "run").card["training"]["hardware"]["threads"] == 1


@pytest.mark.parametrize("model", ["sym-vgg", "vgg-small"])
def test_the_output_layer_may_start_at_the_mean(model: str, small_cohort: PackedCohort, tmp_path: Path) -> None:
    """At a learning rate of nothing, what is predicted lies about the training patients' mean, or about 0."""
    standing = {
        "model": model,
        "epochs": 1,
        "learning_rate": 1e-12,
        "weight_decay": 0,
        "unit_activations": False,
        "output_penalty": 0,
    }
    heads = {}
    for start in (True, False):
        run = train(small_cohort, tmp_path / f"run-{start}", tiny(**standing, start_at_mean=start))
        heads[start] = {k: v for k, v in state(run).items() if k.endswith("head.bias")}
    rows = make_split(small_cohort, 3).rows(small_cohort, "train")
    mean = small_cohort.sbr[rows].mean(axis=0) / 6.84
    expected = [mean.mean()] if model == "sym-vgg" else list(mean)  # a regressor per side, a mean per side
    assert [float(v) for v in heads[True].values()] == pytest.approx(expected, abs=1e-5)
    assert [float(v) for v in heads[False].values()] == pytest.approx([0] * len(expected), abs=1e-6)


def test_the_running_average_is_what_is_kept(small_cohort: PackedCohort, tmp_path: Path) -> None:
    """After one step: keep * start + (1 - keep) * now, with keep = min(decay, (1 + t) / (10 + t))."""
    one_step = {"epochs": 1, "batch_size": 16, "schedule": "constant", "unit_activations": False, "output_penalty": 0}
    plain, averaged = (tiny(**one_step, average_decay=decay) for decay in (0.0, 0.9))
    start = build(plain.spec, plain.seed)
    now, mean = (state(train(small_cohort, tmp_path / f"{c.average_decay}", c)) for c in (plain, averaged))
    keep = 2 / 11
    for name, first in start.state_dict().items():
        if not name.endswith("head.bias"):  # it starts at the mean SBR
            assert torch.allclose(mean[name], keep * first + (1 - keep) * now[name], atol=1e-6)
    assert any(not torch.equal(mean[k], now[k]) for k in now)
