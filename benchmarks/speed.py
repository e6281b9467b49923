"""Speed as ratios within one run, so that the numbers of two machines can be compared: ``make bench``.

Every timing is the median of several repetitions of calls that alternate with what they are compared to.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from nigradat.anatomy import PATCH_SHAPE
from nigradat.models.cost import layer_table
from nigradat.models.dropout import seed_dropout
from nigradat.models.symmetric import ModelSpec, PairRegressor, build
from nigradat.phantom.cohort import render_patient
from nigradat.training.augment import Augmentation, apply_augmentation, draw_augmentation
from nigradat.training.config import make_config
from nigradat.training.loss import symmetric_loss
from nigradat.uncertainty.mc_dropout import mc_samples, predict_sbr


def median_seconds(repeats: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Median time of each call; the calls take turns, so that a drift of the machine meets all of them."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def plain_copy(model: PairRegressor) -> nn.Module:
    """The same network as plain torch layers in the default memory layout."""
    net = model.nets["both"]
    layers: list[nn.Module] = []
    for block in net.tower.blocks:
        layers += [block.conv1, nn.ReLU(), block.conv2, nn.ReLU(), nn.MaxPool3d(2)]
    plain = nn.Sequential(*layers, nn.Flatten(), net.head)
    twin = build(model.spec)
    twin.load_state_dict(model.state_dict())
    copies = [m for m in twin.nets["both"].modules() if isinstance(m, nn.Conv3d | nn.Linear)]
    for layer, copy in zip([m for m in plain if isinstance(m, nn.Conv3d | nn.Linear)], copies, strict=True):
        plain[list(plain).index(layer)] = copy
    return plain.to(memory_format=torch.contiguous_format)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default="16,32,64,128")
    parser.add_argument("--pairs", type=int, default=8, help="pairs a training step")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()

    spec = ModelSpec(widths=tuple(int(w) for w in args.widths.split(",")))
    model = build(spec, seed=0)
    plain = plain_copy(model)
    seed_dropout(model, 0)
    macs = sum(row.macs for row in layer_table(model.nets["both"]))
    rng = np.random.default_rng(0)
    patches = rng.uniform(0.5, 1.5, (args.pairs, 2, *PATCH_SHAPE)).astype(np.float32)
    x = torch.from_numpy(patches).unsqueeze(2)
    y = torch.rand(args.pairs, 2)
    a = torch.rand(2048, 2048)

    def forward() -> None:
        with torch.inference_mode():
            model.eval()(x)

    def forward_plain() -> None:
        with torch.inference_mode():
            plain(x.flatten(0, 1) / x.flatten(0, 1).mean(dim=(2, 3, 4), keepdim=True) - 1)

    def step() -> None:
        model.train().zero_grad()
        symmetric_loss(model(x), y, 0.1).backward()

    def step_plain() -> None:
        plain.zero_grad()
        out = plain(x.flatten(0, 1) / x.flatten(0, 1).mean(dim=(2, 3, 4), keepdim=True) - 1)
        symmetric_loss(out.unflatten(0, (-1, 2)).squeeze(2), y, 0.1).backward()

    def augment() -> None:
        apply_augmentation(x, y, draw_augmentation(recipe, args.pairs, 0))

    recipe = Augmentation(**make_config().to_json()["augmentation"])
    one = patches[:1]
    t = median_seconds(
        args.repeats,
        gemm=lambda: a @ a,
        forward=forward,
        forward_plain=forward_plain,
        step=step,
        step_plain=step_plain,
        augment=augment,
    )
    p = median_seconds(
        5 * args.repeats,
        single=lambda: predict_sbr(model, one),
        mc=lambda: mc_samples(model, one, samples=100, seed=0),
    )
    blocks = build(ModelSpec(widths=spec.widths, head_dropout=0.5, block_dropout=0.2))
    b = median_seconds(1, mc_blocks=lambda: mc_samples(blocks, one, samples=100, seed=0))
    r = median_seconds(2, render=lambda: [render_patient(1, i, 65.0, (0.5, 0.5)) for i in range(4)])

    gemm = 2 * 2048**3 / t["gemm"]
    flop = 2 * macs * 2 * args.pairs
    rows = [
        ("machine's GEMM rate (2048 x 2048, float32)", f"{gemm / 1e9:.1f} GFLOP/s"),
        ("forward pass, share of the GEMM rate", f"{flop / t['forward'] / gemm:.2f}"),
        ("training step, share of the GEMM rate (3 x forward's FLOP)", f"{3 * flop / t['step'] / gemm:.2f}"),
        ("forward pass, time / plain Conv3d in default layout", f"{t['forward'] / t['forward_plain']:.2f}"),
        ("training step, time / plain Conv3d in default layout", f"{t['step'] / t['step_plain']:.2f}"),
        ("augmentation, time / training step", f"{t['augment'] / t['step']:.2f}"),
        ("T = 100 symmetric MC of a pair, head dropout, time / one pass", f"{p['mc'] / p['single']:.2f}"),
        ("T = 100 symmetric MC of a pair, block dropout, time / one pass", f"{b['mc_blocks'] / p['single']:.1f}"),
        ("renderer, one process", f"{8 / r['render']:.1f} patches/s"),
        ("peak memory of this program", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"),
    ]
    print(
        f"tower {args.widths}, {args.pairs} pairs a step, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value:>14}")


if __name__ == "__main__":
    sys.exit(main())
