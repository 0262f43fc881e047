"""The curves of a run in TensorBoard or MLflow, by MONAI's handlers; files inside the run, no network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Trainer
from monai.handlers import MLFlowHandler, TensorBoardStatsHandler, from_engine

from brats_pipeline.errors import PipelineError
from brats_pipeline.training.distributed import rank

TOOLS = ("tensorboard", "mlflow")


class Tracker:
    """Send the metrics of an engine to a tool; attach one to the trainer and one to the evaluator.

    ``tensorboard`` writes ``run_dir/tensorboard`` and adds the loss of every step; ``mlflow`` writes
    ``run_dir/mlflow.db``, once per epoch. Under several processes rank 0 alone writes.

    Args:
        tool: ``tensorboard`` or ``mlflow``.
        run_dir: folder of the run.

    Raises:
        ValueError: unknown tool.
        PipelineError: the tool is not installed.
    """

    def __init__(self, tool: str, *, run_dir: str | Path) -> None:
        if tool not in TOOLS:
            raise ValueError(f"tracking is {tool!r}; known: {', '.join(TOOLS)}, or null for none")
        if find_spec(tool) is None:
            raise PipelineError(
                f"tracking needs {tool}, which is not installed; `pip install 'brats-pipeline[tracking]'`, or leave "
                "tracking at null: curves.csv and curves.png are always written"
            )
        self.tool = tool
        self.run_dir = Path(run_dir)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer or evaluator."""
        if rank() > 0:
            return
        trains = isinstance(engine, Trainer)
        handler = self._tensorboard(trains) if self.tool == "tensorboard" else self._mlflow(trains)
        handler.attach(engine)
        if trains and self.tool == "tensorboard":
            engine.add_event_handler(Events.COMPLETED, handler.close)

    def _tensorboard(self, trains: bool) -> Any:
        folder = str(self.run_dir / "tensorboard")
        loss = from_engine(["loss"], first=True)
        return TensorBoardStatsHandler(
            log_dir=folder, iteration_log=trains, output_transform=loss, tag_name="step_loss"
        )

    def _mlflow(self, trains: bool) -> Any:
        name = self.run_dir.resolve()
        return MLFlowHandler(
            tracking_uri=f"sqlite:///{name / 'mlflow.db'}",
            iteration_log=False,
            experiment_name="brats-pipeline",
            run_name=name.name,
            close_on_complete=trains,
        )
