"""Values of a configuration that nothing behind them would refuse: each is as meant, or an error that says what is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brats_pipeline.errors import PipelineError
from transforms.labels import CONVENTIONS

FIELDS_OF_VIEW = ("foreground", "full")
KNOWN_REGIONS = tuple(dict.fromkeys(name for row in CONVENTIONS.values() for name in row.regions))


def switched(name: str, value: Any) -> bool:
    """The value of a switch; any text would count as on.

    Raises:
        PipelineError: it is neither true nor false.
    """
    if not isinstance(value, bool):
        raise PipelineError(f"{name} is {value!r}; known: true, false")
    return value


def check_values(
    *,
    regions: Any,
    field_of_view: Any,
    fields_of_view: Sequence[str] = FIELDS_OF_VIEW,
    modality_dropout: Any = 0.0,
    **switches: Any,
) -> None:
    """Refuse values that no part of a run would look at as they are meant; to be named in a bundle's YAML.

    Args:
        regions: names of the regions to mark.
        field_of_view: what of an image is seen.
        fields_of_view: those that the bundle knows.
        modality_dropout: share of patches that lose some of their modalities.
        **switches: id to what must be true or false.

    Raises:
        PipelineError: names the id, the value and those that are known.
    """
    if not isinstance(regions, list) or not regions or len(set(map(str, regions)) & {*KNOWN_REGIONS}) < len(regions):
        raise PipelineError(f"regions is {regions!r}; give a list of some of {', '.join(KNOWN_REGIONS)}, each once")
    if field_of_view not in fields_of_view:
        raise PipelineError(f"field_of_view is {field_of_view!r}; this bundle knows: {', '.join(fields_of_view)}")
    if not isinstance(modality_dropout, int | float) or not 0 <= modality_dropout <= 1:
        raise PipelineError(f"modality_dropout is {modality_dropout!r}; it must lie between 0 and 1")
    for name, value in switches.items():
        switched(name, value)


def refuse_ids(overrides: Mapping[str, Any], elsewhere: Mapping[str, str], command: str) -> None:
    """Say no to ids that a command sets by an option of its own, which would win without a word.

    Args:
        overrides: configuration id to value, given by a person.
        elsewhere: id to what to do instead.
        command: what they were given to, as "a training".

    Raises:
        PipelineError: there is one.
    """
    for name in sorted(elsewhere.keys() & overrides.keys()):
        raise PipelineError(f"--set {name} is not for {command}: {elsewhere[name]}")
