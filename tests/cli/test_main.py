"""Exit codes, faults and what is imported: the command line as a whole."""

from __future__ import annotations

import errno
import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nigradat import __version__
from nigradat.cli.app import app

HEAVY = ("torch", "numpy", "scipy", "nibabel", "pytorch_lightning", "matplotlib")
VERBS = [
    "simulate",
    "cohort",
    "train",
    "calibrate",
    "evaluate",
    "intervals",
    "predict",
    "fit-quality",
    "check",
    "stress-test",
    "explain",
    "average-maps",
    "features",
    "faithfulness",
    "dose-response",
    "mis-centring",
    "study",
    "sweep",
    "inspect",
    "smwi",
    "locate",
    "sbr",
    "bids",
    "import-published",
    "show",
]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"], ["predict", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom nigradat.cli import main\ncode = main(sys.argv[1:])\n"
        f"print([m for m in {HEAVY} if m in sys.modules], code, file=sys.stderr)"
    )
    done = python(code, *arguments)
    assert done.stderr.strip() == "[] 0"
    assert done.stdout


def test_the_package_alone_imports_nothing_heavy():
    done = python(f"import nigradat, sys; print([m for m in {HEAVY} if m in sys.modules])")
    assert done.stdout.strip() == "[]"


def test_every_verb_is_there_and_says_what_it_does_with_an_example(call):
    listed = call("--help").done().out
    assert [info.name for info in app.registered_commands] == VERBS
    for verb in VERBS:
        assert f"│ {verb} " in listed
        shown = call(verb, "-h").done().out
        assert f"Example: nigradat {verb} " in shown


def test_no_arguments_show_the_help(call):
    assert call().done().out == call("--help").done().out


def test_version(call):
    assert call("--version").done().out == f"nigradat {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["No such command 'trian'", "'train'", "nigradat --help"]),
        (["predict", "--modl", "x"], ["No such option: --modl", "--model", "'nigradat predict --help'"]),
        (["predict", "x.mat"], ["Missing option '--model'"]),
        (["train", "cohort"], ["Missing argument", "'nigradat train --help'"]),
        (["simulate", "out", "--patients", "0"], ["--patients", "1"]),
        (["simulate", "out", "--patients", "many"], ["--patients", "integer"]),
        (["calibrate", "run", "cohort", "--level", "1.5"], ["--level", "0.999"]),
        (["show", "sym-vgg", "more"], ["more"]),
    ],
)
def test_a_wrong_command_line_is_refused(call, arguments, words):
    call(*arguments).refused(*words)


def fails_with(monkeypatch, fault):
    def show(*_, **__):
        raise fault

    monkeypatch.setattr("nigradat.models.registry.create_model", show)


def test_an_interrupted_command_says_so(call, monkeypatch):
    fails_with(monkeypatch, KeyboardInterrupt())
    answer = call("show", "sym-vgg")
    assert answer.code == 130
    assert answer.err.startswith("interrupted; nothing half-written was left")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (MemoryError(), ["memory did not suffice", "--batch-size"]),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), ["memory did not"]),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), ["memory did not suffice"]),
        (OSError(errno.ENOSPC, "No space left on device", "run/x"), ["run/x", "enough room", "Free some space"]),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ["Disk quota exceeded"]),
    ],
)
def test_no_memory_and_no_room_are_named(call, monkeypatch, fault, words):
    fails_with(monkeypatch, fault)
    call("show", "sym-vgg").refused(*words)


@pytest.mark.parametrize("fault", [RuntimeError("a bug"), OSError(errno.EIO, "Input/output error"), KeyError("a bug")])
def test_a_fault_of_the_program_is_not_hidden(call, monkeypatch, fault):
    fails_with(monkeypatch, fault)
    with pytest.raises(type(fault)):
        call("show", "sym-vgg")


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("pytorch_lightning", "train", ["train", "COHORT", "OUT"]),
        ("tensorboard", "tb", ["train", "COHORT", "OUT", "--tensorboard"]),
        ("matplotlib", "report", ["evaluate", "RUN", "COHORT", "--out", "OUT"]),
        ("jinja2", "report", ["evaluate", "RUN", "COHORT", "--out", "OUT"]),
        ("pytorch_lightning", "train", ["study", "COHORT", "OUT"]),
        ("matplotlib", "report", ["study", "COHORT", "OUT"]),
        ("pytorch_lightning", "train", ["sweep", "COHORT", "OUT", "--vary", "samples=10,20"]),
    ],
)
def test_a_missing_extra_is_named_before_any_work(
    call, monkeypatch, tmp_path, small_cohort, small_run, package, extra, arguments
):
    monkeypatch.setitem(sys.modules, package, None)
    names = {"COHORT": small_cohort.folder, "RUN": small_run, "OUT": tmp_path / "out"}
    answer = call(*(names.get(a, a) for a in arguments))
    answer.refused(f"'{package}' is not installed", f"pip install -c constraints.txt 'nigradat[{extra}]'")
    assert list(tmp_path.iterdir()) == []


def test_nothing_pulls_in_torchvision():
    assert importlib.util.find_spec("torchvision") is None


@pytest.mark.parametrize(
    "program", [[sys.executable, "-m", "nigradat"], [str(Path(sys.executable).parent / "nigradat")]]
)
def test_the_process_ends_with_the_exit_code_and_no_traceback(program, tmp_path):
    done = subprocess.run(
        [*program, "cohort", "no.tsv", "out"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no.tsv")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_leaves_nothing_half_written(workers, tmp_path):
    command = [sys.executable, "-m", "nigradat", "simulate", "out", "--patients", "200", "--workers", workers]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "rendering: 1 of 200 patients\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "interrupted; nothing half-written was left" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_began_anew_says_so(call, small_cohort, tmp_path, monkeypatch):
    answers = iter([True, False])
    monkeypatch.setattr("nigradat.training.module.has_dead_tower", lambda *_: next(answers))
    words = ["train", small_cohort.folder, tmp_path / "run", "--widths", "2,2,4,4", "--epochs", "4"]
    assert "The tower died in 1 warm-up(s); it was started anew from other weights." in call(*words).done().out
    assert call(*words, "--json").done().json["starts"] == 2
