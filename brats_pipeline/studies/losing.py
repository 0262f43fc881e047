"""The loss of a trained run on the cases it is tested on, by the run's own configuration."""

from __future__ import annotations

from pathlib import Path

from brats_pipeline.bundles import open_workflow, plain_errors, weights_path
from brats_pipeline.errors import PipelineError
from brats_pipeline.weights import load_weights


def loss_of_run(run: Path, datalist: Path, *, fold: int, device: str | None = None) -> float:
    """Mean loss over the cases of a fold: the validation of the run's training, turned to another fold.

    Args:
        run: with weights.
        datalist: that holds the fold.
        fold: the one the run never saw.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the first GPU, else the CPU.

    Raises:
        PipelineError: the run's configuration does not measure a validation loss.
    """
    told = {"data_list_file_path": str(datalist), "fold": fold, "resume": False}
    if device is not None:
        told["device"] = f"$torch.device('{device}')"
    workflow = open_workflow(run, ["train.yaml"], workflow_type="train", overrides=told)
    with plain_errors():
        evaluator = workflow.parser.get_parsed_content("validate::evaluator")
        load_weights(evaluator.network, weights_path(run))  # where weights are averaged, it has a network of its own
        evaluator.run()
    loss = evaluator.state.metrics.get("val_loss")
    if loss is None:
        raise PipelineError(f"{run}: its configuration measures no val_loss; leave out evaluation.test_loss")
    return float(loss)
