"""Files of probabilities: what goes in comes out, any tool can read them, and what is none is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from transforms.probabilities import read_probabilities, write_probabilities

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def values(shape: tuple[int, ...] = (2, 4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def test_what_is_written_is_read_again_to_three_digits(tmp_path: Path) -> None:
    write_probabilities(tmp_path / "new" / "a.npz", values(), regions=["WT", "TC"], affine=AFFINE)
    found = read_probabilities(tmp_path / "new" / "a.npz")
    assert found.values.dtype == np.float16
    assert np.abs(found.values - values()).max() <= 2**-12  # half of a step of float16 below 1
    assert found.regions == ("WT", "TC")
    assert np.array_equal(found.affine, AFFINE)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.npz"]


def test_numpy_alone_reads_it_without_pickles(tmp_path: Path) -> None:
    write_probabilities(tmp_path / "a.npz", values(), regions=["WT", "TC"])
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["probabilities", "regions"]
        assert archive["probabilities"].shape == (2, 4, 5, 6)
        assert archive["regions"].tolist() == ["WT", "TC"]
    assert read_probabilities(tmp_path / "a.npz").affine is None


def test_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_probabilities(tmp_path / f"{name}.npz", values(), regions=["WT", "TC"], affine=AFFINE)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_background_is_compressed(tmp_path: Path) -> None:
    quiet = np.zeros((3, 40, 40, 40), np.float16)
    quiet[:, 10:20, 10:20, 10:20] = 0.7
    write_probabilities(tmp_path / "a.npz", quiet, regions=["TC", "WT", "ET"])
    assert (tmp_path / "a.npz").stat().st_size < quiet.nbytes / 50


def test_one_name_per_channel_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 channels for 1 regions \(WT\)"):
        write_probabilities(tmp_path / "a.npz", values(), regions=["WT"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probabilities": values() * 2}, r"values from .* to 1\.9.*are these logits"),
        ({"probabilities": values() - 0.5}, "values from -0"),
        ({"probabilities": np.where(values() > 0.9, np.nan, values())}, "NaN"),
        ({"probabilities": (values() > 0.5).astype(np.uint8)}, "uint8"),
        ({"probabilities": values((4, 5, 6))}, r"\(region, x, y, z\)"),
        ({"regions": np.array(["WT"])}, "names the regions WT for 2 channels"),
        ({"regions": np.array(["WT", "WT"])}, "one name for each"),
        ({"regions": np.array(["WT", None], dtype=object)}, "no archive"),
        ({"affine": np.eye(3)}, "affine"),
    ],
)
def test_what_holds_no_probabilities_is_refused_in_words(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    held = {"probabilities": values(), "regions": np.array(["WT", "TC"]), **change}
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(PipelineError, match=words) as caught:
        read_probabilities(tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_a_file_that_is_missing_truncated_or_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(PipelineError, match="cannot be read"):
        read_probabilities(path)
    write_probabilities(path, values(), regions=["WT", "TC"])
    whole = path.read_bytes()
    for content in (whole[:200], whole[:-30], b"", b"no archive at all"):
        path.write_bytes(content)
        with pytest.raises(PipelineError, match="no archive"):
            read_probabilities(path)
    spoilt = bytearray(whole)
    spoilt[150] ^= 255
    path.write_bytes(spoilt)
    with pytest.raises(PipelineError, match="no archive"):
        read_probabilities(path)
    np.savez(path, probabilities=values())
    with pytest.raises(PipelineError, match="regions"):
        read_probabilities(path)
