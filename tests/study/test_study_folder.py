"""One at a time works on a fit, whatever was killed before; and what ended is read back from the folder alone."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nigradat.errors import OutputError
from nigradat.evaluation.predictions import FitRecord
from nigradat.io.files import write_json
from nigradat.metrics.binary import BinaryAgreement
from nigradat.study.folder import (
    FitName,
    Reading,
    StudyFolder,
    read_readings,
    read_record,
    records,
    write_readings,
    write_record,
)
from nigradat.study.progress import Watch, duration


def leave_lock(folder: StudyFolder, key: str, *, pid: int, host: str | None = None, age_s: float = 0) -> Path:
    """A lock as somebody else would leave it."""
    lock = folder.path / "locks" / f"{key.replace('/', '+')}@{'0' * 32}@{pid}@{host or socket.gethostname()}"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    os.utime(lock, (time.time() - age_s,) * 2)
    return lock


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "study")


def test_a_lock_keeps_others_out_while_it_is_held(folder):
    with folder.locked("split-1/a") as first, folder.locked("split-1/a") as second, folder.locked("split-1/b") as other:
        assert (first, second, other) == (True, False, True)
    with folder.locked("split-1/a") as again:
        assert again
    assert list((folder.path / "locks").iterdir()) == []


def test_readings_come_back_as_they_were_written_and_damage_is_said(folder):
    row = Reading("fold-1", "n1-index", "Index", "SBR below 2", "right", BinaryAgreement(1, 2, 3, 4), 5, 6, 7)
    write_readings(folder, "fold-1", [row, row])
    assert read_readings(folder, ["fold-1", "fold-2"]) == (row, row)
    write_json(folder.fit("fold-2") / "readings.json", {"readings": [{"split": "fold-2"}]})
    with pytest.raises(OutputError, match=r"readings\.json is damaged"):
        read_readings(folder, ["fold-1", "fold-2"])


def test_a_lock_is_given_back_after_an_error(folder):
    with pytest.raises(KeyError), folder.locked("a"):
        raise KeyError
    with folder.locked("a") as again:
        assert again


def test_the_lock_of_a_killed_process_is_no_obstacle(folder):
    stale = leave_lock(folder, "a", pid=ended_pid())
    with folder.locked("a") as mine:
        assert mine
        assert not stale.exists()


def test_on_another_machine_only_silence_tells(folder):
    lock = leave_lock(folder, "a", pid=1, host="elsewhere")
    with folder.locked("a") as mine:
        assert not mine
    assert lock.exists()
    leave_lock(folder, "a", pid=1, host="elsewhere", age_s=600)
    with folder.locked("a") as mine:
        assert mine


def test_a_process_that_has_the_number_of_a_dead_one_is_not_taken_for_it(folder):
    leave_lock(folder, "a", pid=os.getpid(), age_s=600)
    with folder.locked("a") as mine:
        assert mine


def test_of_many_who_ask_at_once_never_two_go_in(folder):
    inside, most, entered = 0, 0, 0
    guard = threading.Lock()

    def contend() -> None:
        nonlocal inside, most, entered
        for _ in range(10):
            with folder.locked("a") as mine:
                if mine:
                    with guard:
                        inside += 1
                        most, entered = max(most, inside), entered + 1
                    with guard:
                        inside -= 1

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert entered >= 1


# -- Records ------------------------------------------------------------------------------------------------------


def record(method: str, split: str, seed: int, role: str = "model", **more: object) -> FitRecord:
    return FitRecord(method, method.upper(), role, split, seed, None, "hash", 7, 3, **more)  # type: ignore[arg-type]


def written(folder: StudyFolder, *found: FitRecord) -> tuple[FitRecord, ...]:
    write_json(folder.plan, {"methods": ["zzz", "aaa"], "split_names": [f"split-{i}" for i in range(1, 12)]})
    for one in found:
        write_record(folder.fit(FitName(one.split, one.method, one.seed).key), one)
    return records(folder.path)


def test_records_come_back_once_each_and_in_the_order_of_the_plan(folder):
    model = [
        record("zzz", "split-2", 2, epochs=3, seconds=1.5),
        record("aaa", "split-2", 1),
        record("zzz", "split-10", 1),
    ]
    other = [record("ridge", "split-2", 0, "baseline"), record("oracle-pair", "split-2", 0, "oracle")]
    failed = record("zzz", "split-2", 11, failed="it diverged")
    found = written(folder, *reversed(model), *other, failed)
    names = [(r.split, r.method, r.seed) for r in found]
    assert names == [
        ("split-2", "zzz", 2),
        ("split-2", "zzz", 11),
        ("split-2", "aaa", 1),
        ("split-2", "ridge", 0),
        ("split-2", "oracle-pair", 0),
        ("split-10", "zzz", 1),
    ]
    assert found[0].folder == folder.fit("split-2/zzz-seed2")
    assert (found[0].epochs, found[0].seconds) == (3, 1.5)
    assert (found[1].folder, found[1].failed) == (None, "it diverged")


def test_an_unfinished_fit_is_no_record(folder):
    (folder.fit("split-1/zzz-seed1")).mkdir(parents=True)
    assert written(folder) == ()
    assert read_record(folder.fit("split-1/zzz-seed1")) is None


def test_a_record_from_before_a_fact_was_kept_is_read(folder):
    (whole,) = written(folder, record("zzz", "split-1", 1))
    path = folder.fit("split-1/zzz-seed1") / "fit.json"
    facts = json.loads(path.read_text())
    del facts["starts"]
    path.write_text(json.dumps(facts))
    assert records(folder.path) == (dataclasses.replace(whole, starts=None),)


def test_a_damaged_record_is_named(folder):
    written(folder, record("zzz", "split-1", 1))
    path = folder.fit("split-1/zzz-seed1") / "fit.json"
    path.write_text('{"method": "zzz"}')
    with pytest.raises(OutputError, match="lacks 'title'"):
        records(folder.path)
    path.write_text("half")
    with pytest.raises(OutputError, match="cannot be read"):
        records(folder.path)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"holds no study\.json"):
        records(tmp_path)


def test_records_are_read_without_torch(folder):
    written(folder, record("zzz", "split-1", 1))
    code = (
        "import sys; from nigradat.study.folder import records as r; print(len(r(sys.argv[1])), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder.path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


# -- Progress -----------------------------------------------------------------------------------------------------


def test_the_tally_is_made_of_the_epochs_in_the_logs(folder):
    fits = [FitName("split-1", method, seed) for seed in (1, 2) for method in ("slow", "quick")]
    runs = [folder.fit(fit.key) for fit in fits]
    for run in runs:
        run.mkdir(parents=True)
    (runs[0] / "times.csv").write_text("epoch,seconds\n0,10\n1,10\n")
    write_record(runs[0], record("slow", "split-1", 1))
    watch = Watch(folder, fits, epochs=4)
    (runs[1] / "log.csv").write_text("epoch\n0\n")
    (runs[1] / "times.csv").write_text("epoch,seconds\n0,1\n")
    tally = watch.look([fits[1].key], slots=1)
    assert (tally.done, tally.failed, tally.total, tally.running) == (1, 0, 4, (fits[1].key,))
    assert tally.share == pytest.approx((4 + 1) / 16)
    assert tally.seconds_left == pytest.approx(3 * 1 + 4 * 10 + 4 * 1)
    assert watch.look([fits[1].key], slots=2).seconds_left == pytest.approx(tally.seconds_left / 2)
    assert "1 of 4 fits, 31 % of the epochs, 47 s left; now split-1/quick-seed1" in str(tally)
    write_record(runs[1], record("quick", "split-1", 1, failed="diverged"))
    watch.ended(fits[1].key)
    watch.ended("split-1/baselines")
    assert "1 of 4 fits, 1 failed" in str(watch.look((), 1))


def test_before_the_first_epoch_no_time_is_promised(folder):
    tally = Watch(folder, [FitName("split-1", "a", 1)], epochs=4).look((), 1)
    assert tally.seconds_left is None
    assert str(tally) == "0 of 1 fits, 0 % of the epochs"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5400, "1 h 30 min")])
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
