"""The report: one file, nothing hidden, pictures the right way round."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from brats_pipeline.metrics import RULES, RegionScore, summarise
from brats_pipeline.metrics.statistics import bootstrap_interval
from brats_pipeline.report import CasePage, notable_cases, part_rows, write_report
from brats_pipeline.report.budget import within_budget
from brats_pipeline.report.headline import headline_rows
from brats_pipeline.report.overlay import overlay_figure
from brats_pipeline.report.words import MEANINGS

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def rows(case_id: str, dice: float) -> list[RegionScore]:
    return [
        RegionScore(case_id, region, dice, dice, dice, dice, 1.0, 374.0 if dice == 0 else 2.5, 10.0, 9.0, 9, 1, 1, 90)
        for region in ("WT", "TC", "ET")
    ]


def written(tmp_path: Path, **changes) -> str:
    scores = [*rows("case-good", 0.9), *rows("case-bad", 0.0)]
    values = {
        "rules": RULES["brats2023-gli"],
        "scores": scores,
        "regions": summarise(scores, ("WT", "TC", "ET")),
        "conventions": {"brats2017": "brats2023"},
        "missing": [],
        "failed": {},
        "unmatched": [],
        "pages": [CasePage("case-good", b"JPEG"), CasePage("case-bad", b"JPEG")],
        "images": True,
        "versions": {"python": "3"},
    } | changes
    write_report(tmp_path / "report.html", **values)
    return (tmp_path / "report.html").read_text()


class Balance(HTMLParser):
    """Checks that every tag is closed where it must be, and collects addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_file_needs_no_other_file_and_no_network(tmp_path):
    html = written(tmp_path)
    page = Balance()
    page.feed(html)
    assert page.open == []
    assert page.addresses
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html
    targets = [address[1:] for address in page.addresses if address.startswith("#")]
    assert sorted(targets) == ["case-bad", "case-good"]
    assert all(f'id="{target}"' in html for target in targets)


def test_the_rules_and_the_conventions_are_spelled_out(tmp_path):
    html = written(tmp_path)
    for sentence in RULES["brats2023-gli"].sentences():
        assert sentence in html
    assert "references follow brats2017 (1 NCR/NET, 2 ED, 4 ET)" in html
    assert "not a medical device" in html


def test_the_headline_gives_mean_interval_median_and_the_number_of_cases(tmp_path):
    html = written(tmp_path)
    low, high = bootstrap_interval([0.9, 0.0])
    figures = rf"0.450 \[{low:.3f}, {high:.3f}\]</td>\s*<td>0.450 \[0.225, 0.675\]"
    assert re.search(rf"<td>WT</td><td>2</td><td>0</td>\s*<td class=\"first strong\">{figures}", html)


def test_et_stands_twice_by_the_rule_and_over_cases_that_have_it(tmp_path):
    scores = [*rows("case-a", 0.9), *rows("case-b", 0.7), *rows("case-c", 0.8)]
    scores = [
        replace(row, dice=1.0, tp=0, fn=0, reference_ml=0.0) if (row.case_id, row.region) == ("case-c", "ET") else row
        for row in scores
    ]
    by_rule, with_et = headline_rows(scores, ("WT", "TC", "ET"), resamples=50)[2:]
    assert (by_rule.n, by_rule.without, by_rule.figures["dice"].spread.mean) == (3, 1, pytest.approx(2.6 / 3))
    assert (with_et.n, with_et.without, with_et.figures["dice"].spread.mean) == (2, 0, pytest.approx(0.8))
    assert "0.1 ml" in with_et.name


@pytest.mark.parametrize(("n", "said"), [(5, True), (6, False)])
def test_fewer_than_six_cases_are_said_to_decide_nothing(tmp_path, n, said):
    scores = [row for number in range(n) for row in rows(f"case-{number}", 0.5 + number / 20)]
    html = written(tmp_path, scores=scores, regions=summarise(scores, ("WT", "TC", "ET")), pages=[])
    assert ("no test can decide" in html) == said
    assert ("no test can decide" in (tmp_path / "report.md").read_text()) == said


@pytest.mark.parametrize(
    ("dice", "notable"),
    [
        ([0.5], {"case-0": "The only case"}),
        ([0.5, 0.4], {"case-1": "Worst case", "case-0": "Best case"}),
        ([0.5, 0.4, 0.9, 0.7], {"case-1": "Worst case", "case-0": "Median case", "case-2": "Best case"}),
        ([0.5, 0.4, 0.9, 0.7, 0.8], {"case-1": "Worst case", "case-3": "Median case", "case-2": "Best case"}),
    ],
)
def test_worst_median_and_best_are_chosen_by_mean_dice(dice, notable):
    assert notable_cases([row for number, value in enumerate(dice) for row in rows(f"case-{number}", value)]) == notable


def test_missing_and_failed_cases_stand_before_the_scores(tmp_path):
    html = written(tmp_path, missing=["case-bad"], failed={"case-odd": "another <grid>"}, unmatched=["case-extra"])
    top = html[: html.index("Scores by region")]
    for word in ("case-bad", "case-odd", "another &lt;grid&gt;", "case-extra"):
        assert word in top
    assert "Read this first" not in written(tmp_path)


def test_the_worst_case_is_shown_first(tmp_path):
    html = written(tmp_path)
    assert html.index('id="case-bad"') < html.index('id="case-good"')


def test_without_pictures_the_report_says_why(tmp_path):
    assert "not asked for" in written(tmp_path, images=False, pages=[])
    html = written(tmp_path, pages=[CasePage("case-good", None, "flair lies on another grid than the reference")])
    assert "No pictures." in html
    assert "Without a picture: case-good (flair lies on another grid than the reference)" in html
    assert "the references come without scans" in written(tmp_path, pages=[])


def test_a_scan_with_skull_and_face_brings_a_warning_that_names_it(tmp_path):
    pages = [CasePage("case-good", b"JPEG"), CasePage("case-bad", b"JPEG", shows_head=True)]
    top = written(tmp_path, pages=pages).split("Scores by region")[0]
    assert "do not share" in top
    assert "case-bad" in top
    assert "case-good" not in top
    assert "do not share" not in written(tmp_path)


def test_the_figures_lie_beside_the_report_and_markdown_shows_them(tmp_path):
    written(tmp_path)
    text = (tmp_path / "report.md").read_text()
    shown = re.findall(r"\(figures/(\w+)\.png\)", text)
    assert sorted(shown) == ["dice", "dice_by_volume", "hd95", "volumes"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(
        f"{name}.{ending}" for name in shown for ending in ("png", "svg")
    )
    assert "| WT | 2 | 0.450 [" in text


def test_one_case_is_enough_for_a_report(tmp_path):
    scores = rows("only", 0.8)
    html = written(tmp_path, scores=scores, regions=summarise(scores, ("WT", "TC", "ET")), pages=[])
    assert re.search(r'<td class="first strong">0.800</td>', html)  # no interval
    assert "The only case" not in html


SIDE = 40


def picture(affine: np.ndarray, flips: tuple[slice, ...], permutation=(0, 1, 2)) -> np.ndarray:
    """A head with one bright spot at its right, front and top, drawn from another orientation; an RGB array."""
    head = np.zeros((SIDE,) * 3, np.float32)
    head[2:-2, 2:-2, 2:-2] = 100
    spot = np.zeros(head.shape, bool)
    spot[5:13, 5:13, -13:-5] = True  # LPS grows to the left, back and top
    head[spot] = 1000
    turned = [array[flips].transpose(permutation) for array in (head, spot)]
    nothing = {region: np.zeros_like(turned[1]) for region in ("TC", "ET")}
    masks = {"WT": turned[1], **nothing}
    jpeg = overlay_figure({"t1c": turned[0]}, masks, None, affine=affine)
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), float)


def test_the_patients_right_front_and_top_hang_where_a_radiologist_looks_for_them():
    image = picture(LPS, (FORWARD,) * 3)
    height = image.shape[0] * 0.9  # above the legend
    third = image.shape[1] / 3
    for plane in range(3):
        part = image[: int(height), int(plane * third) : int((plane + 1) * third)]
        bright = np.argwhere(part > 230)
        down, across = np.median(bright, axis=0) / part.shape
        # Axial: right is left, front is up. Coronal: right is left, top is up. Sagittal: front is left, top is up.
        assert down < 0.4, plane
        assert across < 0.4, plane


FORWARD, BACKWARD = slice(None), slice(None, None, -1)
RAS = np.diag([1.0, 1.0, 1.0, 1.0])
SPR = np.array([[0, 0, 1.0, 0], [0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])  # first axis up, last to the right


@pytest.mark.parametrize(
    ("affine", "flips", "permutation"),
    [(RAS, (BACKWARD, BACKWARD, FORWARD), (0, 1, 2)), (SPR, (BACKWARD, FORWARD, FORWARD), (2, 1, 0))],
)
def test_every_orientation_of_the_file_gives_the_same_picture(affine, flips, permutation):
    assert np.array_equal(picture(affine, flips, permutation), picture(LPS, (FORWARD,) * 3))


def test_thick_slices_are_shown_in_true_proportion():
    head = np.zeros((40, 40, 10), np.float32)
    head[3:-3, 3:-3, 1:-1] = 100
    empty = {"WT": np.zeros(head.shape, bool)}
    jpeg = overlay_figure({"flair": head}, empty, empty, affine=np.diag([-1.0, -1.0, 4.0, 1.0]))
    image = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), float)
    third = image.shape[1] // 3
    coronal = image[: int(image.shape[0] * 0.9), third : 2 * third] > 60
    # Rows and columns that are bright over a good part of their length: those of the head, not of a letter.
    down, across = ((coronal.mean(axis=axis) > 0.3).sum() for axis in (1, 0))
    assert down / across == pytest.approx(8 * 4 / 34, rel=0.06)


def test_the_key_of_six_regions_fits_below_the_picture():
    box = np.zeros((20, 20, 20), bool)
    box[8:12, 8:12, 8:12] = True
    masks = dict.fromkeys(("WT", "TC", "ET", "NETC", "SNFH", "RC"), box)
    jpeg = overlay_figure({"flair": box.astype(np.float32)}, masks, masks, affine=LPS)
    key = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))[-38:]
    assert key.max() > 200
    assert max(key[:, :8].max(), key[:, -8:].max()) < 60


def test_no_image_gives_no_picture():
    with pytest.raises(ValueError, match="at least one image"):
        overlay_figure({}, {"WT": np.zeros((3, 3, 3), bool)}, None, affine=LPS)


def test_few_cases_are_told_the_smallest_difference_that_they_could_show(tmp_path):
    scores = [row for number in range(5) for row in rows(f"case-{number}", 0.5 + number / 20)]
    html = written(tmp_path, scores=scores, regions=summarise(scores, ("WT", "TC", "ET")), pages=[])
    half = stats.t.ppf(0.975, 4) * np.std([0.5, 0.55, 0.6, 0.65, 0.7], ddof=1) / 5**0.5
    assert f"could show is WT {half:.3f}, TC {half:.3f}, ET {half:.3f}" in html
    assert f"WT {half:.3f}" in (tmp_path / "report.md").read_text()


def test_time_points_are_drawn_by_patient_and_the_table_says_so(tmp_path):
    dice = [0.9, 0.9, 0.9, 0.2, 0.2, 0.2, 0.6, 0.7]
    scores = [row for number, value in enumerate(dice) for row in rows(f"case-{number}", value)]
    patients = {f"case-{number}": f"patient-{number // 3}" for number in range(len(dice))}
    html = written(tmp_path, scores=scores, pages=[], patients=patients)
    low, high = bootstrap_interval(dice, patients=list(patients.values()))
    assert f"[{low:.3f}, {high:.3f}]" in html
    for text in (html, (tmp_path / "report.md").read_text()):
        assert "bootstrap over patients (3 patients with 8 time points, drawn together)" in text
        assert "n = 3: with fewer than 6 patients no test can decide" in text
    assert "bootstrap over cases, 10,000 resamples" in written(tmp_path, scores=scores, pages=[])


def test_a_large_cohort_shows_the_notable_cases_and_the_worst_of_the_others_within_the_size(tmp_path, monkeypatch):
    monkeypatch.setattr("brats_pipeline.report.page.LARGEST_BYTES", 2_000_000)
    names = [f"case-{number:02}" for number in range(40)]
    scores = [row for number, name in enumerate(names) for row in rows(name, 0.1 + number / 50)]
    pages = [CasePage(name, bytes(75_000)) for name in names]
    html = written(tmp_path, scores=scores, pages=pages)
    assert 1_500_000 < len(html.encode()) <= 2_000_000
    shown = [name for name in names if f'id="{name}"' in html]
    assert {"case-00", "case-19", "case-39"} < set(shown)
    others = [name for name in shown if name not in ("case-19", "case-39")]
    assert others == names[: len(others)]
    assert f"The other {40 - len(shown)} cases are left without, so that this file stays below 2 MB" in html
    assert all(name in html for name in names)


def test_what_fits_is_shown_in_order_and_nothing_slips_in_for_being_small():
    sizes = {"a": 30_000, "b": 90_000, "c": 30_000, "d": 3_000, "e": 90_000}
    pages = [CasePage(name, bytes(size)) for name, size in sizes.items()]
    room = sum(page.size for page in (pages[0], pages[2], pages[4])) + pages[3].size
    assert [page.case_id for page in within_budget(pages, {"e"}, room=room)] == ["a", "e"]
    assert within_budget(pages, {"e"}, room=10**6) == pages
    assert [page.case_id for page in within_budget(pages, {"e"}, room=0)] == ["e"]


def test_parts_of_the_cohort_stand_in_the_page_and_in_markdown(tmp_path):
    scores = [row for number in range(6) for row in rows(f"case-{number}", 0.5 + number / 20)]
    scores = [replace(row, tp=0, fn=0) if (row.case_id, row.region) == ("case-1", "ET") else row for row in scores]
    parts = part_rows(scores, ("WT", "TC", "ET"), lacking={"case-2": {"t2"}}, resamples=50)
    html = written(tmp_path, scores=scores, pages=[], parts=parts)
    for text in (html, (tmp_path / "report.md").read_text()):
        assert "no ET in the reference" in text
        assert "a sequence is missing" in text


def test_six_regions_stand_three_beside_each_other_and_say_what_they_are(tmp_path):
    rules = RULES["brats2024-gli"]
    scores = [replace(row, region=region) for row in rows("case-a", 0.9)[:1] for region in rules.regions]
    html = written(tmp_path, rules=rules, scores=scores, regions=summarise(scores, rules.regions), pages=[])
    assert html.count('<table class="every">') == 2
    assert "RC resection cavity" in html


def test_every_region_of_every_rule_is_told_in_words():
    assert {region for rules in RULES.values() for region in rules.regions} <= set(MEANINGS)
