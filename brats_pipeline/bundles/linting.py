"""What a bundle of unknown origin would do, found by reading it: nothing of it is imported, evaluated or unpickled.

Some findings are final: such a file is never of use. The others may be meant well, and are up to the person.
"""

from __future__ import annotations

import configparser
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from brats_pipeline.bundles.expressions import is_import_id, problem_of, problem_of_import
from brats_pipeline.bundles.harmless import Names, harmless_names
from brats_pipeline.bundles.kinds import Kind, kind_of
from brats_pipeline.errors import PipelineError

MAX_NODES = 200_000
"""Values in one file, with those that YAML's aliases repeat; ours have some hundreds."""
MAX_DEPTH = 100
MAX_TEXT_BYTES = 50_000_000
SHOWN = 120
SCRIPTS_ITEMS = {"scripts::_target_": "importlib.import_module", "scripts::name": ""}
"""How a bundle imports its own package, whose name belongs in the empty place."""

LOGGING_CLASSES = {"handler": ("StreamHandler", "logging.StreamHandler"), "formatter": ("logging.Formatter",)}
LOGGING_ARGUMENTS = {"args": ("()", "(sys.stdout,)", "(sys.stderr,)"), "kwargs": ("{}",), "defaults": ("{}",)}
"""What ``logging.config.fileConfig`` may be given to evaluate; ``defaults`` from Python 3.12 on."""
LOGGING_OPTIONS = {
    "loggers": ("keys",),
    "handlers": ("keys",),
    "formatters": ("keys",),
    "logger": ("level", "handlers", "propagate", "qualname"),
    "handler": ("level", "formatter"),
    "formatter": ("format", "datefmt", "style"),
}
"""Options that are never evaluated, by the first word of a section's name."""


@dataclass(frozen=True)
class Finding:
    """One thing to know before a bundle is used.

    Args:
        file: below the bundle, with ``/``.
        place: the configuration id, or the section of an INI file; empty where it is the whole file.
        reason: what it would do, in words.
        final: no amount of trust helps.
    """

    file: str
    place: str
    reason: str
    final: bool = False

    def __str__(self) -> str:
        return printable(f"{self.file}: {f'{self.place} ' if self.place else ''}{self.reason}")


def printable(text: str) -> str:
    """The text with what could steer a terminal, or break the line, in the form of its escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def lint_bundle(bundle: Path, *, package: str | None = None) -> list[Finding]:
    """Everything in a bundle's folder that is not known to be harmless.

    Args:
        bundle: its folder, of plain files and folders.
        package: a folder of Python files in it that are known to be ours; its configuration may name them.
    """
    names = harmless_names()
    if package is not None:
        names = names.within(package)
    findings: list[Finding] = []
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        name = path.relative_to(bundle).as_posix()
        if package is not None and name.startswith(f"{package}/"):
            continue
        judge = _JUDGES.get(kind_of(path))
        if judge is not None:
            findings += judge(path, name, names)
    return findings


def _configuration(path: Path, name: str, names: Names) -> Iterator[Finding]:
    try:
        content = _load(path)
    except PipelineError as error:
        yield Finding(name, "", str(error), final=True)
        return
    yield from lint_configuration(name, content, names)


def _load(path: Path) -> Any:
    """A YAML or JSON file by a loader that makes plain values only; the same values that MONAI would get."""
    import yaml

    if path.stat().st_size > MAX_TEXT_BYTES:
        raise PipelineError(f"holds more than {MAX_TEXT_BYTES} bytes of text, which no configuration does")
    repeated: list[str] = []

    def twice(keys: list[str]) -> list[str]:
        return [key for key, count in Counter(keys).items() if count > 1]

    class Loader(yaml.SafeLoader):
        """Notes the keys that a mapping has twice: readers differ in which of them they keep."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [str(self.construct_object(key, deep=True)) for key, _ in node.value]
            repeated.extend(twice(keys))
            return super().construct_mapping(node, deep)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(twice([key for key, _ in items]))
        return dict(items)

    try:
        text = path.read_text(encoding="utf-8")
        content = (
            json.loads(text, object_pairs_hook=pairs) if path.suffix.lower() == ".json" else yaml.load(text, Loader)
        )
    except yaml.constructor.ConstructorError as error:
        raise PipelineError(f"asks YAML to make an object ({error.problem}); only plain values are read") from error
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise PipelineError(f"cannot be read as plain {path.suffix[1:].upper()} in UTF-8 ({first})") from error
    if repeated:
        raise PipelineError(f"has the key {repeated[0]!r} twice in one place, and readers differ in what they keep")
    return content


def lint_configuration(name: str, content: Any, names: Names) -> Iterator[Finding]:
    """What a configuration holds beyond plain values, simple expressions and known components.

    Args:
        name: of its file below the bundle.
        content: as a safe loader gives it.
        names: that it may use.
    """
    runs = name.startswith("configs/")
    counted = 0
    stack: list[tuple[str, str, Any, int]] = [("", "", content, 0)]
    while stack:
        place, key, value, depth = stack.pop()
        counted += 1
        if counted > MAX_NODES or depth > MAX_DEPTH:
            yield Finding(name, "", "repeats or nests its values beyond all use, as a bomb does", final=True)
            return
        reason = _reason(place, key, value, names, runs=runs)
        if reason is not None:
            yield Finding(name, place, reason)
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        stack += [(_id(place, child), _last(child), inner, depth + 1) for child, inner in children][::-1]


def _id(place: str, key: Any) -> str:
    plain = "::".join(part.lstrip("+") for part in str(key).replace("#", "::").split("::"))
    return f"{place}::{plain}" if place else plain


def _last(key: Any) -> str:
    """The id that a key stands for: the last one, where a key such as ``a::b`` or ``+a`` reaches into another."""
    return str(key).replace("#", "::").split("::")[-1].lstrip("+")


def _reason(place: str, key: str, value: Any, names: Names, *, runs: bool) -> str | None:
    """Why one value is not harmless; None where it is."""
    if names.package is not None and place in SCRIPTS_ITEMS:
        wanted = SCRIPTS_ITEMS[place] or names.package
        return None if value == wanted else f"is {_shown(value)}, where only {wanted!r} is known to be harmless"
    if key == "_target_":
        if not isinstance(value, str) or value[:1] in ("$", "@", "%"):
            return f"makes what is not known before it runs: {_shown(value)}"
        return None if value in names.targets else f"makes {_shown(value)}, which is not on the list"
    if key == "_mode_" and value not in ("default", "callable"):
        return f"is {_shown(value)}: `debug` opens Python's debugger"
    if key == "_debug_":
        return "opens Python's debugger"
    if place == "bundle_root" and value != "." and names.package is not None:
        return f"is {_shown(value)}, from where Python would import; it must be '.'"
    if not isinstance(value, str):
        return None
    if value.startswith("$"):
        listed = re.fullmatch(r"imports::\d+", place) is not None
        imports = listed and re.match(r"\s*(import|from)\b", value[1:])
        fault = problem_of_import(value[1:], names) if imports else problem_of(value[1:], names)
        return None if fault is None else f"{fault}: {_shown(value)}"
    if value.startswith("%"):
        plain = re.fullmatch(r"%\w+((::|#)\w+)*", value) and not is_import_id(value[1:])
        return None if plain else f"copies from another file, or from a place that is not known: {_shown(value)}"
    if value.startswith("@") and is_import_id(value[1:]):
        return f"takes hold of a module: {_shown(value)}"
    outside = runs and re.match(r"(?!\w+://)((/|~\w*([\\/]|$)|\\|[A-Za-z]:[\\/])|(.*[\\/])?\.\.([\\/]|$))", value)
    return f"is a path outside of the bundle: {_shown(value)}" if outside else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _logging(path: Path, name: str, names: Names) -> Iterator[Finding]:
    """`logging.config.fileConfig` evaluates some options, and others in other versions: what is not known is told."""
    del names
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error) as error:
        first = str(error).splitlines()[0]
        yield Finding(name, "", f"cannot be read as a logging configuration ({first})", final=True)
        return
    if parser.defaults():
        yield Finding(name, "[DEFAULT]", "has values that reach into every section")
    for section in parser.sections():
        kind = section.partition("_")[0]
        for option, value in parser.items(section):
            evaluated = LOGGING_CLASSES.get(kind, ()) if option == "class" else LOGGING_ARGUMENTS.get(option)
            if evaluated is not None:
                if "".join(value.split()) not in evaluated:
                    yield Finding(name, f"[{section}]", f"makes Python evaluate {option}={value}")
            elif option not in LOGGING_OPTIONS.get(kind, ()):
                yield Finding(name, f"[{section}]", f"has the option {option}={value}, which no logging needs")


def _weights(path: Path, name: str, names: Names) -> Iterator[Finding]:
    del names
    from brats_pipeline.weights import read_checkpoint, unpacks_to_more

    if unpacks_to_more(path):
        yield Finding(name, "", "unpacks to more bytes than it has, as a bomb does", final=True)
        return
    try:
        read_checkpoint(path)
    except PipelineError:
        yield Finding(
            name,
            "",
            "is damaged, or holds more than tensors and plain values, which would run when it is read",
            final=True,
        )


def _said(path: Path, name: str, names: Names, *, reason: str) -> Iterator[Finding]:
    del path, names
    yield Finding(name, "", reason)


_JUDGES: dict[Kind, Callable[[Path, str, Names], Iterator[Finding]]] = {
    Kind.CONFIGURATION: _configuration,
    Kind.LOGGING: _logging,
    Kind.WEIGHTS: _weights,
    Kind.PROGRAM: partial(_said, reason="is a program, which this bundle could have Python or the system run"),
    Kind.SCRIPTED: partial(_said, reason="is a TorchScript program: what it does is not known before it runs"),
    Kind.PICKLED: partial(_said, reason="is of a kind that can hold pickled objects, which run when they are read"),
    Kind.PAGE: partial(_said, reason="is a page that can hold scripts, which a browser would run"),
    Kind.UNKNOWN: partial(_said, reason="is a file of a kind that no bundle needs"),
}
