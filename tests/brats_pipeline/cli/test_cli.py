"""The command line: help, exit codes, JSON, silence where nobody watches, and errors in words."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brats_pipeline.cli.options import overrides_of

Command = Callable[..., Any]
COMMANDS = (
    "inspect",
    "split",
    "phantom",
    "train",
    "segment",
    "evaluate",
    "demo",
    "bundle list",
    "bundle info",
    "bundle path",
)


@pytest.mark.parametrize("name", ["", "bundle", *COMMANDS])
def test_every_command_has_help(name: str, command: Command) -> None:
    outcome = command(*name.split(), "--help")
    assert outcome.code == 0
    assert "Usage: " in outcome.out
    assert outcome.err == ""


def test_the_help_names_every_command_and_says_what_this_is_not(command: Command) -> None:
    text = command("--help").out
    assert all(name.split()[0] in text for name in COMMANDS)
    assert "not a medical device" in text


def test_without_a_command_the_help_is_shown(command: Command) -> None:
    outcome = command()
    assert outcome.code in (0, 2)
    assert "Usage: " in outcome.out + outcome.err


def test_help_imports_nothing_heavy_and_answers_at_once(python: Callable[..., Any], tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "start = time.perf_counter()\n"
        "from brats_pipeline.cli import run\n"
        "code = run(['segment', '--help'])\n"
        "seconds = time.process_time()\n"
        "heavy = {'torch', 'monai', 'ignite', 'numpy', 'nibabel', 'pandas', 'scipy', 'matplotlib', 'rich.markdown'}\n"
        "print('RESULT', code, seconds, sorted(heavy & set(sys.modules)))\n"
    )
    result = python(["-c", script], cwd=tmp_path)
    _, code, seconds, heavy = result.stdout.splitlines()[-1].split(maxsplit=3)
    assert (code, heavy) == ("0", "[]")
    assert float(seconds) < 1  # processor time, several times what is needed on an idle machine


def test_the_module_runs_as_the_command_does(python: Callable[..., Any], tmp_path: Path) -> None:
    result = python(["-m", "brats_pipeline", "bundle", "path", "brats_glioma_3d"], cwd=tmp_path)
    assert result.returncode == 0
    assert (Path(result.stdout.strip()) / "configs" / "metadata.json").is_file()
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspekt",), "inspekt"),
        (("inspect", "--colour", "red"), "--colour"),
        (("inspect",), "'data'"),
        (("split", "data", "-o", "x.json", "--folds", "one"), "integer"),
        (("split", "data", "-o", "x.json", "--folds", "1"), "'--folds'"),
        (("train", "brats_glioma_3d", "--data", "data"), "--out"),
        (("train", "brats_glioma_3d", "--data", "data", "-o", "run", "--fold", "first"), "first"),
        (("train", "brats_glioma_3d", "--data", "data", "-o", "run", "--set", "max_epochs"), "--set max_epochs=20"),
        (("train", "brats_glioma_3d", "--data", "data", "-o", "run", "--set", "max_epochs=[1"), "max_epochs"),
        (("segment", "-o", "out"), "--t1c"),
        (("segment", "data", "--t1c", "a.nii", "-o", "out"), "either"),
    ],
)
def test_a_request_that_makes_no_sense_exits_with_two(
    arguments: tuple[str, ...], words: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command(*arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert "not foreseen" not in outcome.err
    assert outcome.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("phantom", "{tmp}/out", "--layout", "brats1999"), "brats2021"),
        (("phantom", "{tmp}/out", "--orientation", "XYZ"), "LPS"),
        (("evaluate", "{predictions}", "{cohort}", "-o", "{tmp}/out", "--rules", "mine"), "brats2023-gli"),
        (("evaluate", "{predictions}", "{cohort}", "-o", "{tmp}/out", "--convention", "mine"), "brats2023"),
        (("segment", "{cohort}", "--bundle", "{run}", "-o", "{tmp}/out", "--convention", "mine"), "brats2023"),
        (("inspect", "{cohort}", "--convention", "mine"), "brats2023"),
        (("split", "{cohort}", "--folds", "7", "-o", "{tmp}/x.json"), "at most 6 folds"),
        (("train", "brats_glioma_3d", "--data", "{cohort}", "-o", "{tmp}/out", "--fold", "7"), "folds: 0, 1, 2"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(
    arguments: tuple[str, ...], words: str, command: Command, cohort: Path, predictions: Path, run: Path, tmp_path: Path
) -> None:
    given = [argument.format(tmp=tmp_path, cohort=cohort, predictions=predictions, run=run) for argument in arguments]
    outcome = command(*given)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert "not foreseen" not in outcome.err
    assert not list(tmp_path.iterdir())


def test_debug_shows_where_an_error_came_from(tmp_path: Path, command: Command) -> None:
    plain, debug = command("inspect", tmp_path), command("--debug", "inspect", tmp_path)
    assert plain.code == debug.code == 2
    assert "Traceback" not in plain.err
    assert debug.err.startswith("Traceback")
    assert "find_cases" in debug.err
    assert debug.err.endswith(plain.err)


def test_an_error_that_nobody_foresaw_names_its_root_and_how_to_see_more(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*arguments: object) -> None:
        try:
            raise ZeroDivisionError("the innermost reason")
        except ZeroDivisionError as error:
            raise RuntimeError("a layer") from error

    monkeypatch.setattr("brats_pipeline.cases.find_cases", fail)
    outcome = command("inspect", tmp_path)
    assert outcome.code == 2
    assert "the innermost reason (ZeroDivisionError)" in outcome.err
    assert "--debug" in outcome.err


def test_ctrl_c_exits_with_130(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brats_pipeline.cases.find_cases", interrupt)
    outcome = command("inspect", tmp_path)
    assert outcome.code == 130
    assert outcome.err.startswith("interrupted")


def test_inspect_prints_a_table_and_a_fingerprint_for_machines(command: Command, cohort: Path, tmp_path: Path) -> None:
    table = command("inspect", cohort, "-o", tmp_path / "fingerprint.json")
    assert table.code == 0
    assert table.err == ""
    assert all(f"BraTS2021_0000{number}" in table.out for number in range(1, 7))
    assert "44x48x40" in table.out
    machine = command("inspect", cohort, "--json")
    assert machine.err == ""
    assert json.loads(machine.out) == json.loads((tmp_path / "fingerprint.json").read_text())
    assert json.loads(machine.out)["cohort"]["cases"] == 6


def test_split_writes_the_folds_it_reports(command: Command, cohort: Path, tmp_path: Path) -> None:
    outcome = command("split", cohort, "-o", tmp_path / "datalist.json", "--folds", 3, "--seed", 1)
    assert outcome.code == 0
    assert "6 cases in 3 folds of 2, 2, 2" in outcome.out
    folds = [item["fold"] for item in json.loads((tmp_path / "datalist.json").read_text())["training"]]
    assert sorted(folds) == [0, 0, 1, 1, 2, 2]


def test_phantom_writes_what_inspect_reads(command: Command, tmp_path: Path) -> None:
    arguments = ("--cases", 2, "--layout", "brats2023", "--size", 36, "--spacing", 5, "--orientation", "RAS")
    assert command("phantom", tmp_path / "out", *arguments).code == 0
    cohort = json.loads(command("inspect", tmp_path / "out", "--json").out)["cohort"]
    assert cohort["layouts"] == {"brats2023": 2}
    assert cohort["orientations"] == {"RAS": 2}


def test_segment_reports_to_machines(command: Command, cohort: Path, run: Path, tmp_path: Path) -> None:
    case = cohort / "BraTS2021_00001"
    arguments = ("segment", case, "-o", tmp_path / "out", "--bundle", run, "--device", "cpu", "--json")
    first, second = command(*arguments), command(*arguments)
    assert (first.code, second.code) == (0, 0)
    assert first.err == second.err == ""
    assert json.loads(first.out) == {
        "out": str(tmp_path / "out"),
        "done": [case.name],
        "skipped": [],
        "failed": {},
        "notes": {},
        "missing": {},
        "unlike": {},
        "without": {},
    }
    assert json.loads(second.out)["skipped"] == [case.name]


def test_evaluate_prints_its_summary_for_machines(
    command: Command, cohort: Path, predictions: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", predictions, cohort, "-o", tmp_path / "out", "--no-images", "--workers", 1)
    machine = command(*arguments, "--json")
    assert machine.code == 0
    assert json.loads(machine.out) == json.loads((tmp_path / "out" / "summary.json").read_text())
    person = command(*arguments)
    assert all(region in person.out for region in ("WT", "TC", "ET"))
    assert str(tmp_path / "out" / "report.html") in person.out


def test_a_case_without_a_prediction_is_named_and_exits_with_one(
    command: Command, cohort: Path, predictions: Path, tmp_path: Path
) -> None:
    import shutil

    some = shutil.copytree(predictions, tmp_path / "some")
    (some / "BraTS2021_00003.nii.gz").unlink()
    outcome = command("evaluate", some, cohort, "-o", tmp_path / "out", "--no-images", "--workers", 1)
    assert outcome.code == 1
    assert outcome.err == "BraTS2021_00003: has no prediction and counts as a miss\n"


def test_bundle_commands_agree(command: Command) -> None:
    entries = {entry["bundle"]: entry for entry in json.loads(command("bundle", "list", "--json").out)}
    entry = entries["brats_glioma_3d"]
    assert entry["path"] == command("bundle", "path", "brats_glioma_3d").out.strip()
    assert json.loads(command("bundle", "info", "brats_glioma_3d").out)["version"] == entry["version"]
    assert "brats_glioma_3d" in command("bundle", "list").out


def test_training_says_how_it_went_and_draws_no_bar_into_a_pipe(
    command: Command, make_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    settings = {"spacing": "[4,4,4]", "patch_size": "[16,16,16]", "network_def::depth": 1, "max_epochs": 1}
    settings |= {"patches_per_epoch": 2, "network_def::features": 8}
    arguments = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    two = make_cohort(cases=2)
    outcome = command(
        "train",
        "brats_glioma_3d",
        "--data",
        two,
        "-o",
        tmp_path / "run",
        "--fold",
        "all",
        "--device",
        "cpu",
        *arguments,
    )
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith("1 epochs, not validated, ")


def test_progress_is_drawn_for_a_person_and_not_when_quiet(make_cohort: Callable[..., Path], tmp_path: Path) -> None:
    import os
    import pty

    def on_terminal(*arguments: object) -> str:
        leader, follower = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "brats_pipeline", *map(str, arguments)],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=follower,
            env={**os.environ, "TERM": "xterm"},
        ) as process:
            os.close(follower)
            text = b""
            start = time.monotonic()
            while time.monotonic() - start < 60:
                try:
                    chunk = os.read(leader, 4096)
                except OSError:
                    break
                if not chunk:
                    break
                text += chunk
            assert process.wait(timeout=60) == 0
        os.close(leader)
        return text.decode()

    two = make_cohort(cases=2)
    assert "2/2" in on_terminal("inspect", two)
    assert on_terminal("inspect", two, "--quiet") == ""


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "0.1e-2", ".001", "1.0e-3", "10e-4"])
def test_a_number_is_a_number_however_it_is_written(text: str) -> None:
    assert overrides_of([f"a={text}", f"b=[{text}, -{text.lstrip('+')}]", f"c={{d: {text}}}"]) == {
        "a": 0.001,
        "b": [0.001, -0.001],
        "c": {"d": 0.001},
    }


@pytest.mark.parametrize("text", ["e-3", "1e", "1e-3x", "'1e-3'", "1e-3.pt", "x1e-3"])
def test_what_is_no_number_stays_a_text(text: str) -> None:
    assert overrides_of([f"a={text}"]) == {"a": text.strip("'")}
