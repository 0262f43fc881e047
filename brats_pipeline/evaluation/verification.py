"""Make the figures of a report again from its predictions and name every difference."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import evaluate
from brats_pipeline.evaluation.manifest import NAME, read_manifest, versions
from brats_pipeline.files import file_sha256
from brats_pipeline.report.stated import stated

TABLES = {"cases.csv": 2, "lesions.csv": 4, "slices.csv": 2, "calibration.csv": 2}
"""Table to the number of its first columns that name a row."""
PAGES = ("report.md", "report.html")
SIDES = {"predictions": "prediction", "references": "reference", "probabilities": "file of probabilities"}


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_report` found.

    Args:
        out: folder of the report.
        files: files that are not what the manifest says, each with what became of it.
        figures: figures that differ from those made again, one sentence each.
        versions: software that is of another version now; may explain differences, is none itself.
    """

    out: Path
    files: tuple[str, ...]
    figures: tuple[str, ...]
    versions: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the report is what its predictions give."""
        return not self.files and not self.figures


def verify_report(out: str | Path, *, workers: int = 1, on_case: Callable[[str], None] | None = None) -> Verification:
    """Compare every file with the manifest's hash, then score the predictions again and compare every figure.

    Args:
        out: folder that :func:`brats_pipeline.evaluate` wrote; predictions and references lie where they lay then,
            seen from there.
        workers: processes that score.
        on_case: called with the id of each case that was scored again.

    Raises:
        PipelineError: there is no manifest, or the predictions cannot be scored any more.
    """
    out = Path(out)
    manifest = read_manifest(out)
    files = [
        f"{case_id}: {what} {name} {change}"
        for side, what in SIDES.items()
        for case_id, told in manifest.get(side, {}).items()
        for name, change in _changed(out, told)
    ]
    files += [f"table of patients {name} {change}" for name, change in _changed(out, manifest.get("patients", {}))]
    files += [f"{name} {change}" for name, change in _changed(out, manifest["outputs"])]
    call = manifest["call"]
    with tempfile.TemporaryDirectory(prefix="brats-pipeline-") as folder:
        again = Path(folder)
        try:
            evaluate(
                out / call["predictions"],
                [out / path for path in call["references"]],
                again,
                rules=call["rules"],
                convention=call["convention"],
                prediction_convention=call["prediction_convention"],
                only=call["only"],
                probabilities=_where(out, call.get("probabilities", False)),
                patients=None if call.get("patients") is None else out / call["patients"],
                workers=workers,
                images=False,
                on_case=on_case,
            )
        except PipelineError as error:
            raise PipelineError(f"{out}: the figures cannot be made again: {error}") from error
        figures = [each for name in TABLES for each in _table_differences(name, out / name, again / name)]
        figures += summary_differences(out / "summary.json", again / "summary.json")
        figures += [each for name in PAGES for each in page_differences(out / name, again / name)]
        files += unlisted(manifest, read_manifest(again)["outputs"])
    now = versions()
    other = [
        f"{name} was {version}, now it is {now.get(name, 'not installed')}"
        for name, version in manifest["versions"].items()
        if now.get(name) != version
    ]
    return Verification(out, tuple(files), tuple(figures), tuple(other))


def _where(out: Path, probabilities: str | Literal[False]) -> Path | Literal[False]:
    """The folder of the probabilities, if there was one."""
    return out / probabilities if probabilities else False


def _changed(out: Path, told: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and fate of each file whose content is not that of its hash."""
    for name, sha256 in told.items():
        path = out / name
        if not path.is_file():
            if sha256 != "absent":
                yield name, "is gone"
        elif file_sha256(path) != sha256:
            yield name, f"was changed after {NAME} was written"


def unlisted(manifest: Mapping[str, Any], wanted: Iterable[str]) -> list[str]:
    """Files of a report whose hash the manifest should hold and does not, a sentence each."""
    return [f"{name} is not listed in {NAME}" for name in wanted if name not in manifest["outputs"]]


def _rows(path: Path, keys: int) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """Rows of a table by their first columns."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    if not path.is_file():
        return found
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8", errors="replace")))
    columns = list(reader.fieldnames or [])[:keys]
    for row in reader:
        found.setdefault(tuple(str(row[column]) for column in columns), []).append(row)
    return found


def _table_differences(name: str, stated: Path, again: Path) -> Iterator[str]:
    keys = TABLES[name]
    said, found = _rows(stated, keys), _rows(again, keys)
    for key in sorted(said.keys() | found.keys()):
        where = f"{name}, {' '.join(key)}"
        if key not in found:
            yield f"{where}: the predictions give no such row"
        elif key not in said:
            yield f"{where}: the row is missing"
        elif len(said[key]) != len(found[key]):
            yield f"{where}: the row stands {len(said[key])} times, the predictions give it {len(found[key])} times"
        else:
            for row, other in zip(said[key], found[key], strict=True):
                for column in [*other, *(set(row) - set(other))]:
                    if row.get(column) != other.get(column):
                        yield (
                            f"{where}: {column} is {row.get(column) or 'empty'}, the predictions give "
                            f"{other.get(column) or 'none'}"
                        )


def page_differences(page: Path, again: Path) -> Iterator[str]:
    """What a page states otherwise than the one made again, a sentence for each line or cell of a table."""
    said, found = stated(page), stated(again)
    if len(said) != len(found):
        yield f"{page.name}: has {len(said)} lines or cells of tables, made again it has {len(found)}"
        return
    for one, other in zip(said, found, strict=True):
        if one != other:
            yield f"{page.name}: says “{one}”, made again it says “{other}”"


def summary_differences(stated_file: Path, again: Path) -> Iterator[str]:
    """What a ``summary.json`` states otherwise than the one made again, versions aside, a sentence each."""
    try:
        said = _flat(json.loads(stated_file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        yield f"summary.json cannot be read ({error})"
        return
    found = _flat(json.loads(again.read_text(encoding="utf-8")))
    for key in sorted(said.keys() | found.keys()):
        if not key.startswith("versions.") and said.get(key) != found.get(key):
            yield f"summary.json, {key} is {said.get(key, 'missing')}, the predictions give {found.get(key, 'none')}"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": [1]}}`` to ``{"a.b.0": 1}``."""
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = ((str(number), each) for number, each in enumerate(value))  # type: ignore[assignment]
    else:
        return {prefix: value}
    return {
        key: leaf
        for name, each in pairs
        for key, leaf in _flat(each, f"{prefix}.{name}" if prefix else str(name)).items()
    }
