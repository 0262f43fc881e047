"""Synthetic cohorts: what their heads look like, and how they are written."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from brats_pipeline.phantom import LAYOUTS, make_case, synthesis, to_convention, write_cohort
from brats_pipeline.phantom.anatomy import TISSUES, make_brain
from transforms.labels import CONVENTIONS, MODALITIES, convention

SMALL = {"shape": (64, 64, 64), "spacing_mm": 3.0}
SMALL_VOXEL_ML = 0.027


@pytest.fixture(scope="module")
def cohort():
    return [make_case((1, index), **SMALL) for index in range(24)]


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def brain_of(case):
    return case.images["t1"] > 0


def test_a_case_has_four_int16_images_on_one_grid(cohort):
    case = cohort[0]
    assert tuple(case.images) == MODALITIES
    assert {(image.dtype, image.shape) for image in case.images.values()} == {(np.dtype(np.int16), (64, 64, 64))}
    assert case.tumour.dtype == np.uint8
    assert case.tumour.shape == (64, 64, 64)


def test_every_modality_is_zero_outside_one_and_the_same_brain(cohort):
    for case in cohort:
        inside = brain_of(case)
        for image in case.images.values():
            np.testing.assert_array_equal(image != 0, inside)
        assert not case.tumour[~inside].any()


def test_the_brain_is_one_piece_of_human_size_within_the_field_of_view(cohort):
    for case in cohort:
        inside = brain_of(case)
        assert 1000 < inside.sum() * SMALL_VOXEL_ML < 1700
        assert ndimage.label(inside)[1] == 1
        for axis in range(3):
            outermost = np.take(inside, [0, -1], axis=axis)
            assert not outermost.any()


def test_the_brain_is_never_cut_by_the_box_it_is_drawn_in():
    """A cut would leave a flat face: a slice at the end with far more voxels than a rounded pole has."""
    for seed in range(12):
        inside = brain_of(make_case((5, seed), **SMALL))
        for axis in range(3):
            area = inside.sum(axis=tuple({0, 1, 2} - {axis}))
            filled = area[area > 0]
            assert max(filled[0], filled[-1]) < 0.25 * filled.max()


def test_regions_are_nested_shells(cohort):
    """What comes next to necrosis is mostly the enhancing rim, and next to the core, edema."""
    rims, halos = [], []
    for case in cohort:
        if not (case.tumour == 3).any():
            continue
        necrosis, core = case.tumour == 1, np.isin(case.tumour, (1, 3))
        rims.append((case.tumour[ndimage.binary_dilation(necrosis) & ~necrosis] == 3).mean())
        halos.append((case.tumour[ndimage.binary_dilation(core) & ~core & brain_of(case)] == 2).mean())
    assert np.median(rims) > 0.75
    assert min(rims) > 0.4
    assert np.median(halos) > 0.6
    assert min(halos) > 0.25


def test_whole_tumours_measure_some_to_150_ml_and_vary(cohort):
    volumes_ml = np.array([(case.tumour > 0).sum() * SMALL_VOXEL_ML for case in cohort])
    assert volumes_ml.min() > 3
    assert volumes_ml.max() < 155
    assert volumes_ml.max() > 4 * volumes_ml.min()


def test_some_cases_have_no_enhancing_tumour_but_every_case_has_core_and_edema(cohort):
    enhancing = [bool((case.tumour == 3).any()) for case in cohort]
    assert 0.55 <= np.mean(enhancing) < 1
    assert all((case.tumour == 1).any() and (case.tumour == 2).any() for case in cohort)


def test_some_cases_have_several_lesions(cohort):
    cores = [ndimage.label(np.isin(case.tumour, (1, 3)), np.ones((3, 3, 3)))[1] for case in cohort]
    assert 1 in cores
    assert any(2 <= count <= 4 for count in cores)


def test_tumours_lie_on_both_sides_at_many_places(cohort):
    centres = np.array([ndimage.center_of_mass(case.tumour > 0) for case in cohort])
    assert 0 < (centres[:, 0] > 31.5).mean() < 1
    assert (np.ptp(centres, axis=0) * 3 > (50, 50, 25)).all()


def test_edema_stays_on_the_side_of_its_core(cohort):
    for case in cohort:
        core = np.isin(case.tumour, (1, 3))
        sides = [core[:30].sum(), core[34:].sum()]
        if min(sides) > 0:
            continue
        other = case.tumour[:30] if sides[0] == 0 else case.tumour[34:]
        assert (other > 0).sum() < 0.25 * (case.tumour > 0).sum()


def median_ratio(case, modality, one, other):
    image = case.images[modality]
    return np.median(image[one]) / np.median(image[other])


@pytest.fixture(scope="module")
def tissues():
    """A case and the voxels of its healthy tissues that hold nothing else."""
    brains = []

    def remember(*args, **kwargs):
        brains.append(make_brain(*args, **kwargs))
        return brains[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesis, "make_brain", remember)
        case = make_case((1, 2), shape=(120, 120, 96), spacing_mm=1.6)
    shares = np.zeros((len(TISSUES), *case.tumour.shape))
    shares[:, brains[0].inside] = brains[0].tissue
    white, grey, fluid = (shares[TISSUES.index(name)] > 0.97 for name in ("wm", "gm", "csf"))
    assert min(white.sum(), grey.sum(), fluid.sum()) > 1000
    return case, white, grey, fluid


def test_t1_shows_white_matter_above_grey_above_fluid(tissues):
    case, white, grey, fluid = tissues
    for modality in ("t1", "t1c"):
        assert median_ratio(case, modality, white, grey) > 1.1
        assert median_ratio(case, modality, grey, fluid) > 1.2


def test_t2_shows_fluid_above_grey_above_white_matter(tissues):
    case, white, grey, fluid = tissues
    assert median_ratio(case, "t2", fluid, grey) > 1.3
    assert median_ratio(case, "t2", grey, white) > 1.15


def test_flair_shows_grey_above_white_matter_and_no_fluid(tissues):
    case, white, grey, fluid = tissues
    assert median_ratio(case, "flair", grey, white) > 1.02
    assert median_ratio(case, "flair", white, fluid) > 1.5


def test_the_tumour_shows_where_a_radiologist_looks_for_it(tissues):
    case, white, _, _ = tissues
    necrosis, edema, enhancing = (case.tumour == value for value in (1, 2, 3))
    assert median_ratio(case, "flair", edema, white) > 1.25
    assert median_ratio(case, "t2", edema, white) > 1.4
    assert 0.6 < median_ratio(case, "t1", edema, white) < 0.97
    assert median_ratio(case, "t1c", enhancing, white) > 1.3
    assert median_ratio(case, "t1", enhancing, white) < 1
    assert median_ratio(case, "t1c", necrosis, white) < 0.75
    assert median_ratio(case, "flair", necrosis, edema) < 0.85


def test_one_threshold_does_not_solve_the_task(cohort):
    best = []
    for case in cohort:
        flair, whole = case.images["flair"], case.tumour > 0
        cuts = np.percentile(flair[brain_of(case)], np.arange(70, 100, 0.5))
        best.append(max(2 * (whole & (flair > cut)).sum() / (whole.sum() + (flair > cut).sum()) for cut in cuts))
    assert 0.3 < np.mean(best) < 0.85


def test_each_scan_has_its_own_scale(cohort):
    medians = [np.median(case.images["t1"][brain_of(case)]) for case in cohort]
    assert max(medians) > 2 * min(medians)


def test_the_same_seed_gives_the_same_voxels_and_another_seed_does_not():
    one, again, other = (make_case(seed, **SMALL) for seed in (3, 3, 4))
    for modality in MODALITIES:
        assert one.images[modality].tobytes() == again.images[modality].tobytes()
        assert one.images[modality].tobytes() != other.images[modality].tobytes()
    assert one.tumour.tobytes() == again.tumour.tobytes()
    assert (one.tumour > 0).sum() != (other.tumour > 0).sum()


def test_a_finer_grid_shows_the_same_head():
    coarse = make_case((1, 4), shape=(64, 64, 50), spacing_mm=3.0)
    fine = make_case((1, 4), shape=(192, 192, 150), spacing_mm=1.0)
    middle = (slice(1, None, 3),) * 3  # the centres of the coarse voxels
    assert dice(brain_of(coarse), brain_of(fine)[middle]) > 0.98
    assert dice(coarse.tumour > 0, fine.tumour[middle] > 0) > 0.85
    np.testing.assert_allclose(coarse.affine @ (5, 6, 7, 1), fine.affine @ (16, 19, 22, 1))


def test_a_wider_field_of_view_shows_the_same_head():
    narrow = make_case((1, 5), shape=(60, 60, 50), spacing_mm=3.0)
    wide = make_case((1, 5), shape=(80, 70, 64), spacing_mm=3.0)
    np.testing.assert_array_equal(wide.tumour[10:70, 5:65, 7:57], narrow.tumour)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_the_default_grid_is_that_of_brats():
    case = make_case(0)
    assert case.tumour.shape == (240, 240, 155)
    np.testing.assert_array_equal(case.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_a_head_is_drawn_smaller_where_the_field_of_view_is_small():
    case = make_case(0, shape=(48, 48, 48), spacing_mm=2.5)
    inside = brain_of(case)
    assert inside.any()
    assert not any(np.take(inside, [0, -1], axis=axis).any() for axis in range(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (64, 64, 64), "spacing_mm": 1.0}, "64x64x64 mm is too small"),
        ({"shape": (64, 64, 64), "spacing_mm": (3, 3)}, "one or three positive lengths"),
        ({"shape": (64, 64, 64), "spacing_mm": -3}, "one or three positive lengths"),
        ({"shape": (64, 64), "spacing_mm": 3.0}, "three axes"),
    ],
)
def test_impossible_grids_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_case(0, **arguments)


NAMES = {
    "brats2017": (r"Brats18_*_*_1", "{case}_t1ce.nii.gz", "{case}_seg.nii.gz"),
    "brats2020": (r"BraTS20_Training_001", "{case}_t1ce.nii.gz", "{case}_seg.nii.gz"),
    "brats2021": (r"BraTS2021_00001", "{case}_t1ce.nii.gz", "{case}_seg.nii.gz"),
    "brats2023": (r"BraTS-GLI-00001-000", "{case}-t1c.nii.gz", "{case}-seg.nii.gz"),
    "brats2023-ssa": (r"BraTS-SSA-00001-000", "{case}-t1c.nii.gz", "{case}-seg.nii.gz"),
    "brats2023-ped": (r"BraTS-PED-00001-000", "{case}-t1c.nii.gz", "{case}-seg.nii.gz"),
    "brats2023-men": (r"BraTS-MEN-00001-000", "{case}-t1c.nii.gz", "{case}-seg.nii.gz"),
    "brats2023-met": (r"BraTS-MET-00001-000", "{case}-t1c.nii.gz", "{case}-seg.nii.gz"),
    "brats2024-gli": (r"BraTS-GLI-00001-100", "{case}-t1n.nii.gz", "{case}-seg.nii.gz"),
    "brats2024-ped": (r"BraTS-PED-00001-000", "{case}-t2w.nii.gz", "{case}-seg.nii.gz"),
    "brats2024-met": (r"BraTS-MET-00001-000", "{case}-t2f.nii.gz", "{case}-seg.nii.gz"),
    "plain": (r"case_000", "t1c.nii.gz", "seg.nii.gz"),
}


def test_every_layout_is_tested():
    assert set(NAMES) | {"msd", "lgg"} == set(LAYOUTS)


@pytest.mark.parametrize("layout", NAMES)
def test_files_bear_the_names_of_their_layout(layout, tmp_path):
    (folder,) = write_cohort(tmp_path, cases=1, layout=layout, **SMALL)
    pattern, t1c, label = NAMES[layout]
    assert folder.match(pattern)
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 5
    assert {t1c.format(case=folder.name), label.format(case=folder.name)} <= names
    assert (folder.parent.name in ("HGG", "LGG")) == (layout == "brats2017")


def test_brats2017_sorts_cases_by_grade(tmp_path):
    for folder in write_cohort(tmp_path, cases=8, layout="brats2017", seed=1, **SMALL):
        enhancing = (voxels(folder / f"{folder.name}_seg.nii.gz") == 4).any()
        assert folder.parent.name == ("HGG" if enhancing else "LGG")


def test_a_case_does_not_depend_on_the_size_of_its_cohort(tmp_path):
    few = write_cohort(tmp_path / "few", cases=2, **SMALL)
    more = write_cohort(tmp_path / "more", cases=3, **SMALL)
    for one, other in zip(few, more[:2], strict=True):
        for path in one.iterdir():
            assert path.read_bytes() == (other / path.name).read_bytes()


def test_another_seed_writes_another_cohort(tmp_path):
    (one,) = write_cohort(tmp_path / "one", cases=1, layout="plain", seed=1, **SMALL)
    (other,) = write_cohort(tmp_path / "other", cases=1, layout="plain", seed=2, **SMALL)
    assert (one / "t1.nii.gz").read_bytes() != (other / "t1.nii.gz").read_bytes()


@pytest.mark.parametrize("name", [name for name, row in CONVENTIONS.items() if {"WT", "TC", "ET"} <= set(row.regions)])
def test_label_values_give_back_the_regions_of_their_convention(name, cohort):
    case = next(case for case in cohort if (case.tumour == 3).any())
    written = to_convention(case.tumour, name)
    regions = convention(name).regions
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(np.isin(written, list(regions["WT"])), case.tumour > 0)
    np.testing.assert_array_equal(np.isin(written, list(regions["TC"])), np.isin(case.tumour, (1, 3)))
    np.testing.assert_array_equal(np.isin(written, list(regions["ET"])), case.tumour == 3)


@pytest.mark.parametrize(
    ("name", "picture"),
    [("brats2017", [0, 1, 2, 4]), ("brats2023", [0, 1, 2, 3]), ("msd", [0, 2, 1, 3]), ("brats2024-ped", [0, 2, 4, 1])],
)
def test_label_values_are_those_of_the_challenge(name, picture):
    assert to_convention(np.array([0, 1, 2, 3], dtype=np.uint8), name).tolist() == picture


def test_the_convention_of_a_layout_can_be_overruled(tmp_path):
    (own,) = write_cohort(tmp_path / "own", cases=1, layout="plain", seed=1, **SMALL)
    (msd,) = write_cohort(tmp_path / "msd", cases=1, layout="plain", seed=1, convention="msd", **SMALL)
    labels = voxels(own / "seg.nii.gz")
    np.testing.assert_array_equal(np.array([0, 2, 1, 0, 3])[labels], voxels(msd / "seg.nii.gz"))


def test_without_labels_only_scans_are_written(tmp_path):
    (folder,) = write_cohort(tmp_path, cases=1, layout="brats2017", labels=False, **SMALL)
    assert len(list(folder.iterdir())) == 4
    assert not list(tmp_path.rglob("*seg*"))
    assert folder.parent == tmp_path  # HGG and LGG would give the grade away


@pytest.mark.parametrize("orientation", ["ASL", "RAS", "IPR", "LPS"])
def test_another_orientation_turns_the_array_and_leaves_world_space_alone(orientation, tmp_path):
    grid = {"shape": (60, 72, 54), "spacing_mm": (3.0, 2.8, 3.2), "layout": "plain", "cases": 1}
    (lps,) = write_cohort(tmp_path / "lps", **grid)
    (turned,) = write_cohort(tmp_path / "turned", orientation=orientation, **grid)
    for name in ("t1c.nii.gz", "seg.nii.gz"):
        one, other = nib.load(lps / name), nib.load(turned / name)
        assert "".join(nib.aff2axcodes(other.affine)) == orientation
        one, other = nib.as_closest_canonical(one), nib.as_closest_canonical(other)
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
        np.testing.assert_allclose(one.affine, other.affine, atol=1e-4)


def test_headers_agree_on_one_affine_in_millimetres(tmp_path):
    (folder,) = write_cohort(tmp_path, cases=1, orientation="ASL", **SMALL)
    for path in folder.iterdir():
        image = nib.load(path)
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.get_data_dtype() == (np.uint8 if "seg" in path.name else np.int16)


def test_each_finished_case_is_reported(tmp_path):
    seen = []
    folders = write_cohort(tmp_path, cases=2, on_case=seen.append, **SMALL)
    assert seen == [folder.name for folder in folders]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "brats2042"}, "unknown layout 'brats2042'; .*brats2021"),
        ({"convention": "brats2042"}, "unknown label convention"),
        ({"convention": "lgg"}, "'lgg' has no WT, TC and ET; .*brats2017"),
        ({"orientation": "LPR"}, "orientation must name"),
        ({"orientation": "lps"}, "orientation must name"),
        ({"cases": 0}, "at least one case"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_cohort(tmp_path / "out", **{**SMALL, **arguments})
    assert not (tmp_path / "out").exists()


def test_importing_phantom_loads_neither_torch_nor_monai():
    code = "import sys, brats_pipeline.phantom; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "brats_pipeline.phantom" in loaded
    assert not loaded & {"torch", "monai", "pandas", "matplotlib", "sklearn"}
