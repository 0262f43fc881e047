"""TIFF files without Pillow: read as Pillow reads them, and written so that Pillow reads them."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from brats_pipeline.cases import integrity
from brats_pipeline.errors import PipelineError
from brats_pipeline.stand_ins import tiff
from transforms import slices

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (12, 20, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (12, 20), dtype=np.uint8)


@pytest.fixture
def without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our readers of slices as an export has them where Pillow is not installed."""
    for module in (slices, integrity):
        for name in ("Image", "UnidentifiedImageError", "TiffImagePlugin"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(tiff, name))


@pytest.mark.parametrize("pixels", [COLOURS, GREY], ids=["colours", "grey"])
@pytest.mark.parametrize("rows_per_strip", [12, 5, 1])
def test_pixels_size_and_mode_are_those_of_pillow(
    pixels: npt.NDArray[np.uint8], rows_per_strip: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path, tiffinfo={tiff.ROWS: rows_per_strip})
    with tiff.Image.open(path) as found, Image.open(path) as expected:
        found.load()
        assert np.array_equal(np.asarray(found), pixels)
        assert (found.size, found.mode) == (expected.size, expected.mode)
        assert len(found.getbands()) == len(expected.getbands())
        assert found.tag_v2[tiff.BITS] == expected.tag_v2[tiff.BITS]  # type: ignore[attr-defined]


def test_the_other_order_of_bytes_is_read_too(tmp_path: Path) -> None:
    entries = [(256, 3, 20), (257, 3, 12), (258, 3, 8), (262, 3, 1), (273, 4, 8), (279, 4, 240)]
    fields = [struct.pack(">HHIHH", tag, kind, 1, value, 0) for tag, kind, value in entries if kind == 3]
    fields += [struct.pack(">HHII", tag, kind, 1, value) for tag, kind, value in entries if kind == 4]
    head = struct.pack(">2sHI", b"MM", 42, 8 + GREY.size)
    path = tmp_path / "a.tif"
    path.write_bytes(head + GREY.tobytes() + struct.pack(">H", len(fields)) + b"".join(fields) + bytes(4))
    assert np.array_equal(np.asarray(Image.open(path)), GREY)
    assert np.array_equal(np.asarray(tiff.Image.open(path)), GREY)


def test_pillow_reads_what_is_written() -> None:
    file = io.BytesIO()
    tiff.Image.fromarray(GREY).save(file, format="TIFF")
    with Image.open(file) as found:
        assert found.format == "TIFF"
        assert np.array_equal(np.asarray(found), GREY)


@pytest.mark.usefixtures("without_pillow")
def test_a_patient_is_read_and_masks_come_back(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.tif" for number in range(3)]
    for path in paths:
        Image.fromarray(COLOURS).save(path)
    volume = slices.read_slices(paths)
    assert volume.shape == (3, 20, 12, 3)
    assert np.array_equal(volume[..., 0], COLOURS.transpose(2, 1, 0))
    assert integrity.read_slice_header(paths[0]) == ("3 channels of 8 bits", (20, 12))
    labels = (volume[0] > 100).astype(np.uint8)
    masks = slices.write_masks(tmp_path / "masks", ["a", "b", "c"], labels)
    assert integrity.read_slice_header(masks[0]) == ("1 channel of 8 bits", (20, 12))
    assert np.array_equal(slices.read_mask(masks), labels)


@pytest.mark.usefixtures("without_pillow")
@pytest.mark.parametrize(
    ("options", "said"),
    [({"compression": "tiff_lzw"}, "needs Pillow: pip install Pillow"), ({"cut": 40}, "ends after 680 of 720 bytes")],
)
def test_what_cannot_be_read_is_told(options: dict[str, str | int], said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, format="TIFF", **{k: v for k, v in options.items() if k != "cut"})
    content = file.getvalue()
    path.write_bytes(content[: len(content) - int(options.get("cut", 0))])
    with pytest.raises(PipelineError, match=said):
        slices.read_slices([path])


@pytest.mark.usefixtures("without_pillow")
def test_a_file_of_several_pages_is_refused_there_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(COLOURS).save(path, save_all=True, append_images=[Image.fromarray(COLOURS)])
    with pytest.raises(PipelineError, match="more than one page"):
        slices.read_slices([path])
    with pytest.raises(PipelineError, match="more than one page"):
        integrity.read_slice_header(path)


@pytest.mark.usefixtures("without_pillow")
@pytest.mark.parametrize("content", [b"", b"no picture", b"II*\0\x08\0\0\0\x09\0", b"II*\0\x08\0\0\0\0\0"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match="no TIFF picture"):
        integrity.read_slice_header(path)
    with pytest.raises(PipelineError, match="no TIFF picture"):
        slices.read_slices([path])


@pytest.mark.usefixtures("without_pillow")
@pytest.mark.parametrize(
    "entry", [(256, 3, 0, 0), (277, 4, 1, 4_000_000_000), (273, 4, 2**31, 8), (273, 4, 3, 0)], ids=str
)
def test_a_damaged_directory_is_refused_in_words(entry: tuple[int, int, int, int], tmp_path: Path) -> None:
    """A width of no value, four billion channels, two billion strips, and three strips of one size."""
    path = tmp_path / "a.tif"
    file = io.BytesIO()
    tiff.Image.fromarray(GREY).save(file, format="TIFF")
    content = bytearray(file.getvalue())
    place = next(at for at in range(10, 200, 12) if struct.unpack_from("<H", content, at)[0] == entry[0])
    struct.pack_into("<HHII", content, place, *entry)
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"a\.tif: "):
        slices.read_mask([path])
    with suppress(PipelineError):  # what the pixels need may be damaged where the header is not
        integrity.read_slice_header(path)


@pytest.mark.usefixtures("without_pillow")
def test_16_bit_values_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / "a.tif")
    with pytest.raises(PipelineError, match="16-bit values"):
        slices.read_mask([tmp_path / "a.tif"])
