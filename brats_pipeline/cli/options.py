"""Options that mean the same in every command, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brats_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from brats_pipeline.cases import Case

Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; by default the first GPU, else the CPU.")]
Workers = Annotated[int, typer.Option(min=1, help="Cases handled at a time.")]
Seed = Annotated[int, typer.Option(min=0, help="Every random choice follows from it.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="ID=VALUE", help="Change the configuration.")]
Patients = Annotated[
    Path | None, typer.Option("--patients", help="CSV of case_id,patient_id, where names do not tell the patient.")
]
ConventionName = Annotated[
    str | None, typer.Option("--convention", help="Label convention, where layout and values leave it open.")
]

DECIMAL = re.compile(r"[-+]?((\d+\.?\d*|\.\d+)[eE][-+]?\d+|\.\d+)$")


def cases_below(data: Sequence[Path], convention: str | None, patients: Path | None) -> list[Case]:
    """The cases below some folders, with the convention and the patients that the person at the keyboard knows."""
    from brats_pipeline.cases import decide_conventions, find_cases
    from brats_pipeline.cases.patients import read_patients, with_patients

    cases = find_cases(*data)
    if patients is not None:
        cases = with_patients(cases, read_patients(patients))
    return decide_conventions(cases, convention) if convention is not None else cases


def overrides_of(settings: Sequence[str] | None) -> Mapping[str, Any]:
    """``["a::b=[1, 2]"]`` to ``{"a::b": [1, 2]}``; values are YAML, in which ``1e-3`` is a number too."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads numbers as YAML 1.2 has them: the older version wants a point and a sign, ``1.0e-3``."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", DECIMAL, list("+-.0123456789"))
    overrides: dict[str, Any] = {}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise PipelineError(f"--set {setting!r} is not ID=VALUE; write for example --set max_epochs=20")
        try:
            overrides[key] = yaml.load(value, Loader)
        except yaml.YAMLError as error:
            raise PipelineError(f"--set {key}: {value!r} is no YAML value ({error}); quote it") from error
    return overrides


class as_request:  # noqa: N801
    """Arguments that the library refuses with ``ValueError`` came from the person at the keyboard."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            raise PipelineError(str(error)) from error
