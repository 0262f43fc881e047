"""Every loss a configuration can name, against its formula written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.losses import DeepSupervisionLoss
from monai.transforms import MapTransform
from scipy.ndimage import distance_transform_edt

from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.training.losses import LOSSES, make_loss
from brats_pipeline.training.tumour_share import tumour_shares

REGIONS = ("TC", "WT")
SHARES = (0.1, 0.25)
NAMES = sorted({*LOSSES, "weighted_bce"})
Array = npt.NDArray[np.float64]


def built(name: str) -> torch.nn.Module:
    return make_loss(name, regions=REGIONS[:1] if name == "dice_ce" else REGIONS, shares=SHARES)


def drawn(name: str, dims: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    shape = (2, 1 if name == "dice_ce" else 2, *(5, 6, 7)[:dims])
    return torch.randn(shape, generator=random), (torch.rand(shape, generator=random) > 0.6).float()


def pooled(score: Array) -> Array:
    return score.sum(axis=(0, *range(2, score.ndim)))


def dice(p: Array, t: Array) -> float:
    return float(1 - ((2 * pooled(p * t) + 1e-5) / (pooled(p) + pooled(t) + 1e-5)).mean())


def dice_of_each(p: Array, t: Array) -> float:
    return float(np.mean([dice(p[i : i + 1], t[i : i + 1]) for i in range(len(p))]))


def bce(p: Array, t: Array) -> Array:
    return -(t * np.log(p) + (1 - t) * np.log(1 - p))


def weighted(p: Array, t: Array) -> float:
    cost = bce(p, t)
    for region, share in enumerate(SHARES):
        cost[:, region] *= np.where(t[:, region] == 1, 0.5 / share, 0.5 / (1 - share))
    return float(cost.mean())


def focal(p: Array, t: Array) -> float:
    return float((np.where(t == 1, 1 - p, p) ** 2 * bce(p, t)).mean())


def tversky(p: Array, t: Array) -> float:
    hit, false, missed = pooled(p * t), pooled(p * (1 - t)), pooled((1 - p) * t)
    return float(1 - ((hit + 1e-5) / (hit + 0.3 * false + 0.7 * missed + 1e-5)).mean())


def boundary(p: Array, t: Array) -> float:
    distance = np.zeros_like(p)
    for place in np.ndindex(p.shape[:2]):
        inside = t[place] == 1
        distance[place] = distance_transform_edt(~inside) - np.where(inside, distance_transform_edt(inside) - 1, 0)
    return float((p * distance).mean())


ORACLES: dict[str, Callable[[Array, Array], float]] = {
    "dice": dice,
    "dice_bce": lambda p, t: dice(p, t) + float(bce(p, t).mean()),
    "dice_ce": lambda p, t: dice_of_each(p, t) + float(bce(p, t).mean()),
    "weighted_bce": weighted,
    "focal": focal,
    "tversky": tversky,
    "dice_boundary": lambda p, t: dice(p, t) + 0.01 * boundary(p, t),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_its_formula(name: str, dims: int) -> None:
    logits, target = drawn(name, dims)
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), target.double().numpy()
    assert float(built(name)(logits, target)) == pytest.approx(ORACLES[name](p, t), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_the_type_of_the_labels_does_not_matter(name: str, dtype: torch.dtype) -> None:
    logits, target = drawn(name, 3)
    assert torch.equal(built(name)(logits, target.to(dtype)), built(name)(logits, target))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_deep_supervision_scores_every_level_and_reaches_it_with_a_gradient(name: str, dims: int) -> None:
    logits, target = drawn(name, dims)
    fine = logits.clone().requires_grad_()
    coarse = torch.zeros(*logits.shape[:2], *(3, 3, 4)[:dims]).requires_grad_()
    DeepSupervisionLoss(built(name))([fine, coarse], target).backward()
    for level in (fine, coarse):
        assert level.grad is not None
        assert bool(level.grad.isfinite().all())
        assert float(level.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_target_without_tumour_has_a_finite_loss_and_gradient(name: str) -> None:
    logits, target = drawn(name, 3)
    logits.requires_grad_()
    loss = built(name)(logits, torch.zeros_like(target))
    loss.backward()
    assert bool(loss.isfinite())
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_tumour_and_background_weigh_the_same_over_masks_of_the_mean_share() -> None:
    target = torch.zeros(1, 1, 10, 10)
    target[0, 0, :2, :5] = 1  # a tenth
    loss = make_loss("weighted_bce", regions=["WT"], shares=[0.1])
    logits = torch.zeros(1, 1, 10, 10).requires_grad_()
    value = loss(logits, target)
    assert float(value.detach()) == pytest.approx(np.log(2), rel=1e-5)
    value.backward()
    assert logits.grad is not None
    assert float(logits.grad[target == 1].sum()) == pytest.approx(-float(logits.grad[target == 0].sum()), rel=1e-5)


def test_an_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"loss_name is 'dise'; known: dice, dice_bce, .*weighted_bce"):
        make_loss("dise", regions=REGIONS)


def test_cross_entropy_over_classes_is_refused_where_regions_overlap() -> None:
    with pytest.raises(ValueError, match="TC, WT overlap; dice_bce"):
        make_loss("dice_ce", regions=REGIONS)


@pytest.mark.parametrize("shares", [None, [], [0.1, 0.0], [1.0]])
def test_weights_are_refused_where_a_region_is_nowhere_or_everywhere(shares: list[float] | None) -> None:
    with pytest.raises(PipelineError, match="above 0 and below 1"):
        make_loss("weighted_bce", regions=REGIONS, shares=shares)


class Drawing(MapTransform):
    """Stands for the loader: a mask of so many ones in 4 x 5 x 5 voxels."""

    def __call__(self, data: Any) -> Any:
        assert "image" not in data, "the images need not be read"
        if data["label"] < 0:
            raise PipelineError("the file is damaged")
        mask = torch.zeros(2, 100)
        mask[0, : data["label"]] = 1
        mask[1] = 1 - mask[0]
        return {**data, "label": mask.reshape(2, 4, 5, 5)}


def test_shares_are_the_mean_over_the_cases() -> None:
    items = [{"case_id": f"c{ones}", "image": "i", "label": ones} for ones in (0, 10, 50)]
    assert tumour_shares(items, [Drawing("label")]) == pytest.approx([0.2, 0.8])


def test_shares_name_the_case_whose_mask_is_damaged_and_need_a_case() -> None:
    with pytest.raises(CaseError, match="c7: the file is damaged"):
        tumour_shares([{"case_id": "c7", "label": -1}], [Drawing("label")])
    with pytest.raises(PipelineError, match="no case to train on"):
        tumour_shares([], [Drawing("label")])


def test_the_weights_of_a_run_are_those_of_its_training_masks(cohort: Path, tmp_path: Path) -> None:
    import json

    import nibabel as nib

    from brats_pipeline.training.train import train

    settings = {
        "spacing": [4.0] * 3, "patch_size": [16] * 3, "roi_size": [32] * 3, "network_def::features": 8,
        "network_def::depth": 1, "max_epochs": 1, "patches_per_epoch": 2, "loss_name": "weighted_bce",
        "precision": "float32",
    }  # fmt: skip
    notes: list[str] = []
    given: dict[str, Any] = {"data": cohort, "folds": 3, "device": "cpu", "on_note": notes.append}
    run = train("brats_glioma_3d", tmp_path / "run", overrides=settings, **given).run
    items = [item for item in json.loads((run / "datalist.json").read_text())["training"] if item["fold"] != 0]
    values: dict[str, tuple[int, ...]] = {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}
    shares = dict.fromkeys(values, 0.0)
    for item in items:
        scan: Any = nib.load(item["label"])
        for region, tissues in values.items():
            shares[region] += float(np.isin(np.asarray(scan.dataobj), tissues).mean()) / len(items)
    record = json.loads((run / "run.json").read_text())
    assert record["region_shares"] == pytest.approx(shares)
    assert f"mean share of the training masks: TC {100 * shares['TC']:.3g} %, WT" in notes[0]


@pytest.mark.parametrize(
    ("bundle", "more"),
    [
        *(("brats_glioma_3d", {"prepare_on": place}) for place in ("cpu", "cpu:0")),  # "cpu:0" takes the way of a GPU
        *(("brats_slices_2d", {"prepare_on": place}) for place in ("cpu", "cpu:0")),
        ("lgg_slices_2d", {}),
    ],
)
def test_every_bundle_measures_the_masks_as_they_are_on_disk(bundle: str, more: dict[str, str], tmp_path: Path) -> None:
    import nibabel as nib
    from monai.bundle import ConfigParser
    from PIL import Image

    from brats_pipeline.bundles import bundle_path
    from brats_pipeline.data.datalist import items_for_training
    from brats_pipeline.phantom import write_cohort

    lgg = bundle.startswith("lgg")
    shape: dict[str, Any] = (
        {"layout": "lgg", "shape": (32, 32, 8)} if lgg else {"shape": (24, 24, 20), "spacing_mm": 8.0}
    )
    write_cohort(tmp_path, cases=4, **shape)
    parser = ConfigParser()
    parser.read_config(str(bundle_path(bundle) / "configs" / "train.yaml"))
    parser.update({"loss_name": "weighted_bce", "dataset_dir": str(tmp_path), "folds": 2, "fold": 1, **more})
    shares = dict(zip(parser["regions"], parser.get_parsed_content("region_shares"), strict=True))
    masks = [
        np.stack([np.asarray(Image.open(path)) for path in item["label"]])
        if lgg
        else np.asarray(nib.load(item["label"]).dataobj)  # type: ignore[attr-defined]
        for item in items_for_training(str(tmp_path), fold=1, folds=2, modalities=parser["modalities"])
    ]
    assert len(masks) == 2
    assert shares["WT"] == pytest.approx(float(np.mean([(mask > 0).mean() for mask in masks])))
