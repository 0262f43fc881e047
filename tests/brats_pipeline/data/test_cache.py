"""Prepared cases on disk: never half there, never stale, and the same patches as from memory."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, RandSpatialCropd, SpatialPadd, Transform

from brats_pipeline.data import prepared as data_module
from brats_pipeline.data.cache import CaseCache, recipe_of
from brats_pipeline.data.datasets import CaseDataset, PatchDataset, PrefetchLoader
from brats_pipeline.errors import CaseError, PipelineError
from transforms.slice_stack import SliceMajord

BUNDLES = Path(__file__).parents[3] / "bundles"


class Load(Transform):
    """Loads ``.npy`` files."""

    loaded = 0
    """How often; of the class, since what an instance holds is a setting."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        Load.loaded += 1
        return {**item, "image": torch.from_numpy(np.load(item["image"])), "present": torch.ones(1)}


def items(folder: Path, count: int = 3) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        np.save(folder / f"{number}.npy", np.arange(48000, dtype=np.int16).reshape(1, 30, 40, 40) // (number + 1))
    return [{"case_id": f"case {number}", "image": str(folder / f"{number}.npy")} for number in range(count)]


@pytest.fixture(autouse=True)
def count_anew() -> None:
    Load.loaded = 0


def patches(cases: list[dict[str, Any]], cache: Path | None, load: Load | None = None) -> PatchDataset:
    crop = RandSpatialCropd("image", roi_size=[4, 4, 4], random_size=False)
    chain = Compose([load or Load(), SliceMajord("image"), crop])
    return PatchDataset(cases, chain, patches_per_epoch=8, cache_dir=cache)


SAMPLE = {
    "image": torch.arange(96000, dtype=torch.int16).reshape(2, 30, 40, 40).permute(0, 3, 1, 2),
    "scale": torch.tensor([[0.5, torch.inf]]),
    "voxels": [torch.tensor([1, 2]), torch.tensor([], dtype=torch.int64)],
    "corner": np.array([6, 4, 4]),
    "case_id": "a",
    "channels": {"t1c": 0},
}


def strides(tensor: torch.Tensor) -> list[int]:
    """Of the axes that have any."""
    return [stride for stride, side in zip(tensor.stride(), tensor.shape, strict=True) if side > 1]


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert strides(one) == strides(other)
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, strict=True)
    elif isinstance(one, list):
        for mine, theirs in zip(one, other, strict=True):
            assert_equal(mine, theirs)
    else:
        assert one == other


def test_a_sample_comes_back_as_it_was_layout_included(tmp_path: Path) -> None:
    cache = CaseCache(tmp_path / "cache", "recipe")
    cache.write("key", SAMPLE)
    back = cache.read("key")
    assert back is not None
    assert list(back) == list(SAMPLE)
    for name, value in SAMPLE.items():
        assert_equal(back[name], value)


def test_what_is_written_into_a_sample_does_not_reach_the_file(tmp_path: Path) -> None:
    cache = CaseCache(tmp_path, "recipe")
    cache.write("key", SAMPLE)
    opened = cache.read("key")
    assert opened is not None
    opened["image"].fill_(7)
    again = cache.read("key")
    assert again is not None
    assert_equal(again["image"], SAMPLE["image"])


def test_the_key_follows_contents_and_settings_but_neither_names_nor_places(tmp_path: Path) -> None:
    (first,) = items(tmp_path / "a", 1)
    (moved,) = items(tmp_path / "b", 1)
    cache = CaseCache(tmp_path, recipe_of([SpatialPadd("image", [8, 8, 8])]))
    assert cache.key(first) == cache.key(moved)
    other = CaseCache(tmp_path, recipe_of([SpatialPadd("image", [8, 8, 9])]))
    assert cache.key(first) != other.key(first)
    Path(moved["image"]).write_bytes(Path(moved["image"]).read_bytes()[:-1] + b"x")
    assert cache.key(first) != cache.key(moved)


class Holding:
    """Has one setting."""

    def __init__(self, setting: Any) -> None:
        self.setting = setting


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.float32, torch.uint8),
        (np.float32, np.uint8),
        (np.dtype("f4"), np.dtype("u1")),
        (torch.device("cpu"), torch.device("cuda", 0)),
        (slice(0, 3), slice(1, 2)),
        (np.int64(3), np.int64(4)),
        (np.float32(0.1), np.float32(0.9)),
        (partial(round, ndigits=1), partial(round, ndigits=2)),
        (partial(max, 1), partial(max, 2)),
        (partial(max, 1), partial(min, 1)),
        ([torch.float32], [torch.uint8]),
    ],
    ids=repr,
)
def test_recipes_differ_where_a_setting_of_any_kind_does(one: Any, other: Any) -> None:
    assert recipe_of([Holding(one)]) == recipe_of([Holding(one)])
    assert recipe_of([Holding(one)]) != recipe_of([Holding(other)])


def test_a_setting_that_nobody_can_look_into_is_refused_by_its_kind() -> None:
    with pytest.raises(TypeError, match=r"a setting of kind builtins\.object cannot be told from another .*cache"):
        recipe_of([Holding(object())])


@pytest.mark.parametrize("bundle", sorted(path.name for path in BUNDLES.iterdir()))
def test_the_chains_of_every_bundle_have_a_recipe(bundle: str) -> None:
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / bundle / "configs" / "train.yaml"))
    chain = parser.get_parsed_content("train#preprocessing")
    assert recipe_of(chain.flatten().transforms)


def test_another_split_of_the_same_cases_finds_them_prepared_under_its_own_names(tmp_path: Path) -> None:
    (case,) = items(tmp_path / "data", 1)
    first = {**case, "case_id": "a", "patient_id": "P1", "fold": 0, "convention": "lgg"}
    later = {**case, "case_id": "b", "patient_id": "P2", "fold": 3, "convention": "lgg"}
    patches([first], tmp_path / "cache").load()
    Load.loaded = 0
    again = patches([later], tmp_path / "cache")
    again.load()
    assert Load.loaded == 0
    (kept,) = again.kept()
    assert (kept["case_id"], kept["patient_id"], kept["fold"]) == ("b", "P2", 3)
    assert torch.equal(kept["image"], torch.from_numpy(np.load(case["image"])))
    patches([{**later, "convention": "msd"}], tmp_path / "cache").load()  # this decides what labels mean
    assert Load.loaded > 0


def test_a_recipe_is_the_same_in_every_process() -> None:
    code = (
        "from monai.transforms import SpatialPadd, Orientationd\n"
        "from brats_pipeline.data.cache import recipe_of\n"
        "print(recipe_of([SpatialPadd({'image', 'label'}, [8, 8, 8]), Orientationd('image', axcodes='LPS', "
        "labels=(('L', 'R'), ('P', 'A'), ('I', 'S')))]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    first, second = (
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        for env in (environment, {**environment, "PYTHONHASHSEED": "8"})
    )
    assert first == second


def test_patches_from_disk_are_those_from_memory_and_cases_are_prepared_once_for_all_runs(tmp_path: Path) -> None:
    cases = items(tmp_path / "data")
    on_disk, in_memory = patches(cases, tmp_path / "cache"), patches(cases, None)
    on_disk.load()
    assert Load.loaded == 3 + 1  # one more to tell the size before anything is written
    in_memory.load()
    for number in range(8):
        assert_equal(on_disk[number]["image"], in_memory[number]["image"])
    Load.loaded = 0
    later = patches(cases, tmp_path / "cache")
    later.load()
    assert later[0]["draw"] == in_memory[0]["draw"]
    assert Load.loaded == 0


def test_the_size_is_said_before_anything_is_written(tmp_path: Path) -> None:
    said: list[str] = []

    def listen(text: str) -> None:
        assert not list((tmp_path / "cache").iterdir())
        said.append(text)

    patches(items(tmp_path / "data"), tmp_path / "cache").load(on_size=listen)
    assert said == [f"preparing 3 cases takes about 0.3 MiB in {tmp_path / 'cache'}"]
    patches(items(tmp_path / "data"), tmp_path / "cache").load(on_size=said.append)
    assert len(said) == 1  # nothing is left to prepare


def test_a_cohort_that_does_not_fit_is_refused_with_need_and_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = items(tmp_path / "data")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(PipelineError, match=r"need about 0.3 MiB in .*cache, where 0.0 MiB are free; make room"):
        patches(cases, tmp_path / "cache").load()
    monkeypatch.setattr(data_module, "free_bytes", lambda: 2**17)
    with pytest.raises(PipelineError, match=r"need about 0.3 MiB of memory, 0.1 MiB are free; .*--cache-dir"):
        patches(cases, None).load()


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(PipelineError, match=r"cache: a prepared case cannot be kept \(No space left on device\)"):
        CaseCache(tmp_path / "cache", "recipe").write("key", SAMPLE)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncate", "remove an array", "remove the index", "scribble"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    cases = items(tmp_path / "data", 1)
    whole = patches(cases, tmp_path / "cache")[0]["image"].clone()  # no view of what is damaged
    (array,) = (path for path in tmp_path.glob("cache/*/*.npy") if path.stat().st_size > 2**16)
    if damage == "truncate":
        os.truncate(array, 5000)
    elif damage == "remove an array":
        array.unlink()
    elif damage == "remove the index":
        (array.parent / "entry.json").unlink()
    else:
        (array.parent / "entry.json").write_text("{")
    assert torch.equal(patches(cases, tmp_path / "cache")[0]["image"], whole)


def test_the_quicker_of_two_processes_wins_and_nothing_of_the_other_stays(tmp_path: Path) -> None:
    cache = CaseCache(tmp_path, "recipe")
    cache.write("key", SAMPLE)
    cache.write("key", {**SAMPLE, "case_id": "late"})
    opened = cache.read("key")
    assert opened is not None
    assert opened["case_id"] == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_process_that_is_killed_while_it_writes_leaves_no_entry_and_its_rest_is_swept(tmp_path: Path) -> None:
    code = (
        "import sys, time, numpy, torch\n"
        "from brats_pipeline.data.cache import CaseCache\n"
        "numpy.save = lambda *a, **k: (print('writing', flush=True), time.sleep(60))\n"
        "CaseCache(sys.argv[1], 'recipe').write('key', {'image': torch.ones(9)})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    cache = CaseCache(tmp_path, "recipe")
    assert cache.read("key") is None
    assert len(list(tmp_path.iterdir())) == 1
    cache.sweep()
    assert list(tmp_path.iterdir()) == []


def test_the_rest_of_a_living_process_is_not_swept(tmp_path: Path) -> None:
    cache = CaseCache(tmp_path, "recipe")
    mine = tmp_path / f".{os.uname().nodename}.{os.getpid()}.abc"
    mine.mkdir()
    cache.sweep()
    assert mine.is_dir()


def test_a_sample_that_cannot_be_kept_says_which_entry_is_to_blame(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'meta' is a object; a cached case holds arrays"):
        CaseCache(tmp_path, "recipe").write("key", {"meta": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_broken_case_is_named_also_with_a_cache(tmp_path: Path) -> None:
    cases = items(tmp_path / "data", 2)

    class Refuse(Load):
        def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
            if item["case_id"] == "case 1":
                raise PipelineError("the file is truncated")
            return super().__call__(item)

    with pytest.raises(CaseError, match="case 1: the file is truncated"):
        patches(cases, tmp_path / "cache", Refuse()).load()


def test_validation_cases_may_lie_on_disk_too(tmp_path: Path) -> None:
    cases = items(tmp_path / "data")
    for _ in range(2):
        data = CaseDataset(cases, Compose([Load()]), cache_dir=tmp_path / "cache")
        assert torch.equal(data[2]["image"], torch.from_numpy(np.load(cases[2]["image"])))
    assert Load.loaded == 1


def test_workers_that_are_spawned_map_the_cases_themselves_and_cut_the_same_patches(tmp_path: Path) -> None:
    cases = items(tmp_path / "data")
    data = patches(cases, tmp_path / "cache")
    data.load()
    started = time.monotonic()
    loader = PrefetchLoader(data, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    cut = torch.cat([batch["image"] for batch in loader])
    assert time.monotonic() - started < 60
    expected = torch.stack([data[number]["image"] for number in range(8)])
    torch.testing.assert_close(cut, expected)
