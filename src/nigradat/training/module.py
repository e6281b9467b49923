"""The Lightning side of a fit. Every random number is a function of (seed, epoch, step), so that a run that was killed
and resumed takes the same way as one that was not."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from nigradat.io.files import new_file
from nigradat.io.pack import PackedCohort
from nigradat.models.dropout import seed_dropout
from nigradat.models.symmetric import PairRegressor
from nigradat.training.augment import Augmentation, apply_augmentation, draw_augmentation
from nigradat.training.config import TrainConfig
from nigradat.training.data import PairBatches, Place, canonical_tensor, mix
from nigradat.training.loss import log_normal_loss, stop_errors, symmetric_loss
from nigradat.training.split import Split
from nigradat.training.warm_up import (
    FeatureNaming,
    feature_targets,
    has_dead_tower,
    one_cycle,
    start_heads,
    unit_activations,
)

ORDER, AUGMENT, DROPOUT = 1, 2, 3  # streams of random numbers
VISITS_TO_START_FROM = 64


class FitModule(pl.LightningModule):
    """One model, its loss, its optimiser and its batches."""

    def __init__(self, model: PairRegressor, config: TrainConfig, cohort: PackedCohort, split: Split) -> None:
        super().__init__()
        self.model, self.config, self.cohort, self.split = model, config, cohort, split
        # a part of this module, so that it travels in the resume file
        self.average = copy.deepcopy(model).requires_grad_(False) if config.average_decay else None
        self.recipe = Augmentation(**config.to_json()["augmentation"])
        needed = bool(config.warm_up_epochs or config.feature_weight)
        self.naming = FeatureNaming(model) if needed else None
        self.features = feature_targets(cohort, split.rows(cohort, "train")) if needed else None
        self._losses: list[Tensor] = []
        self._feature_losses: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._target: list[Tensor] = []
        self.epoch_values: dict[str, float] = {}

    def train_dataloader(self) -> PairBatches:
        """Shuffled by (seed, epoch); Lightning asks again for each epoch."""
        return PairBatches(
            self.cohort,
            self.split.rows(self.cohort, "train"),
            self.config.batch_size,
            mix(self.config.seed, ORDER, self.current_epoch),
            (self.global_rank, self.trainer.world_size),
            self.features,
        )

    def val_dataloader(self) -> PairBatches:
        """The stopping patients, whole in every process, so that all stop together."""
        return PairBatches(self.cohort, self.split.rows(self.cohort, "stop"), self.config.batch_size)

    @property
    def labelled_epoch(self) -> int:
        """Epochs with labels before this one; negative in the warm-up."""
        return int(self.current_epoch) - self.config.warm_up_epochs

    def on_train_epoch_start(self) -> None:
        """The labels find a tower that knows the features, and an optimiser that has forgotten how it learned them."""
        if self.current_epoch == 0 and self.config.unit_activations:
            unit_activations(self.model, self._some_patches())
        optimiser = self.trainer.optimizers[0]
        for group in optimiser.param_groups:
            group["weight_decay"] = self.config.weight_decay if self.labelled_epoch >= 0 else 0.0
        if self.labelled_epoch == 0:
            labels = self.cohort.sbr[self.split.rows(self.cohort, "train")] / self.config.sbr_max
            patches = self._some_patches() if self.config.unit_activations else None
            start_heads(self.model, patches, labels, self.config.start_at_mean)
            optimiser.state.clear()
            if self.average is not None:
                self.average.load_state_dict(self.model.state_dict())

    def died(self) -> bool:
        """Whether the warm-up left a tower that sees nothing; with a single patch nobody can tell."""
        patches = self._some_patches()
        return len(patches) > 1 and has_dead_tower(self.model, patches)

    def _some_patches(self) -> Tensor:
        rows = self.split.rows(self.cohort, "train")
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), VISITS_TO_START_FROM)).astype(int)]
        return canonical_tensor(np.stack([self.cohort.read(int(i)) for i in some])).to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor, Place], _: int) -> Tensor:
        """Augment, predict, compare. Several processes draw as one would, and each takes what belongs to its pairs."""
        x, target, place = batch
        c, now = self.config, (self.current_epoch, place.number, 0)
        # nothing to be found late in the warm-up: the features are plain to see in a moved patch
        recipe = self.recipe.in_epoch(self.labelled_epoch) if self.labelled_epoch >= 0 else self.recipe
        draw = draw_augmentation(recipe, place.whole, mix(c.seed, AUGMENT, *now)).of(place.positions)
        x, target = apply_augmentation(x, target, draw)
        seed_dropout(self.model, mix(c.seed, DROPOUT, *now), x.device, of=(place.whole, place.positions))
        features = self.model.features(x)
        loss = self._loss_of_labels(features, target[..., 0] / c.sbr_max)
        if self.labelled_epoch >= 0:
            self._losses.append(place.weight * loss.detach())
        if self.naming is None:
            return place.weight * loss
        naming: Tensor = self.naming(features, target[..., 1:])
        self._feature_losses.append(place.weight * naming.detach())
        # both losses in every step: DDP waits for the gradient of every parameter
        return place.weight * (0.0 * loss + naming if self.labelled_epoch < 0 else loss + c.feature_weight * naming)

    def _loss_of_labels(self, features: Tensor, target: Tensor) -> Tensor:
        symmetry = (self.config.resolved_symmetry_weight, self.config.symmetry_eps)
        if self.model.spec.output == "log-normal":
            return log_normal_loss(*self.model.distribution(features), target, *symmetry)
        return symmetric_loss(self.model.heads(features), target, *symmetry)

    @property
    def judged(self) -> PairRegressor:
        """The network that is validated and kept: the running average of the weights where there is one."""
        return self.model if self.average is None else self.average

    def on_train_batch_end(self, *_: object) -> None:
        """Let the running average follow, statistics of normalisations included; it forgets the first steps faster."""
        if self.average is not None:
            step = self.trainer.global_step - self._steps_of(self.config.warm_up_epochs)
            if step <= 0:
                return
            keep = min(self.config.average_decay, (1 + step) / (10 + step))
            for mean, now in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - keep)
                else:  # a normalisation's count of batches
                    mean.copy_(now)

    def validation_step(self, batch: tuple[Tensor, Tensor, Place], _: int) -> None:
        """Predictions of the stopping patients, without dropout."""
        self._predicted.append(self.judged(batch[0]) * self.config.sbr_max)
        self._target.append(batch[1][..., 0])

    def on_validation_epoch_end(self) -> None:
        """Errors over all stopping cases at once."""
        self.epoch_values = {
            "train_loss": self._mean(self._losses),
            "feature_loss": self._mean(self._feature_losses),
            **stop_errors(torch.cat(self._predicted), torch.cat(self._target)),
        }
        for store in (self._losses, self._feature_losses, self._predicted, self._target):
            store.clear()

    def configure_optimizers(self) -> Any:
        """Adam or AdamW, constant or one-cycle; a warm-up has a cycle of its own."""
        c = self.config
        kind = torch.optim.AdamW if c.optimiser == "adamw" else torch.optim.Adam
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimiser = kind(parameters, lr=c.learning_rate, weight_decay=c.weight_decay, eps=c.adam_eps)
        warm_up, labelled = (self._steps_of(n) for n in (c.warm_up_epochs, c.epochs - c.warm_up_epochs))

        def share(step: int) -> float:
            if step < warm_up:
                return one_cycle(step, warm_up) * c.warm_up_rate / c.learning_rate
            return one_cycle(step - warm_up, labelled) if c.schedule == "one-cycle" else 1.0

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _mean(self, values: list[Tensor]) -> float:
        """Over the steps, and over the processes, which all have equally many."""
        return float(self.trainer.strategy.reduce(torch.stack(values).mean())) if values else float("nan")

    def _steps_of(self, epochs: int) -> int:
        return -(-len(self.split.rows(self.cohort, "train")) // self.config.batch_size) * epochs


class BestAndLast(pl.Callback):
    """After each epoch: remember the best weights, stop when patience ends, leave ONE file from which the run goes on.

    The file is written beside itself and renamed; a run killed at any moment finds the last whole epoch.
    """

    def __init__(self, path: Path, patience: int, warm_up_epochs: int, report: Any, start: int = 0) -> None:
        self.path, self.patience, self.warm_up_epochs, self.report = path, patience, warm_up_epochs, report
        self.start = start  # how many before it died
        self.history: list[dict[str, float]] = []
        self.best_epoch = -1
        self.best_state: dict[str, Tensor] = {}
        self.died = False

    @property
    def is_over(self) -> bool:
        """Patience has ended, the warm-up has left nothing to train, or the error is no number any more."""
        if not self.history:
            return False
        return self.died or self.diverged or len(self.history) - 1 - self.best_epoch >= self.patience

    @property
    def diverged(self) -> bool:
        """The error of the last epoch is no number; what was best before is no result of this recipe either."""
        last = self.history[-1]
        learned = last["train_loss" if len(self.history) > self.warm_up_epochs else "feature_loss"]
        return not (np.isfinite(last["stop_mse"]) and np.isfinite(learned))

    def on_train_start(self, trainer: pl.Trainer, module: FitModule) -> None:  # type: ignore[override]
        """A run that was killed after its last epoch has nothing left to train."""
        if self.is_over:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, module: FitModule) -> None:  # type: ignore[override]
        """The validation of this epoch is over by now."""
        values = {"epoch": float(trainer.current_epoch), **module.epoch_values}
        values["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.history.append(values)
        # no epoch of the warm-up is ever the best one
        is_first = len(self.history) <= self.warm_up_epochs + 1
        if is_first or values["stop_mse"] < self.history[self.best_epoch]["stop_mse"]:
            self.best_epoch = len(self.history) - 1
            self.best_state = {k: v.detach().cpu().clone() for k, v in module.judged.state_dict().items()}
        if len(self.history) == self.warm_up_epochs:
            self.died = module.died()
        if self.is_over:
            trainer.should_stop = True
        if trainer.logger is not None:
            trainer.logger.log_metrics(values, step=trainer.current_epoch)
        with new_file(self.path) if trainer.is_global_zero else _nowhere() as hidden:
            trainer.save_checkpoint(hidden, weights_only=False)  # every process takes part
        if trainer.is_global_zero:
            self.report(self.history, self.best_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Travels in the resume file."""
        return {
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_state": self.best_state,
            "died": self.died,
            "diverged": self.diverged,
            "start": self.start,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Back from the resume file."""
        self.history, self.best_epoch, self.best_state = state["history"], state["best_epoch"], state["best_state"]
        self.died, self.start = state["died"], state["start"]


class _nowhere:
    """The place where processes other than the first 'write' their share of a resume file."""

    def __enter__(self) -> str:
        return os.devnull

    def __exit__(self, *_: object) -> None:
        return None
