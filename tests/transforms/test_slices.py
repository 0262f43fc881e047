"""Slices in TIFF files: their axes, their channels, and what is refused."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brats_pipeline.cases.integrity import read_slice_header
from brats_pipeline.errors import PipelineError
from transforms.slices import copied_sequences, read_mask, read_slices, write_masks

# Two rows, three columns; one number per pixel and channel, so that no axis can be confused with another.
PICTURE = np.array([[[11, 21, 31], [12, 22, 32], [13, 23, 33]], [[14, 24, 34], [15, 25, 35], [16, 26, 36]]], np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def stack(tmp_path: Path) -> list[Path]:
    return [save(tmp_path / f"p_{number}.tif", PICTURE + 100 * (number - 1)) for number in (1, 2)]


def test_columns_are_x_rows_are_y_and_files_are_z(stack: list[Path]) -> None:
    volume = read_slices(stack)
    assert volume.shape == (3, 3, 2, 2)
    np.testing.assert_array_equal(volume[0, :, 0, 0], [11, 12, 13])  # t1, first row, along the columns
    np.testing.assert_array_equal(volume[1, 0, :, 0], [21, 24])  # flair, first column, along the rows
    np.testing.assert_array_equal(volume[2, 0, 0, :], [31, 131])  # t1c, through the files


def test_masks_become_zero_and_one_and_come_back_as_they_were(tmp_path: Path) -> None:
    drawn = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    paths = [save(tmp_path / "a_1_mask.tif", drawn), save(tmp_path / "a_2_mask.tif", 0 * drawn)]
    labels = read_mask(paths)
    assert labels.shape == (3, 2, 2)
    np.testing.assert_array_equal(labels[:, :, 0], [[0, 1], [1, 1], [0, 0]])
    written = write_masks(tmp_path / "out" / "a", ["a_1", "a_2"], labels)
    assert [path.name for path in written] == ["a_1_mask.tif", "a_2_mask.tif"]
    for path, source in zip(written, paths, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(source)))


def test_of_equal_channels_flair_is_no_copy_and_t1_always_is() -> None:
    volume = np.zeros((3, 4, 4, 2), np.uint8)
    volume[0], volume[1], volume[2] = 7, 9, 9
    assert copied_sequences(volume) == ("t1c",)
    volume[0] = 9
    assert copied_sequences(volume) == ("t1c", "t1")
    volume[0, 0, 0, 0] = 8
    assert copied_sequences(volume) == ("t1c",)
    volume[2] = volume[0]
    assert copied_sequences(volume) == ("t1",)
    volume[2, 0, 0, 0] = 3
    assert copied_sequences(volume) == ()


@pytest.mark.parametrize(
    ("array", "needed"),
    [
        (PICTURE[..., 0], "3 channels"),
        (PICTURE[..., 0].astype(np.uint16) * 200, "8-bit"),
        (np.zeros((2, 3, 4), np.uint8), "3 channels"),
    ],
    ids=["one channel", "16 bit", "four channels"],
)
def test_a_slice_of_another_kind_is_refused(tmp_path: Path, array: np.ndarray, needed: str) -> None:
    path = save(tmp_path / "odd.tif", array)
    with pytest.raises(PipelineError, match=needed) as refused:
        read_slices([path])
    assert "odd.tif" in str(refused.value)


def test_16_bit_colour_is_refused_though_pillow_opens_it_as_8_bit(tmp_path: Path) -> None:
    rows, columns, channels = PICTURE.shape
    pixels = (PICTURE.astype("<u2") * 200).tobytes()
    bits, start = struct.pack("<3H", 16, 16, 16), 8
    tags = [  # number, type (3 short, 4 long), count, value
        (256, 3, 1, columns), (257, 3, 1, rows), (258, 3, 3, start), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, start + len(bits)), (277, 3, 1, channels), (278, 3, 1, rows), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    header = struct.pack("<2sHI", b"II", 42, start + len(bits) + len(pixels))
    (tmp_path / "deep.tif").write_bytes(header + bits + pixels + directory)
    with pytest.raises(PipelineError, match="16-bit values, 8-bit slices are needed"):
        read_slices([tmp_path / "deep.tif"])


def test_slices_of_two_sizes_are_refused_with_both_named(stack: list[Path], tmp_path: Path) -> None:
    wide = save(tmp_path / "wide.tif", np.zeros((2, 5, 3), np.uint8))
    with pytest.raises(PipelineError, match=r"wide\.tif.*\(2, 5, 3\).*p_1\.tif.*\(2, 3, 3\)"):
        read_slices([*stack, wide])


def test_a_mask_that_is_not_binary_is_refused_with_its_values(tmp_path: Path) -> None:
    path = save(tmp_path / "grey_mask.tif", np.array([[0, 255], [128, 3]], np.uint8))
    with pytest.raises(PipelineError, match=r"grey_mask\.tif.*\[3, 128\]"):
        read_mask([path])


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.tif"
    path.write_text("not a picture")
    with pytest.raises(PipelineError, match=r"text\.tif.*no TIFF picture"):
        read_slices([path])


@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")  # Pillow says so before it fails
def test_a_truncated_slice_is_refused(stack: list[Path]) -> None:
    content = stack[0].read_bytes()
    stack[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(PipelineError, match=r"p_1\.tif"):
        read_slices(stack)


def test_a_file_of_several_pages_is_refused_by_both_readers(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    Image.fromarray(PICTURE).save(path, save_all=True, append_images=[Image.fromarray(PICTURE)] * 2)
    for read in (lambda: read_slices([path]), lambda: read_slice_header(path)):
        with pytest.raises(PipelineError, match=r"pages\.tif: holds more than one page; one slice per file is needed"):
            read()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_whatever_bytes_are_damaged_only_an_error_in_words_comes_out_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # no time for pictures as large as Pillow would bear
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, format="TIFF")
    sound, chosen, path = file.getvalue(), random.Random(1), tmp_path / "damaged.tif"
    for _ in range(300):
        content = bytearray(sound)
        for _ in range(chosen.randint(1, 4)):  # most of them in the header and in the directory
            place = chosen.choice([chosen.randrange(150), chosen.randrange(len(content))])
            content[place] = chosen.choice([0, 1, 2, 3, 5, 12, 13, 16, 128, 255, chosen.randrange(256)])
        path.write_bytes(content)
        for read in (lambda: read_slices([path]), lambda: read_slice_header(path)):
            try:
                read()
            except PipelineError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017
