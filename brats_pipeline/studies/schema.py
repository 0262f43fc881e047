"""The form of a study file, as a JSON schema, and its complaints in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NAME = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"}
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_SEEDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
_SET = {"type": "object"}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_ARM = _object(
    ("name",), name=NAME, title={"type": "string"}, network={"type": "string"}, set=_SET, seeds=_SEEDS, bundle=_TEXT
)
_FOLDS = _object(
    k={"type": "integer", "minimum": 2},
    seed={"type": "integer", "minimum": 0},
    test=_SEEDS,
    validation={"enum": ["next", "none"]},
)
_PHANTOM = _object(
    ("layout", "cases"),
    layout={"type": "string"},
    cases={"type": "integer", "minimum": 2},
    size={
        "oneOf": [
            {"type": "integer", "minimum": 24},
            {"type": "array", "items": {"type": "integer", "minimum": 8}, "minItems": 3, "maxItems": 3},
        ]
    },
    spacing={"type": "number", "exclusiveMinimum": 0},
    seed={"type": "integer", "minimum": 0},
)
_BUDGET = _object(
    about={"type": "string"},
    max_epochs={"type": "integer", "minimum": 1},
    minutes={"type": "number", "exclusiveMinimum": 0},
    patches_per_epoch={"type": "integer", "minimum": 1},
    set=_SET,
    arms={
        "oneOf": [
            {"type": "object", "additionalProperties": _SET},
            {"type": "array", "items": NAME, "minItems": 1, "uniqueItems": True},
        ]
    },
    seeds=_SEEDS,
    folds=_FOLDS,
    data=_object(("phantom",), phantom=_PHANTOM),
)
_EVALUATION = _object(
    rules={"type": "string"},
    metrics={**_TEXTS, "minItems": 1},
    compare={**_TEXTS, "minItems": 1},
    ranking={**_TEXTS, "minItems": 1},
    test_loss={"type": "boolean"},
    missing={"enum": [True, False, "pairs"]},
)
SCHEMA = _object(
    ("name", "title", "bundle", "arms"),
    name=NAME,
    title={"type": "string"},
    about={"type": "string"},
    bundle=_TEXT,
    set=_SET,
    seeds=_SEEDS,
    arms={"type": "array", "items": _ARM, "minItems": 1},
    reference=NAME,
    folds=_FOLDS,
    evaluation=_EVALUATION,
    notes=_TEXTS,
    budgets={"type": "object", "propertyNames": NAME, "additionalProperties": {"anyOf": [_BUDGET, {"type": "null"}]}},
)
"""What a study file may hold."""


def complaints(content: Any) -> Iterator[str]:
    """What is wrong with the form of a study, a sentence each; nothing where it is right."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(SCHEMA)
    for error in sorted(validator.iter_errors(content), key=lambda error: [str(step) for step in error.absolute_path]):
        yield _sentence(_innermost(error))


def _innermost(error: Any) -> Any:
    """Of alternatives, the complaint that reached deepest: that of the form which was meant."""
    while error.context:
        error = max(error.context, key=lambda each: (len(each.absolute_path), each.validator != "type"))
    return error


def _sentence(error: Any) -> str:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path).lstrip(".")
    where = f"{place}: " if place else ""
    got, need = error.instance, error.validator_value
    if error.validator == "additionalProperties" and isinstance(got, Mapping):
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(str(key) for key in got if key not in known)
        return f"{where}unknown key {', '.join(unknown)}; known: {', '.join(known)}"
    if error.validator == "required":
        missing = [key for key in need if key not in got]
        return f"{where}{', '.join(missing)} is missing; a study needs it there"
    if error.validator == "type":
        return f"{where}is {got!r}, {_kind(need)} is needed"
    if error.validator == "enum":
        return f"{where}is {got!r}; choose one of {', '.join(map(str, need))}"
    if error.validator == "pattern":
        return f"{where}is {got!r}; a name is made of letters, digits and _ . - and begins with a letter or digit"
    if error.validator in ("minimum", "exclusiveMinimum"):
        return f"{where}is {got!r}; {'at least' if error.validator == 'minimum' else 'more than'} {need} is needed"
    if error.validator == "minItems":
        return f"{where}lists nothing, or too little; at least {need} is needed"
    if error.validator == "uniqueItems":
        return f"{where}is {got!r}; each may stand there once"
    return f"{where}{error.message}"


def _kind(name: str) -> str:
    kinds = {"object": "a mapping", "array": "a list", "string": "a text", "integer": "a whole number"}
    return {**kinds, "number": "a number", "boolean": "true or false"}.get(name, name)
