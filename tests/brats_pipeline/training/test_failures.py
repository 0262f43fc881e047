"""What a training can die of: one clear message, the last whole epoch kept, and an exit code that says so."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.training import losses
from brats_pipeline.training.failures import explained
from brats_pipeline.weights import read_checkpoint

NO_CPU_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "884736000000 bytes. Error code 12 (Cannot allocate memory)"
)
NO_GPU_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of")


class Failing(torch.nn.BCEWithLogitsLoss):
    """A loss that goes wrong in the second epoch of the toy training (two steps each)."""

    def __init__(self, trouble: BaseException | float) -> None:
        super().__init__()
        self.trouble = trouble
        self.calls = 0

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():  # training, not validation
            self.calls += 1
        loss = super().forward(input, target)
        if self.calls < 4:
            return loss
        if isinstance(self.trouble, float):
            return loss * self.trouble
        raise self.trouble


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (float("nan"), r"the loss became nan in epoch 2; .*Lower the learning rate"),
        (float("inf"), r"the loss became inf in epoch 2"),
        (
            NO_GPU_MEMORY,
            r"memory of the GPU did not suffice in epoch 2 \(CUDA out of memory.*GiB\.\); .*Lower batch_size",
        ),
        (NO_CPU_MEMORY, r"memory of the machine did not suffice in epoch 2"),
        (MemoryError(), r"memory of the machine did not suffice in epoch 2 \(MemoryError\)"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), r"Lower num_workers"),
        (RuntimeError("Connection closed by peer [127.0.0.1]:1"), r"another process of this training ended in epoch 2"),
        (OSError(errno.EIO, "Input/output error", "/scan.nii"), r"Input/output error: '/scan.nii'.* in epoch 2"),
    ],
    ids=["nan", "inf", "gpu", "cpu", "memory", "worker", "peer", "disk"],
)
def test_a_training_that_dies_says_why_and_keeps_the_last_whole_epoch(
    toy: Callable[..., Any], trouble: BaseException | float, message: str
) -> None:
    training = toy(epochs=3, loss=Failing(trouble))
    with pytest.raises(PipelineError, match=message) as caught:
        training.run()
    assert str(training.recorder.last_path) in str(caught.value)
    kept = read_checkpoint(training.recorder.last_path)
    assert kept["epoch"] == 1
    assert all(bool(tensor.isfinite().all()) for tensor in kept["network"].values())
    repaired = toy(epochs=3)
    repaired.recorder.attach(repaired.trainer)
    repaired.recorder.resume()
    repaired.trainer.run()
    assert [row["epoch"] for row in repaired.recorder.history] == [1, 2, 3]


def test_other_errors_and_interrupts_come_out_as_they_are(toy: Callable[..., Any]) -> None:
    for trouble in (ZeroDivisionError("a defect"), KeyboardInterrupt(), CaseError("case", "unreadable")):
        with pytest.raises(type(trouble)) as caught:
            toy(epochs=2, loss=Failing(trouble)).run()
        assert caught.value is trouble


def test_without_a_whole_epoch_it_does_not_promise_a_checkpoint(tmp_path: Path) -> None:
    told = explained(MemoryError(), epoch=1, last=tmp_path / "last.pt")
    assert "no epoch was finished, so there is no checkpoint" in str(told)


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(
    toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = toy(epochs=3)
    before: dict[Path, bytes] = {}

    def fill(engine: Any) -> None:
        if engine.state.epoch == 2:
            before.update({path: path.read_bytes() for path in training.recorder.run_dir.rglob("*") if path.is_file()})
            monkeypatch.setattr(os, "fsync", full)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    training.trainer.add_event_handler("EPOCH_STARTED", fill)
    with pytest.raises(PipelineError, match=r"No space left on device.*free disk space"):
        training.run()
    assert before
    assert before == {path: path.read_bytes() for path in training.recorder.run_dir.rglob("*") if path.is_file()}


def train_command(command: Callable[..., Any], cohort: Path, out: Path, settings: dict[str, Any]) -> Any:
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    where = ("--data", cohort, "--folds", 3, "-o", out, "--device", "cpu", "--quiet")
    return command("train", "brats_glioma_3d", *where, *given)


@pytest.mark.parametrize("trouble", ["memory", "nan", "case", "disk"])
def test_the_command_line_ends_with_one_message_and_an_exit_code(
    quick_settings: dict[str, Any],
    trouble: str,
    cohort: Path,
    command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from brats_pipeline.data.datasets import PatchDataset
    from brats_pipeline.training.recorder import RunRecorder

    def dies(_: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if trouble == "nan":
            return logits.sum() * float("nan")
        raise NO_CPU_MEMORY

    def unreadable(self: PatchDataset, index: int) -> Any:
        raise CaseError(str(self.data[index]["case_id"]), "the file is damaged")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    written = RunRecorder.epoch_completed

    def then_trouble(self: RunRecorder, engine: Any) -> None:
        written(self, engine)
        if trouble == "case":
            monkeypatch.setattr(PatchDataset, "__getitem__", unreadable)
        elif trouble == "disk":
            monkeypatch.setattr(os, "fsync", full)
        else:
            monkeypatch.setattr(losses.DiceBCELoss, "forward", dies)

    monkeypatch.setattr(RunRecorder, "epoch_completed", then_trouble)
    outcome = train_command(command, cohort, tmp_path / "run", {**quick_settings, "max_epochs": 3, "val_interval": 5})
    assert outcome.code != 0
    messages = {"memory": "did not suffice", "nan": "became nan", "case": "is damaged", "disk": "No space left"}
    assert messages[trouble] in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err
    assert read_checkpoint(tmp_path / "run" / "models" / "last.pt")["epoch"] == 1
    if trouble != "disk":
        assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(("fold", "held"), [(1, "train"), (0, "validate")])
def test_a_fold_that_leaves_nothing_to_train_or_validate_is_refused(
    fold: int, held: str, cohort: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    from brats_pipeline.cases import find_cases
    from brats_pipeline.data.datalist import split_cases, write_datalist

    items = [{**item, "fold": 1} for item in split_cases(find_cases(cohort), folds=3)["training"]]
    write_datalist({"training": items}, tmp_path / "datalist.json")
    outcome = command(
        "train", "brats_glioma_3d", "--datalist", tmp_path / "datalist.json", "-o", tmp_path / "run", "--fold", fold
    )
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err
    assert "fold" in outcome.err
    assert not (tmp_path / "run").exists()
