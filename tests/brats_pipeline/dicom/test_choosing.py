"""Series as scanners and people name them, and which modality each was taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydicom")

from pydicom import Dataset

from brats_pipeline.dicom.choosing import choose_series
from brats_pipeline.dicom.finding import Series
from brats_pipeline.dicom.guessing import guess
from brats_pipeline.dicom.stacks import Instance
from brats_pipeline.errors import PipelineError


def series(description: str, images: int = 24, **tags: Any) -> Series:
    header = Dataset()
    header.SeriesDescription = description
    for keyword, value in tags.items():
        setattr(header, keyword, value)
    return Series("1.2.3", "1", tuple(Instance(Path(f"{place}"), header) for place in range(images)))


NAMES = {
    "t1c": "AX T1 POST|Ax T1 +C|T1W_3D_TFE CE|t1_mprage_tra_KM|Ax T1 FLAIR +C|AX T1 3D +GAD|AX T1 W/ CONTRAST|T1Gd|"
    "Ax BRAVO +C|T1 SE AX C+|t1c|T1ce|cor T1 fs gd|AX T1 postgad|MPRAGEpost|POST AX T1|T1W_SE_Gd|t1_se tra nach KM|"
    "T1 mit KM|T1 post KM|T1 nach KM vor Bestrahlung|T1 APRES GADO|T1 CON CONTRASTE|T1 dopo mdc|T1 (C+)|CE-T1|"
    "3D T1 MPRAGE +C PRE-OP STEALTH|PRE-OP T1 POST GD|AX T1 GD POST OP|t1_mprage_KM_praeop|PreOp T1 POST|"
    "T1 POST GD PRE SURGERY|T1 Gd pre-biopsy|preoperative T1 +C|AX T1 POST OPTIC NERVES|T1 Gd-DTPA",
    "t1": "t1_mprage_sag_p2_iso|AX T1 PRE GD|AX T1 FLAIR|Sag T1 posterior fossa|T1 without contrast|AX T1 W/O|3D SPGR|"
    "sT1W_3D_TFE|T1 axial precontrast|SAG T1 CUBE pre|T1 nativ|AX T1 non-contrast|Ax T1 w/wo|"
    "t1_mprage vor KM|t1_se_tra_vor|T1 vor Kontrastmittel|T1 ohne KM|T1 o. KM|t1_tra_o_KM|T1 KM-|t1_se_km-_tra|T1 -KM|"
    "SAG 3D T1 C-|AX T1 C- FS|T1 -C|T1 sans gado|T1 AVANT INJECTION|T1 SIN CONTRASTE|T1 senza mdc|T1 +/- C|T1 C-/C+|"
    "T1 vor und nach KM|AX T1 SE PRE-OP|3D T1 MPRAGE POST OP|post op t1|T1_postop|PostOp T1 PRE GD|T1 postoperativ|"
    "T1 POST_OP_3|T1 post resection|T1 post-surgical|T1 POST BIOPSY",
    "t2": "AX T2 FSE|T2W_TSE|t2_tse_tra|T2 PROPELLER|t2_space_sag_p2_iso|AX T2 POST",
    "flair": "t2_tirm_tra_dark-fluid|AX FLAIR POST|3D FLAIR|Sag CUBE T2 FLAIR|t2_space_dark-fluid_sag|FLAIR_longTR|"
    "T2W FLAIR|AXIAL T2FLAIR",
    "": "AX T2*GRE|t2_star|ep2d_diff_3scan_trace_ADC|SWI_Images|MIP|AX T1 SUB|3-plane Loc|AX PERFUSION|AX PD|T2 SWAN|"
    "AX DWI b1000|B0 map|T1/T2|Survey|MRA TOF|Ax T2 GRE|CISS|T1_map|report",
}
CASES = [(name, modality) for modality, names in NAMES.items() for name in names.split("|")]


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_a_series_is_known_by_its_name(name: str, modality: str) -> None:
    told = guess(series(name))
    assert (told.modality or "") == modality, told.why


TIMES = [
    ({"RepetitionTime": 500, "EchoTime": 12, "ScanningSequence": "SE"}, "t1"),
    ({"RepetitionTime": 500, "EchoTime": 12, "ScanningSequence": "SE", "ContrastBolusAgent": "Gadovist"}, "t1c"),
    ({"RepetitionTime": 500, "EchoTime": 12, "ScanningSequence": "SE", "ContrastBolusAgent": "NONE"}, "t1"),
    ({"RepetitionTime": 2300, "EchoTime": 3, "InversionTime": 900, "ScanningSequence": ["GR", "IR"]}, "t1"),
    ({"RepetitionTime": 8, "EchoTime": 3, "FlipAngle": 12, "ScanningSequence": "GR"}, "t1"),
    ({"RepetitionTime": 8, "EchoTime": 3, "FlipAngle": 60, "ScanningSequence": "GR"}, None),
    ({"RepetitionTime": 600, "EchoTime": 20, "FlipAngle": 20, "ScanningSequence": "GR"}, None),
    ({"RepetitionTime": 4000, "EchoTime": 95, "ScanningSequence": "SE"}, "t2"),
    ({"RepetitionTime": 4000, "EchoTime": 95, "InversionTime": 150, "ScanningSequence": "SE"}, "t2"),
    ({"RepetitionTime": 9000, "EchoTime": 95, "InversionTime": 2500, "ScanningSequence": ["SE", "IR"]}, "flair"),
    ({"RepetitionTime": 3000, "EchoTime": 20, "ScanningSequence": "SE"}, None),
    ({"RepetitionTime": 4000, "EchoTime": 95, "ScanningSequence": "EP"}, None),
    ({"RepetitionTime": 0, "EchoTime": 0}, None),
    ({}, None),
]


@pytest.mark.parametrize(("tags", "modality"), TIMES)
def test_a_series_whose_name_says_nothing_is_known_by_its_times(tags: dict[str, Any], modality: str | None) -> None:
    assert guess(series("Series 5", **tags)).modality == modality


def test_a_name_against_the_times_is_no_guess() -> None:
    told = guess(series("AX T1", RepetitionTime=4000, EchoTime=100, ScanningSequence="SE"))
    assert (told.modality, told.why) == (None, "called t1, but TR 4000 TE 100 are those of t2")
    fat_suppressed = series("t2_tirm_fs", RepetitionTime=4000, EchoTime=80, InversionTime=150, ScanningSequence="SE")
    assert guess(fat_suppressed).modality is None


def test_the_name_of_the_protocol_helps_only_where_the_series_has_none() -> None:
    assert guess(series("", ProtocolName="AX FLAIR")).modality == "flair"
    assert guess(series("AX T1 +C", ProtocolName="BRAIN W/WO AND PERFUSION")).modality == "t1c"


@pytest.mark.parametrize("kind", ["ADC", "MIP", "LOCALIZER", "SUBTRACTION", "P", "CBV"])
def test_what_was_computed_is_never_a_modality(kind: str) -> None:
    assert guess(series("AX T1 +C", ImageType=["DERIVED", "PRIMARY", kind])).modality is None


@pytest.mark.parametrize(
    ("name", "agent", "modality", "disputed"),
    [
        ("AX T1 PRE", "Gadovist", "t1", True),
        ("AX T1 +C", "NONE", "t1c", True),
        ("AX T1 PRE", "NO", "t1", False),
        ("AX T1 PRE", "", "t1", False),
        ("AX T1 +C", "Gadovist", "t1c", False),
        ("AX T1 +C", "", "t1c", False),
        ("AX T1 POST OP", "Gadovist", "t1c", False),
        ("AX T1 W/WO", "Gadovist", "t1c", False),
    ],
)
def test_a_name_that_the_contrast_agent_contradicts_is_disputed(
    name: str, agent: str, modality: str, disputed: bool
) -> None:
    told = guess(series(name, ContrastBolusAgent=agent))
    assert (told.modality, told.disputed) == (modality, disputed), told.why
    assert not (told.disputed and told.sure)


def test_a_few_images_are_no_scan_of_a_head() -> None:
    assert guess(series("AX T1 +C", images=5)).modality is None


def exam(scanner: Any, folder: Path, *listed: tuple[str, dict[str, Any]]) -> Path:
    """Series 1, 2, ... with names and other properties."""
    for number, (name, more) in enumerate(listed, start=1):
        tags = {"SeriesNumber": number, "SeriesDescription": name, **more.get("tags", {})}
        spacing = more.get("spacing_mm", (1.5, 2.0, 3.0))
        scanner.save(scanner.Scan(tags=tags, spacing_mm=spacing).slices(), folder, seed=number)
    return folder


def numbers(choice: Any) -> dict[str, str]:
    return {modality: each.number for modality, each in choice.chosen.items()}


def test_an_exam_is_matched_and_its_table_says_why(scanner: Any, tmp_path: Path) -> None:
    folder = exam(
        scanner,
        tmp_path / "exam",
        ("loc", {}),
        ("AX T1", {}),
        ("AX T2", {}),
        ("AX FLAIR", {}),
        ("AX T1 +C", {}),
        ("ADC", {}),
    )
    choice = choose_series(folder)
    assert numbers(choice) == {"t1c": "5", "t1": "2", "t2": "3", "flair": "4"}
    assert list(choice.chosen) == ["t1c", "t1", "t2", "flair"]
    assert choice.rows()[4] == ("5", "AX T1 +C", "8", "1.5 x 2 x 3", "T1C", "called t1, named as after contrast")
    assert choice.rows()[5][4:] == ("", "diffusion")


FINE: dict[str, Any] = {"spacing_mm": (1.0, 1.0, 1.0)}
THREE: dict[str, Any] = {"tags": {"MRAcquisitionType": "3D"}}
COMPUTED: dict[str, Any] = {**FINE, "tags": {"MRAcquisitionType": "3D", "ImageType": ["DERIVED", "SECONDARY", "MPR"]}}


@pytest.mark.parametrize(
    ("first", "second", "best"), [({}, FINE, "2"), ({}, THREE, "2"), (FINE, THREE, "2"), ({}, COMPUTED, "1")]
)
def test_the_original_then_the_3d_then_the_finer_series_is_taken(
    scanner: Any, tmp_path: Path, first: dict[str, Any], second: dict[str, Any], best: str
) -> None:
    choice = choose_series(exam(scanner, tmp_path / "exam", ("T1 +C", first), ("T1 POST", second)))
    assert numbers(choice) == {"t1c": best}
    assert {row[0]: row[4] for row in choice.rows()} == {"1": "(t1c)", "2": "(t1c)"} | {best: "T1C"}


def test_two_series_that_fit_alike_are_refused_with_the_table(scanner: Any, tmp_path: Path) -> None:
    folder = exam(scanner, tmp_path / "exam", ("AX FLAIR", {}), ("AX T2", {}), ("AX T2 repeat", {}))
    with pytest.raises(PipelineError, match=r"t2 may be series 2 or 3\. Say which, as in --t2 NUMBER") as error:
        choose_series(folder)
    assert [line.split()[0] for line in str(error.value).splitlines()[1:]] == ["series", "1", "2", "3"]
    assert numbers(choose_series(folder, {"t2": "3"})) == {"t2": "3", "flair": "1"}
    assert numbers(choose_series(folder, {"t2": "none"})) == {"flair": "1"}


def test_a_finer_t1_that_only_its_header_calls_enhanced_is_not_taken_before_one_so_named(
    scanner: Any, tmp_path: Path
) -> None:
    told = {**FINE, "tags": {"ContrastBolusAgent": "Gadavist"}}
    with pytest.raises(PipelineError, match="t1c may be series 2 or 1"):
        choose_series(exam(scanner, tmp_path / "exam", ("AX T1 +C", {}), ("AX BRAVO", told)))


AGENT: dict[str, Any] = {"ContrastBolusAgent": "Gadavist"}
FINE_3D: dict[str, Any] = {**FINE, **THREE}


@pytest.mark.parametrize(
    ("listed", "taken"),
    [
        ([("t1_mprage vor KM", FINE_3D), ("t1_se tra nach KM", {"tags": AGENT})], {"t1c": "2", "t1": "1"}),
        ([("3D T1 MPRAGE POST OP", FINE_3D), ("AX T1 SE GD POST OP", {"tags": AGENT})], {"t1c": "2", "t1": "1"}),
        ([("AX T1 PRE-OP", {}), ("T1 MPRAGE +C PRE-OP", {**FINE, "tags": AGENT})], {"t1c": "2", "t1": "1"}),
        ([("SAG 3D T1 C-", FINE_3D), ("AX T1 C+", {"tags": AGENT})], {"t1c": "2", "t1": "1"}),
    ],
    ids=lambda value: value[0][0] if isinstance(value, list) else "",
)
def test_a_finer_scan_before_contrast_is_not_taken_for_the_one_after_it(
    scanner: Any, tmp_path: Path, listed: list[tuple[str, dict[str, Any]]], taken: dict[str, str]
) -> None:
    assert numbers(choose_series(exam(scanner, tmp_path / "exam", *listed))) == taken


def test_a_disputed_series_is_asked_for_also_where_it_is_the_only_one(scanner: Any, tmp_path: Path) -> None:
    folder = exam(scanner, tmp_path / "exam", ("AX T2", {}), ("AX T1 PRE STEALTH", {"tags": AGENT}))
    with pytest.raises(
        PipelineError, match=r"(?s)t1 may be series 2\. Say .*before contrast, but .* Gadavist"
    ) as error:
        choose_series(folder)
    assert "--t1 NUMBER" in str(error.value)
    assert numbers(choose_series(folder, {"t1": "2"})) == {"t1": "2", "t2": "1"}
    assert numbers(choose_series(folder, {"t1c": "2"})) == {"t1c": "2", "t2": "1"}
    assert numbers(choose_series(folder, {"t1": "none"})) == {"t2": "1"}


def test_a_series_can_be_named_by_number_identifier_or_folder(scanner: Any, tmp_path: Path) -> None:
    folder = exam(scanner, tmp_path / "exam", ("odd", {}), ("AX T1 +C", {}))
    uid = choose_series(folder).folder.series[0].uid
    other = scanner.save(scanner.Scan(tags={"SeriesNumber": 77}).slices(), tmp_path / "other")
    assert numbers(choose_series(folder, {"t1c": "1"})) == {"t1c": "1"}
    assert numbers(choose_series(folder, {"t1c": uid, "t1": "2"})) == {"t1c": "1", "t1": "2"}
    assert numbers(choose_series(folder, {"t2": str(other)})) == {"t1c": "2", "t2": "77"}
    assert choose_series(folder, {"t1c": "1"}).rows()[0][4:] == ("T1C", "as told; neither name nor times tell")


def test_a_number_that_is_not_there_is_refused_with_the_table(scanner: Any, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"(?s)no series is 9 \(--flair\).*AX T1 \+C"):
        choose_series(exam(scanner, tmp_path / "exam", ("AX T1 +C", {})), {"flair": "9"})


def test_an_exam_without_any_known_series_is_refused_with_the_table(scanner: Any, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"(?s)no series looks like t1c, t1, t2, flair.*DWI.*diffusion"):
        choose_series(exam(scanner, tmp_path / "exam", ("DWI", {})))


def test_series_of_two_exams_are_not_put_together(scanner: Any, tmp_path: Path) -> None:
    exam(scanner, tmp_path / "all" / "then", ("AX T1 +C", {"tags": {"StudyInstanceUID": "1.2.3"}}))
    exam(scanner, tmp_path / "all" / "now", ("AX FLAIR", {"tags": {"StudyInstanceUID": "1.2.4"}}))
    with pytest.raises(PipelineError, match=r"(?s)holds series of 2 exams; give the folder of one.*1 in .*1 in "):
        choose_series(tmp_path / "all")
    assert numbers(choose_series(tmp_path / "all", {"flair": "none"})) == {"t1c": "1"}
    with pytest.raises(PipelineError, match=r"2 series are 1 \(\S+, \S+\)"):
        choose_series(tmp_path / "all", {"flair": "1"})
