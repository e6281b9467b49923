"""``nigradat train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nigradat.cli.console import Device, Json, check_device, parse_widths, print_json, require_extra, training_bar

NAME = "train"


def run(
    cohort: Annotated[Path, typer.Argument(help="Packed cohort with labels.")],
    out: Annotated[Path, typer.Argument(help="Run folder. An interrupted run of the same configuration goes on.")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="default, or paper (as plain as the paper's release).")
    ] = "default",
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file; its keys are those of config.json.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="sym-vgg-plus, vgg-small, resnet18, ...; a wrong name lists them all.")
    ] = None,
    widths: Annotated[
        str | None, typer.Option("--widths", help="Channels of the four blocks, for example 16,32,64,128.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="At most so many passes over the training patients.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", min=1, help="Stop after so many epochs without a better error.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Patients a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Highest learning rate.")] = None,
    symmetry_weight: Annotated[
        float | None,
        typer.Option("--symmetry-weight", min=0, help="Lambda of the symmetric loss (reconstruction: 0.1)."),
    ] = None,
    symmetry_eps: Annotated[
        float | None,
        typer.Option("--symmetry-eps", min=0, help="Side difference that costs nothing, in SBR / sbr-max."),
    ] = None,
    dropout: Annotated[
        str | None,
        typer.Option("--dropout", help="Where: head, blocks (.2 after each pool, .5 before the head), none."),
    ] = None,
    dropout_rate: Annotated[
        float | None, typer.Option("--dropout-rate", min=0, max=0.99, help="Rate before the head.")
    ] = None,
    sbr_max: Annotated[
        float | None, typer.Option("--sbr-max", help="SBR that the network's output 1 stands for (6.84 in the paper).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of weights, order, augmentation, dropout and split.")
    ] = None,
    split: Annotated[
        Path | None, typer.Option("--split", help="A split.json to use; default 70/15/15, stratified by SBR.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option("--init", help="Model folder to start from (fine-tuning on your own cases).")
    ] = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option("--devices", min=1, help="Data-parallel processes (DDP).")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; runs are bit-equal at equal numbers.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard events (extra 'tb').")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model on a packed cohort. Weights, card, split and log end up in OUT.

    Half of the validation patients stop the training; the other half is kept for 'nigradat calibrate'.

    Example: nigradat train cohort run --widths 8,16,32,64 --epochs 30 --seed 1
    """
    from nigradat.models.registry import get_method
    from nigradat.models.weights import read_card
    from nigradat.training.config import Hardware, make_config
    from nigradat.training.fit import train
    from nigradat.training.split import Split

    given = {
        "model": model,
        "widths": None if widths is None else parse_widths(widths),
        "epochs": epochs,
        "patience": patience,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "symmetry_weight": symmetry_weight,
        "symmetry_eps": symmetry_eps,
        "sbr_max": sbr_max,
        "seed": seed,
        **_dropout(dropout, dropout_rate),
    }
    hardware = Hardware(check_device(device), devices, threads, tensorboard)
    resolved = make_config(recipe, config, {k: v for k, v in given.items() if v is not None})
    require_extra("train", "pytorch_lightning")
    if tensorboard:
        require_extra("tb", "tensorboard")
    with training_bar(get_method(resolved.model).title) as report:
        train(
            cohort,
            out,
            resolved,
            hardware=hardware,
            split=None if split is None else Split.load(split),
            init=init,
            report=report,
        )
    card = read_card(out)
    if as_json:
        told = {"run": out, "name": card["name"], "metrics": card["metrics"], "sha256": card["sha256"]}
        print_json({**told, "starts": card["training"]["starts"]})
    else:
        best, starts = card["metrics"], card["training"]["starts"]
        if starts > 1:
            print(f"The tower died in {starts - 1} warm-up(s); it was started anew from other weights.")
        print(
            f"{out}: {card['title']}, {card['parameters']:,} parameters, best epoch {int(best['epoch']) + 1}, stopping "
            f"patients RMSE {best['stop_mse'] ** 0.5:.3f} SBR, R {best['stop_r']:.3f}\n"
            f"Next: nigradat calibrate {out} {cohort}"
        )


def _dropout(place: str | None, rate: float | None) -> dict[str, Any]:
    from nigradat.errors import ConfigError
    from nigradat.training.config import DROPOUT

    if place is not None and place not in DROPOUT:
        raise ConfigError(f"--dropout {place}", ", ".join(DROPOUT))
    if place == "none" and rate:
        raise ConfigError(f"--dropout none with --dropout-rate {rate:g}", "one or the other")
    return {**(DROPOUT[place] if place else {}), **({} if rate is None else {"head_dropout": rate})}
