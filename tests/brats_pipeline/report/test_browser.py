"""The report in a real browser: nothing goes wrong, nothing is fetched, the slices move, the layers switch."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats_pipeline.metrics import RULES, RegionScore, summarise
from brats_pipeline.report import CasePage, case_volume, write_report
from brats_pipeline.report.prediction import prediction_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_S = 120

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
needs_viewer = pytest.mark.skipif(
    importlib.util.find_spec("ipyniivue") is None, reason="ipyniivue is not installed (extra viewer)"
)


class Browser:
    """Chromium without a window, driven through two pipes by the DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        self._process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", CHROMIUM),
                *("--headless", "--no-sandbox", "--no-first-run", "--remote-debugging-pipe"),
                *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
                *(f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._session: str | None = None
        self._unread = b""
        self._asked = 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE_S)
            assert ready, "Chromium does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium ended"
            self._unread += part
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._asked += 1
        command = {"id": self._asked, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (message := self._message()).get("id") != self._asked:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def run(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.run(script):
            assert time.monotonic() < end, script
            time.sleep(0.1)

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def picture(self, selector: str) -> np.ndarray:
        """What is seen of an element, as RGB."""
        import io

        from PIL import Image

        box = self.run(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)});"
            " element.scrollIntoView({ block: 'center' }); const box = element.getBoundingClientRect();"
            " return [box.x + scrollX, box.y + scrollY, box.width, box.height]; })()"
        )
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=clip)["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)

    def complaints(self) -> list[str]:
        """Warnings and errors on the console, uncaught exceptions, and what was asked of any network."""
        found = []
        for event in self.events:
            method, about = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(about["exceptionDetails"])[:500])
            elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
                found.append(json.dumps(about["args"])[:500])
            elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                found.append(about["entry"]["text"])
            elif method == "Network.requestWillBeSent":
                address = about["request"]["url"]
                if not address.startswith(("data:", "blob:")) and about.get("type") != "Document":
                    found.append(f"fetched {address[:200]}")
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._commands)
        os.close(self._answers)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Browser(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


SIDE = 48
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume(predicted: bool = True):
    """A grey ball with a box of reference at its right front, and a box of prediction at its left back."""
    x, y, z = np.indices((SIDE,) * 3) - SIDE / 2 + 0.5
    head = (x**2 + y**2 + z**2 < 22**2) * np.float32(90) + (z > 0) * (x**2 + y**2 + z**2 < 22**2) * np.float32(60)
    reference, prediction = np.zeros((2, SIDE, SIDE, SIDE), bool)
    reference[8:20, 8:20, 20:32] = True
    prediction[28:40, 28:40, 16:32] = True
    sides = [{"WT": mask, "TC": np.zeros_like(mask), "ET": np.zeros_like(mask)} for mask in (reference, prediction)]
    return case_volume({"flair": head}, sides[0], sides[1] if predicted else None, affine=LPS, mm=1.0)


def report(folder: Path, *, cases: int = 4) -> Path:
    """A report of phantoms; the last case has no prediction."""
    names = [f"case-{number}" for number in range(cases)]
    scores = [
        RegionScore(name, region, dice, dice, dice, dice, 1.0, 2.5, 10.0, 9.0, 9, 1, 1, 90)
        for name, dice in zip(names, np.linspace(0.9, 0.3, cases), strict=True)
        for region in ("WT", "TC", "ET")
    ]
    from PIL import Image

    Image.new("RGB", (80, 40)).save(folder / "overlay.jpg")
    overlay = (folder / "overlay.jpg").read_bytes()
    write_report(
        folder / "report.html",
        rules=RULES["brats2023-gli"],
        scores=scores,
        regions=summarise(scores, ("WT", "TC", "ET")),
        conventions={"brats2017": "brats2017"},
        missing=names[-1:],
        failed={},
        unmatched=[],
        pages=[CasePage(name, overlay, volume=volume(predicted=name != names[-1])) for name in names],
        images=True,
        versions={},
    )
    return folder / "report.html"


def opened(browser: Browser, path: Path, case: int = 1) -> str:
    """Open one case, counted from the worst, which has no prediction.

    Returns:
        The selector of its canvas, once it shows the case.
    """
    browser.open(path)
    assert not browser.run("document.querySelectorAll('canvas').length")  # nothing is unpacked before it is wanted
    browser.run(f"document.querySelectorAll('.viewer')[{case}].closest('details').open = true")
    browser.wait("document.querySelector('.viewer[data-ready]') !== null")
    return ".viewer[data-ready] canvas"


def push(browser: Browser, selector: str, **values: Any) -> None:
    """Set a control as a hand would."""
    browser.run(
        f"(() => {{ const control = document.querySelector({json.dumps('.viewer[data-ready] ' + selector)});"
        f" Object.assign(control, {json.dumps(values)});"
        " control.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def coloured(picture: np.ndarray) -> int:
    """Pixels in the blue of the predicted whole tumour, on grey."""
    return int((picture[..., 2] - picture[..., 0] > 30).sum())


def white(picture: np.ndarray) -> int:
    return int((picture.min(axis=2) > 240).sum())


@needs_viewer
def test_the_layers_switch_and_the_slices_move(browser, tmp_path):
    browser.events.clear()
    canvas = opened(browser, report(tmp_path))
    push(browser, "[data-axis='2']", value=26)
    full = browser.picture(canvas)
    push(browser, "[name=reference]", checked=False)
    without_reference = browser.picture(canvas)
    assert white(full) > white(without_reference) + 50
    push(browser, "[data-axis='0']", value=9)  # where the prediction is; the axes grow to the right and the front
    push(browser, "[data-axis='1']", value=9)
    with_prediction = browser.picture(canvas)
    push(browser, "[name=prediction]", checked=False)
    plain = browser.picture(canvas)
    assert coloured(with_prediction) > 300
    assert coloured(plain) == 0
    push(browser, "[name=image]", checked=False)
    assert browser.picture(canvas).mean() < 0.3 * plain.mean()
    push(browser, "[name=image]", checked=True)
    assert np.array_equal(browser.picture(canvas), plain)

    push(browser, "[data-axis='2']", value=5)
    moved = browser.picture(canvas)
    assert np.abs(moved - plain).mean() > 1
    assert browser.run("document.querySelector('.viewer[data-ready] output').textContent").startswith("6 of ")
    assert browser.complaints() == []


@pytest.mark.slow
@needs_viewer
def test_the_patients_right_is_on_the_left_and_the_front_is_up(browser, tmp_path):
    canvas = opened(browser, report(tmp_path))
    push(browser, "[name=image]", checked=False)
    push(browser, "[name=prediction]", checked=False)
    push(browser, "[data-axis='2']", value=26)
    with_reference = browser.picture(canvas)
    push(browser, "[name=reference]", checked=False)
    outline = np.abs(with_reference - browser.picture(canvas)).max(axis=2) > 100
    axial = outline[:, : outline.shape[1] // 3]
    assert axial.any()
    down, across = np.median(np.argwhere(axial), axis=0) / axial.shape
    assert down < 0.5
    assert across < 0.5


@pytest.mark.slow
@needs_viewer
def test_one_case_is_open_at_a_time_and_a_link_opens_its_case(browser, tmp_path):
    path = report(tmp_path)
    opened(browser, path)
    browser.run("document.querySelectorAll('.viewer')[1].closest('details').open = true")
    browser.wait("document.querySelectorAll('.viewer')[1].dataset.ready === 'true'")
    assert browser.run("[...document.querySelectorAll('.viewer[data-ready]')].length") == 1
    assert browser.run("document.querySelectorAll('canvas').length") == 1
    other = browser.run("[...document.querySelectorAll('details[id]')].map((each) => each.id)")
    assert other == ["case-2"] or other == ["case-1"]  # three of four stand open as worst, median and best
    browser.run(f"location.hash = '#{other[0]}'")
    browser.wait(f"document.querySelector('#{other[0]} .viewer').dataset.ready === 'true'")
    assert browser.complaints() == []


@pytest.mark.slow
@needs_viewer
def test_a_case_without_a_prediction_can_be_scrolled_too(browser, tmp_path):
    browser.events.clear()
    path = report(tmp_path)
    browser.open(path)
    browser.run(
        "[...document.querySelectorAll('.viewer')].find((each) => !each.querySelector('[name=prediction]'))"
        ".closest('details').open = true"
    )
    browser.wait("document.querySelector('.viewer[data-ready]') !== null")
    assert coloured(browser.picture(".viewer[data-ready] canvas")) == 0
    assert browser.complaints() == []


@pytest.mark.slow
def test_without_the_viewer_the_pictures_remain_and_the_extra_is_named(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("brats_pipeline.report.viewer._PACKAGE", "no_such_package")
    browser.events.clear()
    browser.open(report(tmp_path))
    assert browser.run("document.querySelectorAll('.viewer, script').length") == 0
    assert "brats-pipeline[viewer]" in browser.run("document.body.textContent")
    assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert browser.complaints() == []


@pytest.mark.slow
def test_the_page_fits_wide_and_narrow_windows(browser, tmp_path):
    browser.open(report(tmp_path))
    for width in (360, 800, 1400):
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        assert browser.run("document.documentElement.scrollWidth") <= width
    browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.slow
def test_the_printed_report_holds_its_pictures(browser, tmp_path):
    browser.open(report(tmp_path))
    pdf = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Subtype /Image") + pdf.count(b"/Subtype/Image") >= 1


@needs_viewer
def test_another_modality_is_shown_at_the_same_place(browser, tmp_path):
    browser.events.clear()
    block = np.zeros((SIDE,) * 3, bool)
    block[20:30, 20:30, 20:30] = True
    half, whole = np.zeros((2, SIDE, SIDE, SIDE), np.float32)
    half[8:40, 8:40, 8:40], half[24:40, 8:40, 8:40] = 10, 100
    whole[8:40, 8:40, 8:40] = 100
    page = prediction_page(
        {"t1c": half, "flair": whole},
        {"WT": block},
        affine=LPS,
        case_id="a",
        bundle="brats_glioma_3d",
        table=[["Region", "ml"], ["WT", "1.0"]],
        versions={},
    )
    (tmp_path / "page.html").write_text(page)
    browser.open(tmp_path / "page.html")
    browser.run("document.querySelector('.viewer').closest('details').open = true")
    browser.wait("document.querySelector('.viewer[data-ready]') !== null")
    canvas = ".viewer[data-ready] canvas"
    push(browser, "[name=prediction]", checked=False)
    push(browser, "[data-axis='2']", value=12)
    first = browser.picture(canvas)
    where = browser.run("[...document.querySelectorAll('.viewer output')].map((each) => each.textContent)")
    push(browser, "[value$=flair]", checked=True)
    browser.wait("document.querySelector('.viewer[data-ready]') !== null")
    second = browser.picture(canvas)
    assert second.mean() > 1.2 * first.mean()
    assert coloured(second) == 0  # what was switched off stays off
    assert browser.run("[...document.querySelectorAll('.viewer output')].map((each) => each.textContent)") == where
    push(browser, "[value$=t1c]", checked=True)
    browser.wait("document.querySelector('.viewer[data-ready]') !== null")
    assert np.abs(browser.picture(canvas) - first).mean() < 1
    assert browser.complaints() == []
