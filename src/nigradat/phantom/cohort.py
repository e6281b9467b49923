"""A phantom cohort on disk: a packed cohort like any other, with the truth in a folder of its own.

    OUT/patches.npy, participants.tsv, cohort.json   what training may see
    OUT/truth/latents.tsv, masks.npy, truth.json     what only tests and evaluation may see

Every patient has a generator seeded with (seed, patient). Patient ``i`` is the same, bit for bit, whatever the number
of patients or of worker processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, Side
from nigradat.errors import ConfigError, NigradatError
from nigradat.io.files import write_json, write_text
from nigradat.io.manifest import Participant
from nigradat.io.pack import PHANTOM, CohortWriter
from nigradat.phantom.anatomy import N1_BIT, RN_BIT, SN_BIT
from nigradat.phantom.latents import Latents, Preset, get_preset, sample_latents
from nigradat.phantom.oracle import LATENT_COLUMNS, LATENTS_FILE, MASKS_FILE, TRUTH_FILE, TRUTH_FOLDER
from nigradat.phantom.rendering import Nuisance, Recipe, RenderedPair, render_pair, sample_nuisance

Progress = Callable[[int, int], None]

_IMAGE_STREAM: Final = 2
_VISIT_STREAM: Final = 3
_LABEL: Final = "digital phantom"
# One thread each; and glibc keeps freed memory, which otherwise goes back to the system and costs a third of the time
# in page faults (variables that other C libraries do not know).
_WORKER_ENVIRONMENT: Final = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    **dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(1 << 28)),
}


def simulate(
    out: str | os.PathLike[str],
    *,
    patients: int,
    preset: str | Preset = "paper",
    seed: int,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Render a phantom cohort.

    Args:
        out: a folder that does not exist yet or is empty.
        patients: number of patients, at least 1.
        preset: name (paper, hard, easy, uncoupled) or a :class:`~nigradat.phantom.latents.Preset`.
        seed: non-negative integer; the same seed gives the same bytes.
        workers: processes, of one thread and some 100 MB each; by default one a core.
        progress: called with (patients done, patients in all).

    Returns:
        The folder.

    Raises:
        ConfigError: unknown preset, no patients, a negative seed or no workers.
        OutputError: ``out`` is in use or the disk is full.

    Example:
        >>> simulate("phantom", patients=367, preset="paper", seed=1)  # doctest: +SKIP
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"{workers} workers", "at least 1")
    chosen = get_preset(preset)
    latents = sample_latents(patients, chosen, seed)
    provenance = {"kind": PHANTOM, "preset": asdict(chosen), "seed": seed}
    with CohortWriter(out, patients=patients, provenance=provenance) as writer:
        truth = writer.folder / TRUTH_FOLDER
        truth.mkdir()
        job = _Job(str(writer.memmap_path), str(truth / MASKS_FILE), seed)
        _reserve_masks(truth / MASKS_FILE, patients)
        _render_all(job, latents, min(workers or _cores(), patients), progress)
        participants = [_participant(i, latents, seed) for i in range(patients)]
        _write_truth(truth, latents, participants, chosen, seed)
        writer.finish(participants, Recipe().smwi_json())
    return Path(out)


def render_patient(
    seed: int,
    patient: int,
    age: float,
    d: npt.ArrayLike,
    recipe: Recipe | None = None,
    *,
    centring_stress_mm: float = 0.0,
    noise_factor: float = 1.0,
    ghost_amplitude: float | None = None,
) -> RenderedPair:
    """Render one patient of a cohort again: bit for bit, or with one thing changed.

    Args:
        seed: of the cohort.
        patient: row in the cohort, from 0.
        age: years, from the cohort's latents.
        d: degeneration ``(2,)``, right first, from the cohort's latents.
        recipe: scanner and processing; the usual one by default.
        centring_stress_mm, noise_factor, ghost_amplitude: see :func:`~nigradat.phantom.rendering.sample_nuisance`.

    Example:
        >>> latents = sample_latents(1, "paper", seed=1)
        >>> magnitude_only = render_patient(1, 0, latents.age[0], latents.d[0], Recipe(power=0.0))
        >>> magnitude_only.patches.shape
        (2, 50, 50, 20)
    """
    nuisance = patient_nuisance(
        seed,
        patient,
        age,
        centring_stress_mm=centring_stress_mm,
        noise_factor=noise_factor,
        ghost_amplitude=ghost_amplitude,
    )
    right, left = (float(v) for v in np.asarray(d))
    return render_pair(right, left, nuisance, recipe)


def patient_nuisance(
    seed: int,
    patient: int,
    age: float,
    *,
    centring_stress_mm: float = 0.0,
    noise_factor: float = 1.0,
    ghost_amplitude: float | None = None,
) -> Nuisance:
    """What is not disease in one patient of a cohort; the arguments are those of :func:`render_patient`.

    Change what is wanted with ``dataclasses.replace`` and hand it to :func:`~nigradat.phantom.rendering.render_pair`:
    nothing else of the patient changes.
    """
    return sample_nuisance(
        np.random.default_rng(np.random.SeedSequence([seed, _IMAGE_STREAM, patient])),
        age,
        centring_stress_mm=centring_stress_mm,
        noise_factor=noise_factor,
        ghost_amplitude=ghost_amplitude,
    )


@dataclass(frozen=True)
class _Task:
    """One patient to render, as it is sent to a worker."""

    patient: int
    age: float
    d_right: float
    d_left: float


@dataclass(frozen=True)
class _Job:
    """Where the patches and masks go."""

    patches: str
    masks: str
    seed: int

    def renderer(self) -> Callable[[_Task], None]:
        """Open the two files and return what renders a patient into them."""
        patches = np.load(self.patches, mmap_mode="r+")
        masks = np.load(self.masks, mmap_mode="r+")

        def render(task: _Task) -> None:
            pair = render_patient(self.seed, task.patient, task.age, (task.d_right, task.d_left))
            patches[task.patient] = pair.patches
            masks[task.patient] = pair.masks

        return render


def _render_all(job: _Job, latents: Latents, workers: int, progress: Progress | None) -> None:
    """Render every patient, in this process or in several."""
    total = len(latents)
    waiting = iter([_Task(i, float(latents.age[i]), *map(float, latents.d[i])) for i in range(total)])
    lock, stop = threading.Lock(), threading.Event()
    done = 0

    def tasks() -> Iterator[_Task]:
        while not stop.is_set():
            with lock:
                task = next(waiting, None)
            if task is None:
                return
            yield task

    def finished() -> None:
        nonlocal done
        with lock:
            done += 1
            if progress is not None:
                progress(done, total)

    if workers == 1:
        render = job.renderer()
        for task in tasks():
            render(task)
            finished()
        return
    with ThreadPoolExecutor(workers) as pool:
        drivers = [pool.submit(_drive, job, tasks(), finished) for _ in range(workers)]
        try:
            for driver in as_completed(drivers):
                driver.result()
        finally:
            stop.set()


def _drive(job: _Job, tasks: Iterator[_Task], finished: Callable[[], None]) -> None:
    """Feed one worker process, a patient at a time.

    A process of its own and not ``multiprocessing``, which would import the caller's script again and so demand an
    ``if __name__ == "__main__"`` around every call. It ends with its standard input, so it never outlives the caller.
    """
    command = [sys.executable, "-P", "-c", "from nigradat.phantom.cohort import _serve; _serve()"]
    environment = os.environ | _WORKER_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as worker:
        _ask(worker, job)
        for task in tasks:
            _ask(worker, task)
            finished()


def _ask(worker: subprocess.Popen[str], message: _Job | _Task) -> None:
    """Send a message and wait until the worker has done it.

    Raises:
        NigradatError: the worker ended instead, with its last words.
    """
    assert worker.stdin is not None
    assert worker.stdout is not None
    with suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(asdict(message)) + "\n")
        worker.stdin.flush()
        if worker.stdout.readline():
            return
    said = worker.communicate()[1].strip().splitlines()
    raise NigradatError(
        f"a rendering process ended early: {said[-1] if said else f'exit status {worker.returncode}'}",
        todo="Free some memory or use fewer workers, and run the command again",
    )


def _serve() -> None:
    """A worker's life: a job, then tasks, one JSON object a line; answers a line when each is done."""
    render = _Job(**json.loads(sys.stdin.readline())).renderer()
    print("ready", flush=True)
    for line in sys.stdin:
        render(_Task(**json.loads(line)))
        print("done", flush=True)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _participant(patient: int, latents: Latents, seed: int) -> Participant:
    """What the table says about one phantom patient; devices say that it is none."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, _VISIT_STREAM, patient]))
    return Participant(
        participant_id=f"sub-{patient + 1:04d}",
        sbr_right=float(latents.sbr[patient, Side.RIGHT.index]),
        sbr_left=float(latents.sbr[patient, Side.LEFT.index]),
        age=float(latents.age[patient]),
        sex=str(latents.sex[patient]),
        scanner=_LABEL,
        mri_spect_days=_sample_gap_days(rng),
        tracer=_LABEL,
        spect_device=_LABEL,
        spect_software=_LABEL,
    )


def _sample_gap_days(rng: np.random.Generator) -> float:
    """Days from MRI to SPECT as in the paper, 42 +- 60 with a median of 18 hours: the same day, or a gamma tail."""
    same_day, later = rng.uniform(0.1, 1.0), rng.gamma(2.1, 41.4)
    return round(float(same_day if rng.uniform() < 0.52 else later), 2)


def _reserve_masks(path: Path, patients: int) -> None:
    """An empty mask file with its room on the disk, so that a full disk is an error now and not a crash later."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(patients, 2, *PATCH_SHAPE))
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def _write_truth(
    folder: Path, latents: Latents, participants: Sequence[Participant], preset: Preset, seed: int
) -> None:
    rows = [["participant_id", *LATENT_COLUMNS, "age", "sex"]]
    for i, participant in enumerate(participants):
        values = [getattr(latents, name)[i] for name in ("u", "m", "d", "z", "sbr")]
        numbers = [*np.concatenate(values), latents.age[i]]
        rows.append([participant.participant_id, *(repr(float(v)) for v in numbers), str(latents.sex[i])])
    write_text(folder / LATENTS_FILE, "".join("\t".join(row) + "\n" for row in rows))
    description = {
        "what": "truth of a digital phantom: for tests and evaluation, never for training",
        "preset": asdict(preset),
        "seed": seed,
        "mask_bits": {"substantia nigra": SN_BIT, "nigrosome-1": N1_BIT, "red nucleus": RN_BIT},
        "nigradat": metadata.version("nigradat"),
    }
    write_json(folder / TRUTH_FILE, description)
