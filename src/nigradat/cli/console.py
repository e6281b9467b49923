"""What the verbs share: options that mean the same everywhere, checks, progress on standard error, tables and JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from nigradat.evaluation.table import Table
    from nigradat.io.nifti import AffineChoice
    from nigradat.smwi.recipe import SmwiRecipe
    from nigradat.study.progress import Tally

Model = Annotated[Path, typer.Option("--model", "-m", help="Folder of a trained or imported model.")]
Source = Annotated[Path, typer.Argument(metavar="INPUT", help="A .mat, a manifest, a packed cohort or a folder.")]
Inputs = Annotated[
    list[Path] | None,
    typer.Argument(help="A .mat, a manifest (.tsv), a packed cohort or a folder of patches; or several."),
]
RightPatch = Annotated[Path | None, typer.Option("--right", help="Right patch (NIfTI), together with --left.")]
LeftPatch = Annotated[Path | None, typer.Option("--left", help="Left patch (NIfTI), together with --right.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Same seed, same result.")]
Affine = Annotated[
    str,
    typer.Option(
        "--affine", help="Which orientation of a NIfTI decides where its two disagree: auto (refuse), sform, qform."
    ),
]
Level = Annotated[float, typer.Option("--level", min=0.01, max=0.999, help="Level of the intervals, for example 0.95.")]
Rule = Annotated[
    str,
    typer.Option(
        "--rule",
        help="What the interval promises: conformal (each side), mondrian (each side within each third of the "
        "predictions), joint (both sides together), cv+ (from folds), nominal-cp (as the paper; nothing).",
    ),
]
Limit = Annotated[
    int, typer.Option("--limit", min=1, help="Visits at most; from a larger cohort evenly spaced ones are taken.")
]
Engine = Annotated[str, typer.Option("--engine", help="Where the fits run: processes (of this machine) or ray.")]
Address = Annotated[
    str | None, typer.Option("--address", help="Of a Ray cluster, or auto; default a local one, started for this.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Fits at a time; default one a GPU, or one for two cores.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try fits again that are recorded as failed.")]
SbrMax = Annotated[
    float | None, typer.Option("--sbr-max", help="SBR that the networks' output 1 stands for (6.84 in the paper).")
]
Device = Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu or gpu.")]
AnyBodyPart = Annotated[
    bool, typer.Option("--any-body-part", help="Read the scan though its header names another part of the body.")
]
ThresholdPpm = Annotated[
    float, typer.Option("--threshold-ppm", help="Susceptibility at which the weight of an SMWI reaches 0.")
]
Power = Annotated[float, typer.Option("--power", help="Power of the weight.")]
Combine = Annotated[str, typer.Option("--combine", help="The echoes: rms (root mean square) or mean.")]
Inversion = Annotated[
    str | None,
    typer.Option("--inversion", help="Field to susceptibility: tv (default; total variation) or tkd (quick)."),
]
Reference = Annotated[
    str | None,
    typer.Option("--reference", help="Susceptibility 0 is the mean over: mask (default), csf; or none."),
]


# -- Checks -------------------------------------------------------------------------------------------------------


def check_choice(option: str, value: str, allowed: Sequence[str]) -> str:
    """The value of an option that takes one of a few words.

    Raises:
        ConfigError: it is none of them.
    """
    from nigradat.errors import ConfigError

    if value not in allowed:
        raise ConfigError(f"{option} {value}", f"one of {', '.join(allowed)}")
    return value


def check_affine_choice(value: str) -> AffineChoice:
    """The value of ``--affine``. Raises :class:`~nigradat.errors.ConfigError`."""
    from nigradat.io.nifti import AFFINE_CHOICES

    return cast("AffineChoice", check_choice("--affine", value, AFFINE_CHOICES))


def smwi_recipe(
    threshold_ppm: float, power: float, combine: str, inversion: str | None, reference: str | None
) -> SmwiRecipe:
    """The recipe that the options name. Raises :class:`~nigradat.errors.ConfigError`."""
    from nigradat.smwi.recipe import COMBINATIONS, INVERSIONS, REFERENCES, SmwiRecipe

    choices: dict[str, Any] = {"combination": check_choice("--combine", combine, COMBINATIONS)}
    if inversion is not None:
        choices["inversion"] = check_choice("--inversion", inversion, INVERSIONS)
    if reference is not None:
        choices["reference"] = check_choice("--reference", reference, REFERENCES)
    return SmwiRecipe(chi_th_ppm=threshold_ppm, m=power, **choices)


def check_device(value: str) -> str:
    """The value of ``--device``. Raises :class:`~nigradat.errors.ConfigError`."""
    return check_choice("--device", value, ("auto", "cpu", "gpu"))


def parse_widths(text: str) -> tuple[int, int, int, int]:
    """Channels of the four blocks from ``16,32,64,128``. Raises :class:`~nigradat.errors.ConfigError`."""
    from nigradat.errors import ConfigError

    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--widths {text}", "four whole numbers above 0, for example 16,32,64,128")
    a, b, c, d = map(int, parts)
    return a, b, c, d


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers from ``0.4,0.6,1``. Raises :class:`~nigradat.errors.ConfigError`."""
    from nigradat.errors import ConfigError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} {text}", "numbers with commas between, for example 0.4,0.6,1") from error


def require_extra(extra: str, *packages: str) -> None:
    """Refuse before any work begins, not after it, where an optional part is not installed.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    from importlib.util import find_spec

    from nigradat.errors import MissingExtraError

    for package in packages:
        try:
            is_there = find_spec(package) is not None
        except ValueError:  # its import is blocked
            is_there = False
        if not is_there:
            raise MissingExtraError(package, extra)


# -- Output -------------------------------------------------------------------------------------------------------


def print_json(data: object) -> None:
    """Machine-readable result on standard output."""
    from nigradat.io.files import to_json

    sys.stdout.write(to_json(data))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; the first column is left-aligned."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(table)


def print_values(table: Table) -> None:
    """A table of values with their intervals on standard output, and its notes below it."""
    columns = [table.heading, *(column.full_name for column in table.columns)]
    rows = [[row.label, *(f"{cell.text} {cell.interval}".strip() for cell in row.cells)] for row in table.rows]
    print_table(table.caption, columns, rows)
    for note in table.notes:
        print(note)


# -- Progress -----------------------------------------------------------------------------------------------------


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, given as ``callback(done, in all)``; a few plain lines where that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        last = -1

        def line(done: int, total: int) -> None:
            nonlocal last
            tenth = 10 * done // max(total, 1)
            if tenth != last:
                last = tenth
                print(f"{what}: {done} of {total} {unit}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def training_bar(title: str) -> Iterator[Callable[[list[dict[str, float]], int, int], None]]:
    """The progress of a fit: epoch, error of the stopping patients, best so far.

    Yields:
        ``callback(history, best epoch, planned epochs)``.
    """
    with progress_bar(title, "epochs") as advance:
        terminal = sys.stderr.isatty()

        def report(history: list[dict[str, float]], best: int, planned: int) -> None:
            now, top = history[-1], history[best]
            advance(len(history), planned)
            if terminal or len(history) % 5 == 0 or len(history) == planned:
                learned = (
                    f"training loss {now['train_loss']:.4f}"
                    if now["train_loss"] == now["train_loss"]
                    else f"warm-up, error in the features {now['feature_loss']:.3f}"
                )
                print(
                    f"  epoch {len(history):3d}  {learned}  stopping patients: RMSE "
                    f"{now['stop_mse'] ** 0.5:.3f} SBR, R {now['stop_r']:.3f}  (best RMSE {top['stop_mse'] ** 0.5:.3f} "
                    f"in epoch {best + 1})",
                    file=sys.stderr,
                    flush=True,
                )

        yield report


@contextmanager
def study_bar(what: str) -> Iterator[Callable[[Tally], None]]:
    """One bar on standard error for all fits of a study; where that is no terminal, a line for each fit that ends and
    for each tenth of the work."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last: tuple[int, int, int] | None = None

        def line(tally: Tally) -> None:
            nonlocal last
            now = tally.done, tally.failed, int(10 * tally.share)
            if now != last:
                last = now
                print(f"{what}: {tally}", file=sys.stderr, flush=True)

        yield line
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[tally]}"), console=console
    ) as bar:
        task = bar.add_task(what, total=1.0, tally="")
        yield lambda tally: bar.update(task, completed=tally.share, tally=str(tally))
