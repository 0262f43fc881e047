"""Two processes of gloo on the CPU against one process with twice the batch."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from brats_pipeline.bundles import bundle_path, list_bundles
from brats_pipeline.data.datalist import items_for_training
from brats_pipeline.errors import PipelineError
from brats_pipeline.training.distributed import (
    collect,
    rank,
    share,
    shared_sampler,
    start,
    sum_over_processes,
    with_common_batches,
)

SETTINGS: dict[str, Any] = {
    "spacing": [4.0] * 3,
    "patch_size": [16] * 3,
    "roi_size": [32] * 3,
    "network_def::features": 4,
    "network_def::norm": "instance",  # a norm that sees each patch alone
    "network_def::depth": 1,
    "loss_name": "focal",  # no term is pooled over the batch
    "optimizer_name": "sgd",  # a step of Adam is as large where a gradient is nothing but rounding
    "learning_rate": 0.1,
    "ema_decay": 0.9,
    "max_epochs": 3,
    "patches_per_epoch": 8,
    "val_interval": 1,
    "precision": "float32",
}
TIMEOUT_S = 540


def torchrun(arguments: list[object], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *arguments]
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )


def bundle_run(root: Path, names: tuple[str, ...], cwd: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    files = str([str(root / "configs" / name) for name in names])
    given = [part for name, value in settings.items() for part in (f"--{name}", json.dumps(value))]
    return torchrun(["-m", "monai.bundle", "run", "--config_file", files, "--bundle_root", root, *given], cwd)


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "curves.csv").open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch_and_score_as_one(cohort: Path, tmp_path: Path) -> None:
    from brats_pipeline.training.train import train

    one = train(
        "brats_glioma_3d",
        tmp_path / "one",
        data=cohort,
        folds=3,
        device="cpu",
        overrides={**SETTINGS, "batch_size": 4},
    ).run
    two = shutil.copytree(
        bundle_path("brats_glioma_3d"), tmp_path / "two", ignore=shutil.ignore_patterns("models", "__pycache__")
    )
    settings = {**SETTINGS, "batch_size": 2, "data_list_file_path": str(one / "datalist.json")}
    result = bundle_run(two, ("train.yaml", "multi_gpu_train.yaml"), tmp_path, **settings)
    assert result.returncode == 0, result.stderr
    for single, shared in zip(rows(one), rows(two), strict=True):
        assert shared == pytest.approx(single, rel=1e-4, abs=1e-6)
    for name in ("model.pt", "last.pt"):
        first, second = (torch.load(run / "models" / name, weights_only=True) for run in (one, two))
        first, second = first.get("network", first), second.get("network", second)
        assert first.keys() == second.keys()
        for key, tensor in first.items():
            assert torch.allclose(tensor, second[key], rtol=1e-3, atol=1e-5), key
    assert not [path for path in two.rglob("*") if path.name.startswith(".")], "rank 1 wrote nothing, not even half"

    shutil.copy(two / "models" / "model.pt", one / "models" / "model.pt")
    out = tmp_path / "out"
    names = ("train.yaml", "evaluate.yaml", "multi_gpu_evaluate.yaml")
    settings |= {"output_dir": str(out)}
    result = bundle_run(two, names, tmp_path, **settings)
    assert result.returncode == 0, result.stderr
    held_out = {item["case_id"] for item in items_for_training("", str(one / "datalist.json"), fold=0, validation=True)}
    assert {path.name for path in (out / "predictions").iterdir()} == {f"{case}.nii.gz" for case in held_out}
    with (out / "cases.csv").open(newline="") as file:
        assert {row["case_id"] for row in csv.DictReader(file)} == held_out


@pytest.mark.slow
def test_a_case_that_fails_in_one_process_costs_no_other_case_and_no_report(
    own_cohort: Path, run: Path, tmp_path: Path
) -> None:
    listing = json.loads((run / "datalist.json").read_text())
    for item in listing["training"]:
        for key in ("image", "label"):
            paths = item[key] if isinstance(item[key], list) else [item[key]]
            moved = [str(own_cohort / Path(path).parent.name / Path(path).name) for path in paths]
            item[key] = moved if isinstance(item[key], list) else moved[0]
    (tmp_path / "datalist.json").write_text(json.dumps(listing))
    held_out = [item for item in listing["training"] if item["fold"] == 0]
    damaged = Path(held_out[1]["image"][0])  # the share of rank 1
    damaged.write_bytes(damaged.read_bytes()[:3000])

    out = tmp_path / "evaluated"
    settings = {"data_list_file_path": str(tmp_path / "datalist.json"), "output_dir": str(out)}
    result = bundle_run(run, ("train.yaml", "evaluate.yaml", "multi_gpu_evaluate.yaml"), tmp_path, **settings)
    assert result.returncode != 0
    assert f"1 cases failed, the others are finished: {held_out[1]['case_id']}" in result.stderr
    assert (out / "report.html").is_file()
    assert (out / "manifest.json").is_file()
    with (out / "cases.csv").open(newline="") as file:
        assert {row["case_id"] for row in csv.DictReader(file)} == {item["case_id"] for item in held_out}

    out = tmp_path / "segmented"
    result = bundle_run(run, ("inference.yaml",), tmp_path, dataset_dir=str(own_cohort), output_dir=str(out))
    assert result.returncode == 0, result.stderr
    assert f"1 cases failed, the others are finished: {held_out[1]['case_id']}" in result.stdout + result.stderr
    assert len(list(out.glob("*.nii.gz"))) == len(list(own_cohort.iterdir())) - 1


DYING = """
import os, torch
from brats_pipeline.training.distributed import rank, start, sum_over_processes
from brats_pipeline.training.failures import explained
from pathlib import Path
start()
if rank() == 1:
    os._exit(7)
try:
    sum_over_processes(torch.ones(1))
except Exception as error:
    told = explained(error, epoch=2, last=Path("last.pt"))
    raise told from error
"""


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    result = torchrun([tmp_path / "dying.py"], tmp_path)
    assert result.returncode != 0
    assert "exitcode: 7" in result.stderr.replace(" ", "").replace("exitcode:7", "exitcode: 7")


def test_without_torchrun_everything_is_that_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    values, told = torch.tensor([1.0, 2.0]), {"a": 1}
    assert rank() == 0
    collect(told)
    assert told == {"a": 1}
    assert sum_over_processes(values) is values
    with pytest.raises(PipelineError, match=r"needs several processes; .*torchrun"):
        start()


def test_batch_norms_are_common_on_gpus_only() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    assert type(with_common_batches(network, torch.device("cpu"))[0]) is torch.nn.BatchNorm2d  # type: ignore[index]
    names = list(network.state_dict())
    common = with_common_batches(network, torch.device("cuda"))
    assert isinstance(common[0], torch.nn.SyncBatchNorm)  # type: ignore[index]
    assert list(common.state_dict()) == names


@pytest.mark.parametrize("world", [2, 3])
def test_step_for_step_the_processes_see_the_patches_of_one(world: int) -> None:
    from monai.data import DataLoader, DistributedSampler

    batch, items = 2, list(range(12))
    one = [sorted(step.tolist()) for step in DataLoader(items, batch_size=world * batch)]
    samplers = [
        DistributedSampler(items, even_divisible=True, num_replicas=world, rank=number, shuffle=False)  # type: ignore[arg-type]
        for number in range(world)
    ]
    loaders = [DataLoader(items, batch_size=batch, sampler=sampler) for sampler in samplers]
    several = [sorted(int(i) for part in parts for i in part) for parts in zip(*loaders, strict=True)]
    assert several == one


@pytest.fixture
def as_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """What follows is done by the process of this number, of two."""

    def become(number: int) -> None:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: number)

    return become


def taken(as_process: Callable[[int], None], items: int, *, whole: bool) -> list[list[int]]:
    """The items of each of two processes."""
    both = []
    for number in range(2):
        as_process(number)
        both.append(list(shared_sampler(range(items), whole=whole)))
    return both


def test_what_is_validated_is_shared_out_each_item_once(as_process: Callable[[int], None]) -> None:
    first, second = taken(as_process, 5, whole=True)
    assert sorted([*first, *second]) == [0, 1, 2, 3, 4]


def test_of_what_is_trained_each_process_takes_as_much(as_process: Callable[[int], None]) -> None:
    first, second = taken(as_process, 5, whole=False)
    assert len(first) == len(second) == 3
    assert {*first, *second} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_cases_than_processes_go_to_each_entire(as_process: Callable[[int], None], number: int) -> None:
    as_process(number)
    assert shared_sampler(range(1), whole=True) is None
    assert list(shared_sampler(range(2), whole=True)) == [number]


@pytest.mark.parametrize("number", [0, 1])
def test_a_table_that_is_collected_holds_the_entries_of_every_process(
    as_process: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tables: list[dict[str, int]] = [{"a": 1}, {"b": 2}]

    def gather(into: list[dict[str, int]], told: dict[str, int]) -> None:
        into[:] = [told if process == number else dict(table) for process, table in enumerate(tables)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    as_process(number)
    collect(tables[number])
    assert tables[number] == {"a": 1, "b": 2}


@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda path: path.name)
def test_the_overlays_do_all_that_their_base_does_at_the_start(bundle: Path) -> None:
    def initialize(name: str) -> list[str]:
        lines: list[str] = yaml.safe_load((bundle / "configs" / name).read_text())["initialize"]
        return lines

    started = "$brats_pipeline.training.distributed.start()"
    for base in ("train.yaml", "evaluate.yaml"):
        several = initialize(f"multi_gpu_{base}")
        assert several.index(started) < several.index("$monai.utils.set_determinism(seed=@seed)")
        assert [line for line in several if line != started] == initialize(base)


def test_gradients_are_shared_without_changing_the_names_that_are_saved(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        network = torch.nn.Linear(2, 1)
        shared = share(network, torch.device("cpu"))
        assert shared.module is network
    finally:
        torch.distributed.destroy_process_group()
