"""Training: what a run holds, that it follows from its seed, and that it continues as if nothing had happened."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from brats_pipeline.cases import find_cases
from brats_pipeline.data.datalist import split_cases, write_datalist
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.files import file_sha256
from brats_pipeline.inference.segment import segment
from brats_pipeline.locking import claimed
from brats_pipeline.overlays import TUNED
from brats_pipeline.phantom import write_cohort
from brats_pipeline.training.train import train

FOLDS = 3


def weights(run: Path, name: str = "model.pt") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "models" / name, weights_only=True)
    return content.get("network", content)


def same_weights(one: Path, other: Path, name: str = "model.pt") -> bool:
    first, second = weights(one, name), weights(other, name)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def curves(run: Path) -> list[dict[str, str]]:
    """The rows of curves.csv without wall times."""
    with (run / "curves.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def begun(quick: Callable[..., Path], cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seed 5 and fold 1 after one epoch; must not be changed."""
    return quick(tmp_path_factory.mktemp("begun") / "run", cohort, seed=5, fold=1, overrides={"max_epochs": 1})


def test_a_run_holds_its_configuration_weights_curves_and_record(run: Path) -> None:
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    wanted = {"configs/train.yaml", "configs/inference.yaml", "configs/evaluate.yaml", "configs/metadata.json"}
    wanted |= {"models/model.pt", "models/last.pt", "curves.csv", "curves.png", "run.json", "datalist.json"}
    assert wanted <= files
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["epochs"] == 4
    assert record["bundle"] == "brats_glioma_3d"
    assert record["overrides"]["spacing"] == [4.0] * 3
    assert set(record["versions"]) >= {"torch", "monai", "python", "brats-pipeline"}


def test_no_temporary_file_remains_in_a_run(run: Path) -> None:
    assert not [path for path in run.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


def test_curves_have_a_row_per_epoch_and_a_score_wherever_an_epoch_was_validated(run: Path) -> None:
    rows = curves(run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["val_dice"]) for row in rows] == [False, True, False, True]
    for row in rows[1::2]:
        regions = [float(row[f"val_dice_{region}"]) for region in ("WT", "TC", "ET")]
        assert float(row["val_dice"]) == pytest.approx(sum(regions) / 3, abs=1e-4)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["learning_rate"]) < float(rows[0]["learning_rate"])


def test_the_picture_of_the_curves_decodes(run: Path) -> None:
    from PIL import Image

    with Image.open(run / "curves.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(set(picture.convert("L").tobytes())) > 10


def test_every_epoch_is_validated_where_the_interval_is_one(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path
) -> None:
    rows = curves(quick(tmp_path / "run", cohort, overrides={"max_epochs": 3}))
    assert all(row["val_dice"] for row in rows)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(run: Path, cohort: Path, tmp_path: Path) -> None:
    again = train(
        "brats_glioma_3d",
        tmp_path / "again",
        data=cohort,
        folds=FOLDS,
        device="cpu",
        overrides={
            name: value
            for name, value in json.loads((run / "run.json").read_text())["overrides"].items()
            if name not in ("seed", "fold")
        },
    ).run
    assert same_weights(run, again)
    assert same_weights(run, again, "last.pt")
    assert curves(run) == curves(again)


def test_another_seed_gives_other_weights(quick: Callable[..., Path], cohort: Path, tmp_path: Path) -> None:
    one = quick(tmp_path / "one", cohort, seed=1, overrides={"max_epochs": 1})
    other = quick(tmp_path / "other", cohort, seed=2, overrides={"max_epochs": 1})
    assert not same_weights(one, other)


def test_a_folder_with_a_run_is_refused_without_resume(run: Path, cohort: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(PipelineError, match="--resume"):
        train("brats_glioma_3d", run, data=cohort)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_resuming_a_finished_run_changes_neither_weights_nor_curves(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "curves.csv").unlink()  # as if killed between the checkpoint and the curves
    result = train("brats_glioma_3d", copy, resume=True, device="cpu")
    assert result.epochs == 4
    assert same_weights(run, copy)
    assert curves(run) == curves(copy)


def test_the_record_of_a_resumed_run_tells_its_own_seed_and_fold(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path
) -> None:
    run = quick(tmp_path / "run", cohort, seed=5, fold=1, overrides={"max_epochs": 1})
    train("brats_glioma_3d", run, resume=True, device="cpu", overrides={"max_epochs": 2})
    record = json.loads((run / "run.json").read_text())
    assert (record["seed"], record["fold"], record["resumed"]) == (5, 1, True)
    assert record["overrides"]["max_epochs"] == 2
    assert record["overrides"]["spacing"] == [4.0] * 3


def test_more_epochs_on_resume_continue_the_curves_on_the_longer_schedule(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path
) -> None:
    run = quick(tmp_path / "run", cohort)
    assert float(curves(run)[-1]["learning_rate"]) == 0
    result = train("brats_glioma_3d", run, resume=True, device="cpu", overrides={"max_epochs": 6})
    assert result.epochs == 6
    rows = curves(run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    rates = [float(row["learning_rate"]) for row in rows[2:]]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0
    assert rates[-1] == 0


def test_a_loss_that_is_no_number_stops_with_a_clear_message_and_keeps_the_last_checkpoint(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brats_pipeline.training.losses import DiceBCELoss

    whole = quick(tmp_path / "whole", cohort, overrides={"max_epochs": 1})
    steps = iter(range(100))
    forward = DiceBCELoss.forward

    def broken(self: Any, logits: Any, target: Any) -> Any:
        trains = logits.requires_grad  # a validation has a loss, too
        return forward(self, logits, target) * (float("nan") if trains and next(steps) >= 1 else 1)

    monkeypatch.setattr(DiceBCELoss, "forward", broken)
    with pytest.raises(PipelineError, match=r"loss became nan in epoch 2.*Lower the learning rate"):
        quick(tmp_path / "run", cohort, overrides={"max_epochs": 2})
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert [row["epoch"] for row in curves(tmp_path / "run")] == ["1"]
    assert all(bool(tensor.isfinite().all()) for tensor in weights(tmp_path / "run", "last.pt").values())
    assert weights(whole, "last.pt").keys() == weights(tmp_path / "run", "last.pt").keys()


def test_the_best_weights_are_those_of_the_best_validation(
    quick_settings: dict[str, Any], cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brats_pipeline.training.recorder import RunRecorder

    scores = {1: 0.2, 2: 0.7, 3: 0.4}
    kept: dict[int, dict[str, Any]] = {}

    def validation(self: RunRecorder, epoch: int, row: dict[str, float]) -> float:
        kept[epoch] = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        row["val_dice"] = scores[epoch]
        return scores[epoch]

    monkeypatch.setattr(RunRecorder, "_validation", validation)
    out = tmp_path / "run"
    result = train(
        "brats_glioma_3d", out, data=cohort, folds=FOLDS, device="cpu", overrides={**quick_settings, "max_epochs": 3}
    )
    assert result.best_dice == 0.7
    best, last = weights(out), weights(out, "last.pt")
    assert all(torch.equal(best[name], kept[2][name]) for name in best)
    assert all(torch.equal(last[name], kept[3][name]) for name in last)


def test_the_last_epoch_is_validated_whatever_the_interval(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path
) -> None:
    rows = curves(quick(tmp_path / "run", cohort, overrides={"val_interval": 2, "max_epochs": 3}))
    assert [bool(row["val_dice"]) for row in rows] == [False, True, True]


def test_without_a_fold_every_case_trains_and_nothing_validates(
    quick_settings: dict[str, Any], make_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    two = make_cohort(cases=2)
    result = train(
        "brats_glioma_3d",
        tmp_path / "run",
        data=two,
        fold=None,
        device="cpu",
        overrides={**quick_settings, "max_epochs": 1},
    )
    assert result.best_dice is None
    assert len(json.loads((result.run / "datalist.json").read_text())["training"]) == 2
    assert "val_dice" not in curves(result.run)[0]
    best, last = weights(result.run), weights(result.run, "last.pt")
    assert all(torch.equal(best[name], last[name]) for name in last)


def test_a_datalist_takes_the_place_of_a_folder(quick: Callable[..., Path], cohort: Path, tmp_path: Path) -> None:
    listing = split_cases(find_cases(cohort), folds=2, seed=3)
    write_datalist(listing, tmp_path / "lists" / "datalist.json")
    run = quick(
        tmp_path / "run", cohort, data=None, datalist=tmp_path / "lists" / "datalist.json", overrides={"max_epochs": 1}
    )
    kept = json.loads((run / "datalist.json").read_text())["training"]
    assert {item["case_id"]: item["fold"] for item in kept} == {
        item["case_id"]: item["fold"] for item in listing["training"]
    }


@pytest.mark.parametrize("fold", [0, None])
def test_a_run_keeps_all_that_its_datalist_says(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path, fold: int | None
) -> None:
    unmarked = [replace(case, label=None) if number == 0 else case for number, case in enumerate(find_cases(cohort))]
    write_datalist(split_cases(unmarked, folds=2, seed=3, name="mine"), tmp_path / "datalist.json")
    given = json.loads((tmp_path / "datalist.json").read_text())
    settings = {"max_epochs": 1}
    run = quick(tmp_path / "run", cohort, data=None, datalist=tmp_path / "datalist.json", fold=fold, overrides=settings)
    kept = json.loads((run / "datalist.json").read_text())
    assert len(kept["testing"]) == 1
    assert kept == given
    assert {"layout", "convention", "modalities", "seed", "folds", "case_list_sha256"} <= kept.keys()


def test_a_run_on_every_case_of_a_folder_says_what_it_was_trained_on(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path
) -> None:
    split = split_cases(find_cases(cohort), folds=2)
    run = quick(tmp_path / "run", cohort, fold=None, overrides={"max_epochs": 1})
    kept = json.loads((run / "datalist.json").read_text())
    for name in ("layout", "convention", "modalities", "case_list_sha256"):
        assert kept[name] == split[name]


def test_headers_of_the_cases_of_a_datalist_are_checked(
    quick: Callable[..., Path], own_cohort: Path, tmp_path: Path
) -> None:
    write_datalist(split_cases(find_cases(own_cohort), folds=2), tmp_path / "datalist.json")
    spoilt = sorted(own_cohort.rglob("*_t2.nii.gz"))[2]
    scan: Any = nib.load(spoilt)
    nib.save(nib.Nifti1Image(np.asarray(scan.dataobj)[:-4], scan.affine), spoilt)
    with pytest.raises(CaseError, match=spoilt.parent.name):
        quick(tmp_path / "run", own_cohort, data=None, datalist=tmp_path / "datalist.json", fold=0)
    assert not (tmp_path / "run").exists()


def test_folder_and_datalist_together_or_neither_are_refused(cohort: Path, tmp_path: Path) -> None:
    for given in ({}, {"data": cohort, "datalist": tmp_path / "datalist.json"}):
        with pytest.raises(PipelineError, match="--data"):
            train("brats_glioma_3d", tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("setting", [{"max_epoch": 3}, {"network_def::widht::x": 4}, {"nothing::there": 1}])
def test_an_unknown_setting_is_refused_by_name_and_leaves_nothing(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path, setting: dict[str, Any]
) -> None:
    with pytest.raises(PipelineError, match=next(iter(setting))):
        quick(tmp_path / "run", cohort, overrides=setting)
    assert not (tmp_path / "run").exists()


def blank(label: Path) -> None:
    """Take the tumour out of a label map, or out of the mask of a slice."""
    if label.suffix == ".tif":
        Image.fromarray(np.zeros_like(np.asarray(Image.open(label)))).save(label)
    else:
        scan: Any = nib.load(label)
        nib.save(nib.Nifti1Image(np.zeros(scan.shape, np.uint8), scan.affine), label)


@pytest.mark.parametrize("bundle", ["brats_glioma_3d", "brats_slices_2d", "lgg_slices_2d"])
def test_cases_without_any_tumour_train_like_all_others(
    quick_settings: dict[str, Any], bundle: str, tmp_path: Path
) -> None:
    lgg = bundle.startswith("lgg")
    shape: dict[str, Any] = (
        {"layout": "lgg", "shape": (32, 32, 8)} if lgg else {"shape": (40, 40, 36), "spacing_mm": 4.0}
    )
    write_cohort(tmp_path / "cohort", cases=2, **shape)
    for label in (tmp_path / "cohort").rglob("*_mask.tif" if lgg else "*_seg.nii.gz"):
        blank(label)
    settings = quick_settings | {
        "patch_size": [32] * (3 if "3d" in bundle else 2),
        "patches_per_epoch": 8,
        "max_epochs": 1,
    }
    unknown = ([] if "3d" in bundle else ["roi_size"]) + (["spacing"] if lgg else [])
    overrides = {name: value for name, value in settings.items() if name not in unknown}
    out = tmp_path / "run"
    result = train(bundle, out, data=tmp_path / "cohort", fold=None, device="cpu", overrides=overrides)
    assert result.epochs == 1


def test_one_modality_of_brats_is_enough(quick: Callable[..., Path], own_cohort: Path, tmp_path: Path) -> None:
    for path in own_cohort.rglob("*_t*.nii.gz"):
        path.unlink()
    run = quick(tmp_path / "run", own_cohort, overrides={"modalities": ["flair"], "max_epochs": 1})
    result = segment([own_cohort], tmp_path / "out", bundle=run, device="cpu")
    assert len(result.done) == 6


@pytest.mark.parametrize("held_out", [True, False], ids=["validation", "training"])
@pytest.mark.parametrize("there", [True, False], ids=["empty folder", "new folder"])
def test_a_case_that_cannot_be_loaded_stops_before_the_first_epoch_and_leaves_no_half_run(
    quick: Callable[..., Path], own_cohort: Path, tmp_path: Path, held_out: bool, there: bool
) -> None:
    folds = split_cases(find_cases(own_cohort), folds=FOLDS)["training"]
    spoilt = [item for item in folds if (item["fold"] == 0) == held_out][-1]
    scan: Any = nib.load(spoilt["label"])
    nib.save(nib.Nifti1Image(np.full(scan.shape, 77, np.uint8), scan.affine), spoilt["label"])  # the header is sound
    write_datalist({"training": folds}, tmp_path / "datalist.json")
    out = tmp_path / "runs" / "run"
    if there:
        out.mkdir(parents=True)
    started = []
    with pytest.raises(CaseError, match=f"{spoilt['case_id']}: label value 77"):
        quick(
            out,
            own_cohort,
            data=None,
            datalist=tmp_path / "datalist.json",
            overrides={"val_interval": 2, "patches_per_epoch": 1},
            on_start=lambda trainer: trainer.add_event_handler("EPOCH_STARTED", started.append),
        )
    assert not started
    assert out.is_dir() == there
    assert out.parent.is_dir() == there
    assert not list(tmp_path.glob("runs/run/*"))


def test_a_rejected_configuration_leaves_what_was_in_the_folder(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    for out in (tmp_path / "run", tmp_path / "new"):
        with pytest.raises(PipelineError, match="norm"):
            quick(out, cohort, overrides={"network_def::norm": "nothing"})
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": 4}, "--seed was 5, now it is 4"),
        ({"fold": 2}, "--fold was 1, now it is 2"),
        ({"fold": None}, "--fold was 1, now it is all"),
        ({"patients": "other.csv"}, "--patients was not given, now it is .*other.csv"),
        ({"convention": "msd"}, "--convention was not given, now it is msd"),
        ({"datalist": "other.json"}, "--datalist was not given, now it is .*other.json"),
        ({"data": "elsewhere", "seed": 4}, "--data was .*, now it is .*elsewhere; --seed"),
    ],
)
def test_a_run_is_not_continued_with_other_data_fold_or_seed(
    begun: Path, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    copy = shutil.copytree(begun, tmp_path / "run")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(PipelineError, match=message):
        train("brats_glioma_3d", copy, resume=True, device="cpu", **given)
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}


def test_the_same_command_again_continues_a_run(
    quick_settings: dict[str, Any], begun: Path, cohort: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(begun, tmp_path / "run")
    result = train(
        "brats_glioma_3d", copy, data=cohort, folds=FOLDS, fold=1, seed=5, device="cpu",
        overrides={**quick_settings, "max_epochs": 2}, resume=True,
    )  # fmt: skip
    assert result.epochs == 2


@pytest.mark.slow
def test_one_case_can_be_learned_by_heart(
    quick_settings: dict[str, Any], make_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    from brats_pipeline.evaluation.evaluate import evaluate

    one = make_cohort(cases=1, seed=4)
    overrides = {
        **quick_settings,
        "patch_size": [32] * 3,
        "network_def::features": 8,
        "network_def::norm": "group",
        "network_def::depth": 2,
        "learning_rate": 0.01,
        "batch_size": 2,
        "patches_per_epoch": 40,
        "max_epochs": 16,
    }
    run = train("brats_glioma_3d", tmp_path / "run", data=one, fold=None, device="cpu", overrides=overrides).run
    losses = [float(row["loss"]) for row in curves(run)]
    assert losses[-1] < losses[0] / 2
    out = segment([one], tmp_path / "predictions", bundle=run, device="cpu").out
    dice = {row.region: row.dice for row in evaluate(out, one, tmp_path / "report", images=False).scores}
    assert dice["WT"] > 0.9


def test_deep_supervision_trains_more_than_the_run_keeps(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path
) -> None:
    deep = {"deep_supervision": True, "network_def::depth": 2, "patch_size": [16] * 3, "max_epochs": 2}
    run = quick(tmp_path / "deep", cohort, overrides=deep)
    plain = quick(tmp_path / "plain", cohort, overrides={**deep, "deep_supervision": False})
    assert weights(run).keys() == weights(plain).keys(), "model.pt holds the bare network"
    assert not same_weights(run, plain)
    assert len(weights(run, "last.pt")) > len(weights(run)), "what the coarser levels learned is needed to resume"
    assert segment([next(cohort.iterdir())], tmp_path / "out", bundle=run, device="cpu").done

    interrupted = quick(tmp_path / "interrupted", cohort, overrides=deep | {"max_epochs": 1})
    train("brats_glioma_3d", interrupted, resume=True, device="cpu", overrides={"max_epochs": 2})
    assert weights(interrupted, "last.pt").keys() == weights(run, "last.pt").keys()


def test_another_network_of_the_family_takes_the_place_of_the_bundles_own(
    quick: Callable[..., Path], cohort: Path, tmp_path: Path
) -> None:
    run = quick(tmp_path / "run", cohort, network="segnet")
    record = json.loads((run / "run.json").read_text())
    assert record["network"] == "segnet"
    for name in ("train.yaml", "inference.yaml"):
        definition = yaml.safe_load((run / "configs" / name).read_text())["network_def"]
        assert definition["_target_"] == "networks.SegNet"
        assert definition["depth"] == 1, "a setting changes the chosen network"
    assert segment([next(cohort.iterdir())], tmp_path / "out", bundle=run, device="cpu").done
    with pytest.raises(PipelineError, match=r"--network was segnet, now it is unet"):
        train("brats_glioma_3d", run, resume=True, network="unet", overrides={"max_epochs": 3})


def test_an_unknown_network_leaves_nothing_behind(quick: Callable[..., Path], cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no network 'transunet'; known: .*segnet"):
        quick(tmp_path / "run", cohort, network="transunet")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("decay", [0.0, 0.9], ids=["plain", "averaged"])
def test_a_training_that_changes_nothing_ends_with_the_weights_that_it_started_from(
    quick: Callable[..., Path], begun: Path, cohort: Path, tmp_path: Path, decay: float
) -> None:
    settings = {"init_weights": str(begun / "models" / "model.pt"), "learning_rate": 0.0, "ema_decay": decay}
    run = quick(tmp_path / "run", cohort, overrides={**settings, "max_epochs": 1})
    assert same_weights(run, begun)
    assert "init_weights" not in yaml.safe_load((run / "configs" / "inference.yaml").read_text())
    record = json.loads((run / "run.json").read_text())
    assert record["init_weights_sha256"] == file_sha256(begun / "models" / "model.pt")


def test_a_resumed_training_does_not_need_the_weights_that_it_started_from(
    quick: Callable[..., Path], begun: Path, cohort: Path, tmp_path: Path
) -> None:
    first = Path(shutil.copy(begun / "models" / "model.pt", tmp_path / "first.pt"))
    run = quick(tmp_path / "run", cohort, overrides={"init_weights": str(first), "max_epochs": 1}, resume=True)
    first.unlink()
    assert train("brats_glioma_3d", run, resume=True, device="cpu", overrides={"max_epochs": 2}).epochs == 2
    with pytest.raises(PipelineError, match=r"cannot start from other weights any more; leave out init_weights"):
        train("brats_glioma_3d", run, resume=True, overrides={"init_weights": str(begun / "models" / "model.pt")})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"init_weights": "nowhere.pt"}, r"init_weights: there is no file .*nowhere\.pt"),
        ({"init_weights": "begun", "network_def::features": 8}, r"do not fit the network, \d+ layers differ"),
        ({"ckpt_path": "begun"}, r"--set ckpt_path is not for a training.*give init_weights"),
    ],
)
def test_weights_that_no_training_can_start_from_are_refused(
    quick: Callable[..., Path], begun: Path, cohort: Path, tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    weights_of_begun = str(begun / "models" / "model.pt")
    overrides = {name: weights_of_begun if value == "begun" else value for name, value in setting.items()}
    with pytest.raises(PipelineError, match=message):
        quick(tmp_path / "run", cohort, overrides=overrides)
    assert not (tmp_path / "run").exists()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"network_def::features": 8}, r"last\.pt: cannot be continued .*layers differ: .*has shape .* needs"),
        ({"optimizer_name": "sgd"}, r"optimizer_name asks for SGD"),
        ({"network_def::norm": "nothing"}, "norm"),
    ],
)
def test_a_refused_resumption_leaves_every_byte_of_the_run(
    begun: Path, tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    copy = shutil.copytree(begun, tmp_path / "run")
    with pytest.raises(PipelineError, match=message):
        train("brats_glioma_3d", copy, resume=True, device="cpu", overrides={**setting, "max_epochs": 2})
    assert contents(copy) == contents(begun)


def test_one_process_at_a_time_trains_in_a_folder(begun: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(begun, tmp_path / "run")
    with claimed(copy), pytest.raises(PipelineError, match="another process trains in"):
        train("brats_glioma_3d", copy, resume=True, device="cpu", overrides={"max_epochs": 2})
    assert contents(copy) == contents(begun)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", ["weights of a bundle", "finished run"])
def test_weights_that_are_there_are_not_written_over(begun: Path, tmp_path: Path, left: str, resume: bool) -> None:
    copy = shutil.copytree(begun, tmp_path / "run")
    (copy / "models" / "last.pt").unlink()
    (copy / ("run.json" if left == "weights of a bundle" else "models/model.pt")).unlink()
    before = contents(copy)
    with pytest.raises(PipelineError, match=r"no models/last\.pt to go on from; choose another folder"):
        train("brats_glioma_3d", copy, data=tmp_path, resume=resume)
    assert contents(copy) == before


def test_a_training_that_was_interrupted_in_its_first_epoch_begins_anew_with_nothing_of_before(
    quick: Callable[..., Path], begun: Path, cohort: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(begun, tmp_path / "run")
    for name in ("last.pt", "model.pt"):
        (copy / "models" / name).unlink()
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    for name in TUNED:
        (copy / "configs" / name).write_text("of other weights")
    leftover = copy / "models" / ".last.pt.a1b2c3d4"
    leftover.write_bytes(b"half")
    quick(copy, cohort, seed=5, fold=1, overrides={"max_epochs": 1})
    assert same_weights(copy, begun)
    assert not leftover.exists()
    assert (copy / "configs" / "fingerprint.json").read_bytes() == (begun / "configs" / "fingerprint.json").read_bytes()
    assert not [name for name in TUNED if name != "fingerprint.json" and (copy / "configs" / name).exists()]
