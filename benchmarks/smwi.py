"""Time and memory of one SMWI, and the share of each step: ``python benchmarks/smwi.py``.

The scan is made up: an ellipsoid head with iron-rich spheres, an air cavity and noise, by default of the size
384 x 384 x 64 with three echoes. Beside the seconds stands their ratio to one real Fourier transform of the same size,
so that the numbers of two machines can be compared.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time

import numpy as np
from scipy import fft

from nigradat.smwi.chain import make_smwi
from nigradat.smwi.recipe import INVERSIONS, SmwiRecipe
from nigradat.volume import MultiEchoGre

SPACING_MM = (0.5, 0.5, 1.0)
TIMES_MS = (14.0, 27.0, 40.0)
RADIANS_PER_PPM_AND_MS = 2 * np.pi * 42.577478518 * 3.0 * 1e-3
# centre in mm, radius in mm, ppm
SPHERES = [
    ((side * x, y, z), r, chi) for side in (-1, 1) for x, y, z, r, chi in ((10, -3, -9, 5, 0.11), (18, 8, 7, 6, 0.14))
]
CAVITY = ((3.0, 55.0, -30.0), 14.0, 9.4)


def made_up_scan(shape: tuple[int, int, int], snr: float = 20.0) -> MultiEchoGre:
    axes = [((np.arange(n) - (n - 1) / 2) * s).astype(np.float32) for n, s in zip(shape, SPACING_MM, strict=True)]
    x, y, z = np.ix_(*axes)
    extent = [n * s / 2 for n, s in zip(shape, SPACING_MM, strict=True)]
    head = (x / (0.75 * extent[0])) ** 2 + (y / (0.9 * extent[1])) ** 2 + (z / 95) ** 2 <= 1
    field = (0.3 * x / 70 - 0.4 * y / 80 + 0.5 * (x**2 - y**2) / 70**2 + 0 * z).astype(np.float32)
    rate = np.full(shape, 19.5, dtype=np.float32)
    for (cx, cy, cz), radius, chi in (*SPHERES, CAVITY):
        r2 = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2
        inside = r2 <= radius**2
        dipole = np.float32(chi / 3 * radius**3) * (3 * (z - cz) ** 2 - r2) / np.maximum(r2, 1e-6) ** 2.5
        field += np.where(inside, np.float32(0), dipole)
        rate[inside] = 36.0
        if chi > 1:
            head &= ~inside
    rng = np.random.default_rng(0)
    magnitude, phase = (np.empty((len(TIMES_MS), *shape), dtype=np.float32) for _ in range(2))
    for i, t in enumerate(TIMES_MS):
        signal = head * np.exp(-rate * np.float32(t / 1000))
        angle = np.float32(RADIANS_PER_PPM_AND_MS * t) * field + np.float32(0.5)
        real = signal * np.cos(angle) + rng.standard_normal(shape, dtype=np.float32) / np.float32(snr)
        imaginary = signal * np.sin(angle) + rng.standard_normal(shape, dtype=np.float32) / np.float32(snr)
        magnitude[i], phase[i] = np.hypot(real, imaginary), np.arctan2(imaginary, real)
    affine = np.diag([*SPACING_MM, 1.0])
    return MultiEchoGre(magnitude, phase, np.array(TIMES_MS), 3.0, affine)


def seconds_of_a_transform(shape: tuple[int, ...]) -> float:
    image = np.ones([fft.next_fast_len(n, real=True) for n in shape], dtype=np.float32)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        fft.rfftn(image, workers=os.cpu_count())
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="384,384,64", help="voxels")
    parser.add_argument("--inversion", default="tv", choices=INVERSIONS)
    asked = parser.parse_args()
    x, y, z = (int(n) for n in asked.shape.split(","))
    gre = made_up_scan((x, y, z))
    made_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    marks: list[tuple[str, float, float]] = []
    make = time.perf_counter(), time.process_time()
    result = make_smwi(
        gre,
        SmwiRecipe(inversion=asked.inversion),
        say=lambda words: marks.append((words, time.perf_counter(), time.process_time())),
    )
    end = time.perf_counter(), time.process_time()
    load, unit = os.getloadavg()[0], seconds_of_a_transform((x, y, z))
    total = end[0] - make[0]
    print(f"{asked.shape}, {len(TIMES_MS)} echoes, {asked.inversion}; {os.cpu_count()} cores at load {load:.1f}")
    for (words, start, cpu), (_, stop, cpu_stop) in zip(marks, [*marks[1:], ("", *end)], strict=True):
        print(f"{words:20s} {stop - start:6.1f} s {(stop - start) / total:4.0%}   {cpu_stop - cpu:6.1f} s of cores")
    print(f"{'all':20s} {total:6.1f} s        {end[1] - make[1]:6.1f} s of cores")
    print(f"= {total / unit:.0f} Fourier transforms of {unit:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"memory: {peak:.1f} GB at most ({made_gb:.1f} GB of it while the scan was made)")
    print(f"known voxels: {result.mask.data.mean():.2f} of all" if result.mask else "")


if __name__ == "__main__":
    main()
