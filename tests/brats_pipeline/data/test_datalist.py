"""Folds keep patients together and volumes apart; the file is read by MONAI and by us alike."""

import json
import random
import shutil
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from brats_pipeline.cases import Case, Source, find_cases
from brats_pipeline.cases.identity import Shared
from brats_pipeline.cases.layouts import institution_of
from brats_pipeline.data.datalist import (
    case_items,
    item_case,
    items_for_inference,
    items_for_training,
    read_datalist,
    split_cases,
    training_items,
    write_datalist,
)
from brats_pipeline.data.folds import stratified_folds
from brats_pipeline.data.splitting import comparable
from brats_pipeline.errors import CaseError, PipelineError

ENDS = ("t1c", "t1n", "t2w", "t2f")


def write(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)


def write_case(root: Path, case_id: str, tumour: int | None) -> None:
    """A 6x5x4 case whose tumour has so many voxels; without a label map for None."""
    for end in ENDS:
        write(root / case_id / f"{case_id}-{end}.nii.gz", np.ones((6, 5, 4), np.int16))
    if tumour is not None:
        labels = np.zeros(120, np.uint8)
        labels[:tumour] = 2
        write(root / case_id / f"{case_id}-seg.nii.gz", labels.reshape(6, 5, 4))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve patients, patient 3 with two examinations, and one case without a label map."""
    root = tmp_path / "cohort"
    for number in range(12):
        write_case(root, f"BraTS-GLI-{number:05}-000", 4 + 5 * number)
    write_case(root, "BraTS-GLI-00003-001", 30)
    write_case(root, "BraTS-GLI-00099-000", None)
    return root


def case(case_id: str, patient_id: str) -> Case:
    return Case(case_id, patient_id, {}, Source((Path("label.nii"),)), "plain", "brats2023")


def groups(cases: list[Case]) -> dict[str, str]:
    return {case.case_id: case.patient_id for case in cases}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 4), min_size=5, max_size=40), st.integers(2, 5), st.integers(0, 99), st.randoms())
def test_no_patient_stands_on_two_sides_and_no_fold_is_empty(examinations, folds, seed, shuffler):
    cases = [
        case(f"p{patient}-{exam}", f"p{patient}") for patient, many in enumerate(examinations) for exam in range(many)
    ]
    volumes = [shuffler.uniform(0, 200) for _ in cases]
    chosen = stratified_folds(cases, volumes, groups(cases), folds=folds, seed=seed)
    folds_of = defaultdict(set)
    for one, fold in zip(cases, chosen, strict=True):
        folds_of[one.patient_id].add(fold)
    assert all(len(held) == 1 for held in folds_of.values())
    assert set(chosen) == set(range(folds))


@pytest.mark.parametrize("seed", range(4))
def test_small_and_large_tumours_are_spread_over_all_folds(seed):
    cases = [case(f"p{number:03}", f"p{number:03}") for number in range(60)]
    chosen = stratified_folds(cases, [float(number) for number in range(60)], groups(cases), folds=5, seed=seed)
    for fold in range(5):
        held = [number for number in range(60) if chosen[number] == fold]
        assert [sum(low <= number < low + 20 for number in held) for low in (0, 20, 40)] == [4, 4, 4]


def test_the_split_depends_on_the_seed_and_not_on_the_order(root):
    cases = find_cases(root)
    first = split_cases(cases, folds=3, seed=1)
    random.Random(0).shuffle(cases)
    assert split_cases(cases, folds=3, seed=1) == first
    others = [split_cases(cases, folds=3, seed=seed)["training"] for seed in range(2, 6)]
    assert any(other != first["training"] for other in others)


def test_the_datalist_says_what_it_is(root):
    seen = []
    datalist = split_cases(find_cases(root), folds=3, name="tiny", on_case=seen.append)
    assert (datalist["schema_version"], datalist["name"], datalist["folds"], datalist["seed"]) == (1, "tiny", 3, 0)
    assert (datalist["layout"], datalist["convention"]) == ("brats2023", "brats2023")
    assert datalist["modalities"] == ["t1c", "t1", "t2", "flair"]
    assert len(datalist["training"]) == len(seen) == 13
    assert [item["case_id"] for item in datalist["testing"]] == ["BraTS-GLI-00099-000"]
    folder = root / "BraTS-GLI-00003-001"
    item = next(item for item in datalist["training"] if item["case_id"] == folder.name)
    assert item.pop("fold") in (0, 1, 2)
    assert item == {
        "case_id": "BraTS-GLI-00003-001",
        "patient_id": "00003",
        "convention": "brats2023",
        "layout": "brats2023",
        "modalities": ["t1c", "t1", "t2", "flair"],
        "image": [str(folder / f"{folder.name}-{end}.nii.gz") for end in ENDS],
        "label": str(folder / f"{folder.name}-seg.nii.gz"),
    }


def test_fewer_patients_than_folds_are_refused(root):
    cases = [case for case in find_cases(root) if case.patient_id in ("00003", "00004", "00099")]
    with pytest.raises(PipelineError, match="3 folds need 3 patients with a label map, there are 2"):
        split_cases(cases, folds=3)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        split_cases(cases, folds=1)


def test_an_incomplete_case_is_refused_by_the_modalities_it_lacks(root):
    (root / "BraTS-GLI-00000-000" / "BraTS-GLI-00000-000-t2w.nii.gz").unlink()
    with pytest.raises(CaseError, match=r"BraTS-GLI-00000-000: lacks t2 \(has t1c, t1, flair\)"):
        case_items(find_cases(root))


@pytest.mark.parametrize("where", ["cohort/datalist.json", "elsewhere/datalist.json"])
@pytest.mark.parametrize("key", ["training", "testing"])
def test_monai_reads_the_file_and_sees_the_same_paths(root, tmp_path, where, key):
    from monai.data import load_decathlon_datalist

    datalist = split_cases(find_cases(root), folds=3)
    path = tmp_path / where
    write_datalist(datalist, path)
    ours = read_datalist(path, key)
    assert ours == datalist[key]
    theirs = load_decathlon_datalist(str(path), True, key)
    for mine, its in zip(ours, theirs, strict=True):
        assert {name: its.get(name) for name in ("image", "label", "fold")} == {
            name: mine.get(name) for name in ("image", "label", "fold")
        }


def test_a_datalist_within_its_cohort_moves_with_it(root, tmp_path):
    write_datalist(split_cases(find_cases(root), folds=3), root / "datalist.json")
    assert str(tmp_path) not in (root / "datalist.json").read_text()
    shutil.move(root, tmp_path / "moved")
    items = read_datalist(tmp_path / "moved" / "datalist.json")
    assert all(Path(path).is_file() for item in items for path in (*item["image"], item["label"]))
    shutil.move(tmp_path / "moved" / "datalist.json", tmp_path / "datalist.json")
    assert read_datalist(tmp_path / "datalist.json", base_dir=tmp_path / "moved") == items
    with pytest.raises(PipelineError, match=r"65 of the files it lists are not there, first .*BraTS-GLI-00000-000-t1c"):
        read_datalist(tmp_path / "datalist.json")


ITEM = {"case_id": "a", "patient_id": "a", "convention": "brats2023", "image": ["1", "2", "3", "4"]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no JSON file"),
        ("[]", "holds a JSON list"),
        ({"test": []}, r"has no list 'training' \(lists there: test\)"),
        ({"training": ["a.nii"]}, "item 0 of 'training' is a JSON str"),
        ({"training": [{"image": []}]}, "lacks case_id, patient_id, convention"),
        ({"training": [ITEM | {"image": "a.nii"}]}, "image must list 4 paths"),
        ({"training": [ITEM | {"label": 3}]}, r"label must be one path, or the masks of slices, got 3"),
        ({"training": [ITEM]}, "4 of the files it lists are not there"),
    ],
)
def test_a_file_that_is_no_datalist_is_refused_with_the_reason(tmp_path, content, says):
    path = tmp_path / "datalist.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(PipelineError, match=says) as caught:
        read_datalist(path)
    assert str(path) in str(caught.value)


def test_a_datalist_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="cannot be read"):
        read_datalist(tmp_path / "datalist.json")


def ids(items) -> set[str]:
    return {item["case_id"] for item in items}


def test_training_and_validation_items_share_the_cohort_between_them(root, tmp_path):
    datalist = split_cases(find_cases(root), folds=3, seed=5)
    path = tmp_path / "datalist.json"
    write_datalist(datalist, path)
    for fold in range(3):
        train, held = (training_items(datalist, fold=fold, validation=side) for side in (False, True))
        assert ids(held) == {item["case_id"] for item in datalist["training"] if item["fold"] == fold}
        assert ids(train) == ids(datalist["training"]) - ids(held)
        for from_where in (
            {"data_list_file_path": str(path)},
            {"folds": 3, "seed": 5},
        ):
            assert items_for_training(str(root), **from_where, fold=fold) == train
            assert items_for_training(str(root), **from_where, fold=fold, validation=True) == held
    with pytest.raises(PipelineError, match="no fold 3 in the datalist; folds: 0, 1, 2"):
        training_items(datalist, fold=3, validation=True)


def test_an_item_gives_back_its_case_whatever_the_layout(root, tmp_path):
    from brats_pipeline.cases import decide_conventions
    from brats_pipeline.phantom import write_cohort

    cases = decide_conventions(find_cases(root))
    for layout, size in (("lgg", {"shape": (32, 32, 8)}), ("msd", {"shape": (32, 32, 26), "spacing_mm": 4.0})):
        write_cohort(tmp_path / layout, layout=layout, cases=2, **size)
        cases += decide_conventions(find_cases(tmp_path / layout))
    items = [item for case in cases for item in case_items([case], modalities=["flair"])]
    assert [item_case(item) for item in items] == cases


def test_items_without_a_fold_or_a_label_cannot_be_trained_on(root):
    items = split_cases(find_cases(root), folds=3)["training"]
    for name in ("fold", "label"):
        bare = [{key: value for key, value in item.items() if key != name} for item in items]
        with pytest.raises(PipelineError, match=f"13 training items have no {name}"):
            training_items(bare, fold=0, validation=False)


def test_inference_takes_every_case_or_those_the_file_sets_apart(root, tmp_path):
    every = items_for_inference(str(root))
    assert len(every) == 14
    assert not any("label" in item for item in every)
    datalist = split_cases(find_cases(root), folds=3)
    path = tmp_path / "datalist.json"
    write_datalist(datalist, path)
    assert items_for_inference(str(root), str(path)) == datalist["testing"]
    write_datalist(datalist | {"testing": []}, path)
    assert [item["case_id"] for item in items_for_inference(str(root), str(path))] == [
        item["case_id"] for item in datalist["training"]
    ]
    write_datalist(datalist | {"testing": [], "training": []}, path)
    assert items_for_inference(str(root), str(path)) == []


# ------------------------------------------------------------------------------------- shared patients and institutions


def test_cases_that_share_a_scan_stay_in_one_fold_with_all_their_kin(root):
    cases = find_cases(root)
    chain = [f"BraTS-GLI-0000{number}-000" for number in (1, 3, 5)]
    pairs = [
        Shared(chain[2], chain[1], "equal"),
        Shared(chain[0], chain[1], "equal"),
        Shared("elsewhere", chain[0], ""),
    ]
    apart = 0
    for seed in range(8):
        for shared in ((), pairs):
            items = split_cases(cases, folds=4, seed=seed, shared=shared)["training"]
            kin = {item["fold"] for item in items if item["case_id"] in chain or item["patient_id"] == "00003"}
            apart += not shared and len(kin) > 1
            assert not shared or len(kin) == 1
            assert {item["fold"] for item in items} == {0, 1, 2, 3}
            assert {item["patient_id"] for item in items} >= {"00001", "00003", "00005"}
    assert apart > 0  # so that the pairs were needed


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from("ABCD"), min_size=6, max_size=60), st.integers(2, 5), st.integers(0, 99))
def test_sizes_at_each_large_institution_are_spread_and_no_fold_is_empty(sites, folds, seed):
    cases = [case(f"TCGA_{site}{site}_{n:04}_2000", f"TCGA_{site}{site}_{n:04}") for n, site in enumerate(sites)]
    chosen = stratified_folds(cases, [float(n) for n in range(len(cases))], groups(cases), folds=folds, seed=seed)
    assert set(chosen) == set(range(folds))
    many = {site for site in sites if sites.count(site) >= folds}
    strata = min(3, len(sites) // folds)
    cells, sizes = defaultdict(list), defaultdict(list)
    for n, (site, fold) in enumerate(zip(sites, chosen, strict=True)):
        sizes[n * strata // len(sites)].append(fold)
        cells[site if site in many else "few", n * strata // len(sites)].append(fold)
    if max(map(len, cells.values())) < folds:  # too few patients for both
        cells = sizes
    for held in cells.values():
        counts = [held.count(fold) for fold in range(folds)]
        assert max(counts) - min(counts) <= 1


def test_an_institution_is_read_from_a_barcode_only():
    assert institution_of("TCGA_CS_4942") == institution_of("tcga-cs-4942") == "CS"
    assert institution_of("CBICA_AAB") is None
    assert institution_of("00002") is None


# ------------------------------------------------------------------------------------------------------ slices and MSD


def write_slices(root: Path, case_id: str, tumour: int, slices: int = 3, masks: bool = True) -> Path:
    folder = root / case_id
    folder.mkdir(parents=True)
    for number in range(1, slices + 1):
        Image.fromarray(np.full((8, 6, 3), number, np.uint8)).save(folder / f"{case_id}_{number}.tif")
        mask = np.zeros((8, 6), np.uint8)
        mask.ravel()[: tumour if number == 2 else 0] = 255
        if masks:
            Image.fromarray(mask).save(folder / f"{case_id}_{number}_mask.tif")
    return folder


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """Six patients of an institution and one without masks; eleven slices, so that 10 sorts before 2 by name."""
    root = tmp_path / "kaggle_3m"
    for number in range(6):
        write_slices(root, f"TCGA_CS_000{number}_20000101", 3 + 4 * number, slices=11)
    write_slices(root, "TCGA_DU_0009_20000101", 0, masks=False)
    return root


def test_slices_are_listed_in_order_with_their_channels(slices, tmp_path):
    datalist = split_cases(find_cases(slices), folds=3)
    assert (datalist["layout"], datalist["convention"], datalist["modalities"]) == (
        "lgg",
        "lgg",
        ["t1c", "t1", "flair"],
    )
    item = next(item for item in datalist["training"] if item["patient_id"] == "TCGA_CS_0004")
    stem = str(slices / "TCGA_CS_0004_20000101" / "TCGA_CS_0004_20000101")
    assert item["image"] == [f"{stem}_{number}.tif" for number in range(1, 12)]
    assert item["label"] == [f"{stem}_{number}_mask.tif" for number in range(1, 12)]
    assert item["channels"] == {"t1c": 2, "t1": 0, "flair": 1}
    assert item["modalities"] == ["t1c", "t1", "flair"]
    (testing,) = datalist["testing"]
    assert testing["case_id"] == "TCGA_DU_0009_20000101"
    assert "label" not in testing
    path = tmp_path / "kaggle_3m" / "datalist.json"
    write_datalist(datalist, path)
    assert str(tmp_path) not in path.read_text()
    assert read_datalist(path) == datalist["training"]


def test_voxels_and_millilitres_are_not_compared_with_each_other():
    voxels, ml = True, False
    assert comparable([(ml, 30.0), (voxels, 4000), (ml, 10.0), (voxels, 90000)]) == [0.5, 0, 0, 0.5]
    assert comparable([(voxels, 4000), (voxels, 90000)]) == [4000, 90000]


def test_monai_reads_the_list_of_slices(slices):
    from monai.data import load_decathlon_datalist

    path = slices / "datalist.json"
    write_datalist(split_cases(find_cases(slices), folds=3), path)
    for mine, its in zip(read_datalist(path), load_decathlon_datalist(str(path), True, "training"), strict=True):
        assert {name: its[name] for name in ("image", "label", "channels")} == {
            name: mine[name] for name in ("image", "label", "channels")
        }


def test_a_bundle_gets_the_modalities_that_it_names_or_a_refusal(slices, tmp_path):
    named = items_for_training(str(slices), modalities=["flair"], folds=3)
    assert len(named) == 4
    assert len(items_for_inference(str(slices), modalities=["t1", "flair"])) == 7
    path = tmp_path / "datalist.json"
    write_datalist(split_cases(find_cases(slices), folds=3), path)
    assert items_for_training(str(slices), str(path), modalities=["flair"]) == named
    for call in (
        lambda: items_for_training(str(slices), folds=3),
        lambda: items_for_training(str(slices), str(path)),
        lambda: split_cases(find_cases(slices), folds=3, modalities=["t2"]),
    ):
        with pytest.raises(CaseError, match=r"TCGA_\w+: lacks t2 \(has t1c, t1, flair\)"):
            call()


def test_for_inference_a_case_without_a_modality_is_listed_with_its_defect_beside_the_others(root, slices, tmp_path):
    lists = [items_for_inference(str(slices)), items_for_inference(str(slices), modalities=["t1", "t2"])]
    path = tmp_path / "datalist.json"
    write_datalist(split_cases(find_cases(slices), folds=3), path)
    lists.append(items_for_inference(str(slices), str(path), modalities=["t1", "t2"]))
    for items in lists:
        assert items
        assert all(item["defect"].startswith("lacks t2 (has t1c, t1, flair)") for item in items)
        assert not any("image" in item for item in items)
    sound = items_for_inference(str(root))
    assert len(sound) == 14
    next(Path(item["image"][2]) for item in sound[3:4]).unlink()
    mixed = items_for_inference(str(root))
    assert [number for number, item in enumerate(mixed) if "defect" in item] == [3]
    assert mixed[:3] + mixed[4:] == sound[:3] + sound[4:]


def test_slices_that_do_not_match_their_masks_are_not_listed(slices):
    (slices / "TCGA_CS_0001_20000101" / "TCGA_CS_0001_20000101_5_mask.tif").unlink()
    with pytest.raises(CaseError, match="TCGA_CS_0001_20000101: slice without a mask: slice 5"):
        split_cases(find_cases(slices), folds=3)
    assert len(items_for_inference(str(slices), modalities=["flair"])) == 7  # masks have no say there


def test_a_decathlon_case_is_one_file_with_channels(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "imagesTr" / "BRATS_001.nii.gz", np.ones((6, 5, 4, 4), np.int16))
    write(tmp_path / "labelsTr" / "BRATS_001.nii.gz", np.ones((6, 5, 4), np.uint8))
    described = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
        "test": [],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    (item,) = case_items(find_cases(tmp_path))
    assert item["image"] == [str(tmp_path / "imagesTr" / "BRATS_001.nii.gz")]
    assert item["label"] == str(tmp_path / "labelsTr" / "BRATS_001.nii.gz")
    assert item["channels"] == {"t1c": 2, "t1": 1, "t2": 3, "flair": 0}
    assert item["modalities"] == ["t1c", "t1", "t2", "flair"]
