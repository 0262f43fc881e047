"""A training of milliseconds: one convolution on four fixed pictures, recorded like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Toy:
    """Everything of one training."""

    network: Any
    trainer: Any
    evaluator: Any
    recorder: Any
    optimizer: Any

    def run(self) -> None:
        self.recorder.attach(self.trainer)
        self.trainer.run()


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Toy]:
    """Builds a training in ``tmp_path / "toy"``; each call starts from the same weights."""

    def build(
        *,
        epochs: int = 3,
        interval: int = 1,
        lr: float = 0.1,
        decay: float = 0.0,
        loss: Any = None,
        handlers: tuple[Any, ...] = (),
        out: Path = tmp_path / "toy",
        **recording: Any,
    ) -> Toy:
        import torch
        from monai.data import DataLoader
        from monai.engines import SupervisedEvaluator, SupervisedTrainer
        from monai.handlers import IgniteMetricHandler, LrScheduleHandler, ValidationHandler, from_engine
        from monai.metrics import DiceMetric
        from monai.transforms import AsDiscreted

        from brats_pipeline.training.ema import average_of
        from brats_pipeline.training.logit_metrics import MeanLoss, PooledDice
        from brats_pipeline.training.optimization import make_schedule
        from brats_pipeline.training.recorder import RunRecorder

        random = torch.Generator().manual_seed(3)
        pictures = torch.randn(4, 1, 8, 8, generator=random)
        data = [{"image": picture, "label": (picture > 0.3).float()} for picture in pictures]
        network = torch.nn.Conv2d(1, 1, 3, padding=1)
        with torch.no_grad():
            network.weight.copy_(torch.linspace(-0.5, 0.5, 9).reshape(1, 1, 3, 3))
            network.bias.zero_()
        loss = loss or torch.nn.BCEWithLogitsLoss()
        average = average_of(network, decay=decay)
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
        schedule = make_schedule("cosine", optimizer, epochs=epochs, steps_per_epoch=2)
        evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=DataLoader(data[:2], batch_size=1),
            network=network if average is None else average.module,
            postprocessing=AsDiscreted("pred", threshold=0.0),
            key_val_metric={
                "val_mean_dice": IgniteMetricHandler(
                    metric_fn=DiceMetric(ignore_empty=False), output_transform=from_engine(["pred", "label"])
                )
            },
            additional_metrics={"val_loss": MeanLoss(loss)},
        )
        trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=DataLoader(data, batch_size=2),
            network=network,
            optimizer=optimizer,
            loss_function=loss,
            key_train_metric={"train_mean_dice": PooledDice()},
            train_handlers=[
                LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
                *handlers,
                ValidationHandler(interval=interval, validator=evaluator, epoch_level=True),
            ],
        )
        recorder = RunRecorder(
            out,
            network=network,
            average=average,
            optimizer=optimizer,
            lr_scheduler=schedule,
            evaluator=evaluator,
            regions=["WT"],
            **recording,
        )
        return Toy(network, trainer, evaluator, recorder, optimizer)

    return build
