"""Which case belongs to which patient, told by a table instead of by the names."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from brats_pipeline.cases.case import Case
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically

COLUMNS = ("case_id", "patient_id")


def read_patients(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a CSV file with the columns ``case_id`` and ``patient_id``; other columns are left alone.

    Returns:
        Case id to patient id.

    Raises:
        PipelineError: the file cannot be read, a column or a value is missing, or a case occurs twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror or error}); give a CSV file") from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: is no text in UTF-8 ({error.reason}); save it as CSV in UTF-8") from error
    try:
        rows = csv.reader(text.splitlines(), strict=True)
        header = [name.strip() for name in next(rows, [])]
        if missing := [name for name in COLUMNS if header.count(name) != 1]:
            raise PipelineError(
                f"{path}: the first line must name the columns {' and '.join(COLUMNS)}, once each and separated by a "
                f"comma; {' and '.join(missing)} is not there once: {','.join(header)[:80]!r}"
            )
        places = [header.index(name) for name in COLUMNS]
        patients: dict[str, str] = {}
        for row in rows:
            if not any(value.strip() for value in row):
                continue
            values = [row[place].strip() if place < len(row) else "" for place in places]
            if not all(values) or len(row) > len(header):
                raise PipelineError(
                    f"{path}: line {rows.line_num} is {','.join(row)[:80]!r}; a case and its patient needed"
                )
            if values[0] in patients:
                raise PipelineError(
                    f"{path}: {values[0]} occurs twice, again in line {rows.line_num}; keep one of them"
                )
            patients[values[0]] = values[1]
    except csv.Error as error:
        raise PipelineError(f"{path}: is no CSV file ({error}); check line {rows.line_num}") from error
    if not patients:
        raise PipelineError(f"{path}: lists no case; write one line for each case below the names of the columns")
    return patients


def write_patients(patients: Mapping[str, str], path: Path) -> None:
    """Write what :func:`read_patients` reads.

    Args:
        patients: case id to patient id.
        path: the CSV file.

    Raises:
        PipelineError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *patients.items()])
    write_atomically(path, text.getvalue())


def with_patients(cases: Sequence[Case], mapping: Mapping[str, str]) -> list[Case]:
    """The same cases with the patients that a table names; those it does not list keep their own.

    Args:
        cases: a cohort.
        mapping: case id to patient id, from :func:`read_patients`.

    Raises:
        PipelineError: the table lists a case that is not in the cohort.
    """
    known = {case.case_id for case in cases}
    if unknown := sorted(set(mapping) - known):
        some = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        raise PipelineError(
            f"the table of patients lists {some}, and no such case is there (the first case is called "
            f"{min(known, default='-')}); correct the case ids or drop the lines"
        )
    return [replace(case, patient_id=mapping.get(case.case_id, case.patient_id)) for case in cases]
