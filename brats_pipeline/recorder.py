"""What a training run leaves on disk: the best and the last checkpoint, and its curves."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically
from brats_pipeline.weights import read_checkpoint, write_checkpoint

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SCHEDULE_SHAPE = ("base_lrs", "t_total", "warmup_steps", "T_max", "total_iters")
"""What the configuration says of a learning-rate schedule: a resumed run may ask for more epochs than before."""


class RunRecorder:
    """A MONAI handler that writes a run after every epoch; attach it last, behind validation and schedule.

    ``models/model.pt`` holds the bare state dict of the best epoch (highest key metric of ``evaluator``; the last epoch
    while nothing was validated). ``models/last.pt`` holds what :meth:`resume` needs. ``curves.csv`` and ``curves.png``
    grow with the epochs. Each epoch starts from a random seed of its own, so that a resumed run repeats an
    uninterrupted one. Before the first epoch, data sets with ``load`` load every case.

    Args:
        run_dir: folder of the run.
        network: its state dict is saved as ``model.pt``.
        trained_network: what the trainer runs, where that is more than ``network``, such as
            :class:`networks.DeepSupervision` around it.
        optimizer: of the trainer.
        lr_scheduler: of the trainer.
        evaluator: MONAI's, or None; it validates in between and after the last epoch. Its key metric decides, its
            ``metric_details`` give one value per region.
        patches: a data set with ``set_epoch``, told each epoch's number.
        regions: names of the columns in ``metric_details``.
        seed: of dropout and whatever else draws from torch's generator.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        network: nn.Module,
        trained_network: nn.Module | None = None,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        evaluator: Any = None,
        patches: Any = None,
        regions: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.network = network
        self.trained_network = network if trained_network is None else trained_network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.patches = patches
        self.regions = tuple(regions)
        self.seed = seed
        self.history: list[dict[str, float]] = []
        self.best = -math.inf
        self.trainer: Engine | None = None
        self._validated = False
        self._losses: list[float] = []
        self._started = 0.0

    @property
    def last_path(self) -> Path:
        """Where the checkpoint to resume from lies."""
        return self.run_dir / "models" / "last.pt"

    @property
    def best_path(self) -> Path:
        """Where the best weights lie."""
        return self.run_dir / "models" / "model.pt"

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        self.trainer = engine
        engine.add_event_handler(Events.STARTED, self.load_cases)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self.validation_completed)

    def resume(self) -> None:
        """Continue from ``models/last.pt``; without it, from the start.

        Raises:
            PipelineError: the checkpoint is damaged or belongs to another network.
        """
        if self.trainer is None or not self.last_path.is_file():
            return
        checkpoint = read_checkpoint(self.last_path)
        try:
            self.trained_network.load_state_dict(checkpoint["network"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            configured = self.lr_scheduler.state_dict()
            shape = {name: configured[name] for name in SCHEDULE_SHAPE if name in configured}
            self.lr_scheduler.load_state_dict({**checkpoint["lr_scheduler"], **shape})
            self.history = checkpoint["history"]
            self.best = checkpoint["best"]
            epoch = int(checkpoint["epoch"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise PipelineError(
                f"{self.last_path}: cannot be continued by this configuration ({reason}); "
                "resume with the run's own configuration, or train into a new folder"
            ) from error
        self.trainer.state.epoch = epoch
        self.trainer.state.iteration = epoch * int(self.trainer.state.epoch_length or 0)
        if self.history:
            self._write_curves()  # the checkpoint may be one epoch ahead of them
        logger.info("continue after epoch %d", epoch)

    def load_cases(self, engine: Engine) -> None:
        """Load the cases of training and validation: a bad one ends the run now, not when it is first drawn."""
        validation = getattr(self.evaluator, "data_loader", None)
        for data in (self.patches, getattr(validation, "dataset", None)):
            load = getattr(data, "load", None)
            if load is not None:
                load()

    def validation_completed(self, engine: Engine) -> None:
        # The engine keeps one dictionary of metrics for all its runs, so it cannot be told from the metrics.
        self._validated = True

    def epoch_started(self, engine: Engine) -> None:
        torch.manual_seed(self.seed + engine.state.epoch)
        if self.patches is not None:
            self.patches.set_epoch(engine.state.epoch)
        self._losses = []
        self._started = time.monotonic()

    def iteration_completed(self, engine: Engine) -> None:
        output: Any = engine.state.output
        loss = float(output[0]["loss"])
        if not math.isfinite(loss):
            raise PipelineError(
                f"the loss became {loss} in epoch {engine.state.epoch}; the checkpoint of the last whole epoch is kept "
                f"in {self.last_path}; lower the learning rate, or set precision to float32"
            )
        self._losses.append(loss)

    def epoch_completed(self, engine: Engine) -> None:
        epoch = int(engine.state.epoch)
        row: dict[str, float] = {
            "epoch": epoch,
            "iteration": int(engine.state.iteration),
            "loss": sum(self._losses) / max(1, len(self._losses)),
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": time.monotonic() - self._started,
        }
        if self.evaluator is not None and not self._validated and epoch == engine.state.max_epochs:
            self.evaluator.run(epoch)  # the interval of validation need not divide the number of epochs
        score = self._validation(epoch, row)
        self.history.append(row)
        # Until the first validation, every epoch is the best so far.
        improved = score > self.best if score is not None else self.best == -math.inf
        if score is not None:
            self.best = max(self.best, score)
        if improved or not self.best_path.is_file():
            write_checkpoint(self.best_path, self.network.state_dict())
        write_checkpoint(
            self.last_path,
            {
                "schema_version": SCHEMA_VERSION,
                "network": self.trained_network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "lr_scheduler": self.lr_scheduler.state_dict(),
                "history": self.history,
                "best": self.best,
                "epoch": epoch,
            },
        )
        self._write_curves()

    def _validation(self, epoch: int, row: dict[str, float]) -> float | None:
        """Add the metrics to ``row`` where this epoch was validated; returns the key metric."""
        state: Any = self.evaluator.state if self.evaluator is not None else None
        if state is None or not state.metrics or not self._validated:
            return None
        self._validated = False
        name = next(iter(state.metrics))
        row["val_dice"] = float(state.metrics[name])
        details = state.metric_details.get(name)
        if details is not None:
            for region, column in zip(self.regions, torch.as_tensor(details).nanmean(dim=0).tolist(), strict=True):
                row[f"val_dice_{region}"] = column
        logger.info("epoch %d: loss %.4f, validation Dice %.4f", epoch, row["loss"], row["val_dice"])
        return row["val_dice"]

    def _write_curves(self) -> None:
        write_atomically(self.run_dir / "curves.csv", self.as_csv())
        write_atomically(self.run_dir / "curves.png", self.as_png())

    def as_csv(self) -> str:
        """The curves, one row per epoch; validation columns are empty where an epoch was not validated."""
        columns = list(dict.fromkeys(name for row in self.history for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            for row in self.history
        )
        return text.getvalue()

    def as_png(self) -> bytes:
        """Loss and validation Dice over the epochs, as a picture."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        left.plot([row["epoch"] for row in self.history], [row["loss"] for row in self.history], color="#0072B2")
        left.set(title="training", xlabel="epoch", ylabel="loss")
        validated = [row for row in self.history if "val_dice" in row]
        epochs = [row["epoch"] for row in validated]
        colours = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
        for region, colour in zip(self.regions, colours, strict=False):
            values = [row.get(f"val_dice_{region}", math.nan) for row in validated]
            right.plot(epochs, values, marker=".", color=colour, label=region)
        right.plot(epochs, [row["val_dice"] for row in validated], marker=".", color="black", label="mean")
        right.set(title="validation", xlabel="epoch", ylabel="Dice", ylim=(0, 1))
        if validated:
            right.legend(frameon=False)
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()
