"""What reading a bundle's files finds, and that MONAI would have run what is found."""

from __future__ import annotations

import json
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from brats_pipeline.bundles import freeze_bundle, list_bundles
from brats_pipeline.bundles.expressions import as_python, problem_of, problem_of_import
from brats_pipeline.bundles.harmless import harmless_names
from brats_pipeline.bundles.linting import lint_bundle, lint_configuration

NAMES = harmless_names()
RUN = "__import__('pathlib').Path('CANARY').touch()"
RUN_WITHOUT_QUOTES = '__import__("pathlib").Path("CANARY").touch()'

LIVE: dict[str, dict[str, Any]] = {
    "a call": {"evil": f"${RUN}"},
    "a call in an argument": {"evil": f"$len([{RUN}])"},
    "a call in a default": {"evil": f"$(lambda x={RUN}: x)()"},
    "a format string": {"evil": f"$f'{{{RUN_WITHOUT_QUOTES}}}'"},
    "a comprehension that renames a function": {
        "evil": "$[len('touch CANARY') for len in [__import__('os').system]]",
    },
    "references that turn the inside of a string into a format string": {
        "f": 1,
        "u": 2,
        "evil": f"$'@f {{{RUN_WITHOUT_QUOTES}}} @u'",
    },
    "builtins behind a frame of a generator": {
        "frames": "$(x for x in [1])",
        "builtins": "$@frames.gi_frame.f_builtins",
        "evil": "$@builtins['eval']('open(\\'CANARY\\', \\'w\\').close()')",
    },
    "dunder attributes": {
        "evil": "$[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0]('touch CANARY', "
        "shell=True).wait()",
    },
    "a module behind a reference": {
        "system": "$import os",
        "evil": "$@system.system('touch CANARY')",
    },
    "a walrus": {"evil": f"$(x := {RUN})"},
    "an expression behind a conditional": {"evil": f"$1 if False else {RUN}"},
    "a call in place of a target": {"evil": {"_target_": f"${RUN}"}},
    "a target that an expression names": {
        "evil": {"_target_": "$__import__('os').mkdir", "path": "CANARY"},
    },
    "a target behind a reference": {"name": "os.mkdir", "evil": {"_target_": "@name", "path": "CANARY"}},
    "a target behind a key that reaches into another": {
        "evil": {"path": "CANARY"},
        "evil::_target_": "os.mkdir",
    },
    "a target behind the old separator": {"evil": {"path": "CANARY"}, "evil#_target_": "os.mkdir"},
    "a process": {"evil": {"_target_": "subprocess.run", "args": ["touch", "CANARY"]}},
    "a reader that is imported by its name": {
        "evil": {"_target_": "monai.transforms.LoadImage", "reader": "os.mkdir", "path": "CANARY"},
    },
}
"""What writes the file CANARY when MONAI makes the id ``evil``."""


def findings_of(content: Any, name: str = "configs/inference.yaml") -> list[str]:
    return [str(finding) for finding in lint_configuration(name, content, NAMES)]


@pytest.mark.parametrize("content", LIVE.values(), ids=LIVE)
def test_what_would_run_is_found(content: dict[str, Any]) -> None:
    assert findings_of(content)


@pytest.mark.parametrize("name", LIVE)
def test_what_is_found_would_have_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list above is of no use if its entries do nothing."""
    from monai.bundle import ConfigParser

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "inference.yaml"
    path.write_text(yaml.safe_dump(LIVE[name], sort_keys=False), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = ConfigParser()
        parser.read_config(str(path))
        with suppress(Exception):  # of what comes behind the call
            parser.get_parsed_content("evil")
    assert (tmp_path / "CANARY").exists()


REFUSED_EXPRESSIONS = {
    "os": "uses the name os",
    "os.system": "reads os.system",
    "os.system('x')": "calls os.system",
    "torch.load('x')": "calls torch.load",
    "torch.hub.load('x', 'y')": "calls torch.hub.load",
    "eval('1')": "calls eval",
    "@a.__class__": "reads the attribute .__class__",
    "@a.system('x')": "calls the method .system()",
    "@a['x']('y')": "calls what an expression gives",
    "(lambda: 1)": "defines a function (lambda)",
    "[x for torch in @a]": "binds torch to something else",
    "[x for @a[0] in @b]": "binds __local_refs['a'][0] to something else",
    "2 ** 99999999": "raises to a power",
    "__local_refs": "uses the name __local_refs",
    "@imports::0": "takes hold of a module",
    "@#a": "refers to an id by its relative place",
    "1; 2": "is not one expression",
    "import os": "imports at another place",
    "1 +": "is nothing that Python can read",
    "sys.path.insert(0, @bundle_root)": "calls sys.path.insert",
}


@pytest.mark.parametrize(("expression", "reason"), REFUSED_EXPRESSIONS.items())
def test_the_reason_names_what_is_wrong_with_an_expression(expression: str, reason: str) -> None:
    assert (problem_of(expression, NAMES) or "").startswith(reason)


HARMLESS_EXPRESSIONS = [
    "@a",
    "@a::b::0 + 1",
    "[0.95 * side for side in @spacing]",
    "{name: i for i, name in enumerate(@regions) if name != 'ET'}",
    "'cuda:0' if torch.cuda.is_available() else 'cpu'",
    "torch.device('cuda:' + os.environ.get('LOCAL_RANK', '0'))",
    "@network.to(@device, memory_format=torch.channels_last)",
    "sorted({os.path.dirname(item['label']) for item in @data})",
    "@loading[:2] + [*@more, None]",
    "not @a and @b.type == 'cpu'",
]


@pytest.mark.parametrize("expression", HARMLESS_EXPRESSIONS)
def test_simple_expressions_are_harmless(expression: str) -> None:
    assert problem_of(expression, NAMES) is None


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("import torch", True),
        ("import numpy as np", True),
        ("import brats_pipeline.data.cohort", True),
        ("import subprocess", False),
        ("import torch as os", False),
        ("import os as torch", False),
        ("from os import system", False),
        ("import torch; import subprocess", False),
        ("import torch, subprocess", False),
        ("import @name", False),
    ],
)
def test_only_listed_modules_are_imported(text: str, fits: bool) -> None:
    assert (problem_of_import(text, NAMES) is None) == fits


@pytest.mark.parametrize(
    "expression",
    ["@a + @ab::c", "'@f {x} @'", "@a#b + @a::b::c", "1 # @a", "@", "@a@ab@a::b", "'@or@'", "@a_b-@a"],
)
def test_the_text_that_is_judged_is_the_text_that_monai_evaluates(expression: str) -> None:
    from monai.bundle import ReferenceResolver

    references = ReferenceResolver.match_refs_pattern(f"${expression}")
    theirs = ReferenceResolver.update_refs_pattern(f"${expression}", dict.fromkeys(references))
    assert f"${as_python(expression)}" == theirs


@pytest.mark.parametrize(
    "content",
    [
        {"x": {"_target_": "UNet", "_mode_": "debug"}},
        {"x": {"_target_": "UNet", "_debug_": True}},
        {"x": {"_target_": "Lambdad", "keys": "image", "func": "print"}},
        {"x": {"_target_": ["UNet"]}},
        {"x": {"_target_": "builtins.exec"}},
        {"x": "%/etc/other.yaml::evil"},
        {"x": "%imports::0"},
        {"x": "@imports::0"},
        {"output_dir": "/home/somebody"},
        {"output_dir": "~/.config"},
        {"output_dir": "data/../../elsewhere"},
        {"output_dir": "C:\\Windows"},
        {"imports": ["$import subprocess"]},
        {"+imports": ["$import subprocess"]},
    ],
)
def test_what_no_bundle_needs_is_found(content: dict[str, Any]) -> None:
    assert len(findings_of(content)) == 1


def test_plain_values_references_and_macros_within_the_file_are_harmless() -> None:
    content = {
        "a": {"b": [1, 2.5, None, True, "text of 5 % with a $ and an @", "@c", "%c::d"]},
        "c": {"d": 1},
        "+imports": ["$import torch"],
        "docs": "https://example.org/../x y",
        "net": {"_target_": "monai.networks.nets.SegResNet", "_disabled_": "$not @c"},
    }
    assert findings_of(content) == []


@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda path: path.name)
def test_our_bundles_are_harmless(bundle: Path) -> None:
    assert [str(finding) for finding in lint_bundle(bundle)] == []


def test_a_frozen_run_is_harmless(tmp_path: Path, quick_settings: dict[str, Any]) -> None:
    freeze_bundle(list_bundles()[0], tmp_path / "run", quick_settings)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"datalist": "/data/list.json"}), encoding="utf-8")
    assert [str(finding) for finding in lint_bundle(tmp_path / "run")] == []


def test_every_file_of_configuration_is_read(tmp_path: Path) -> None:
    """Metadata becomes a part of the configuration, and a network's file may be laid over it."""
    bundle = tmp_path / "bundle"
    shutil.copytree(list_bundles()[0], bundle)
    for name in ("configs/metadata.json", "configs/networks/unet.yaml", "configs/more.yml", "elsewhere/x.json"):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text(json.dumps({"x": "$exit()"}), encoding="utf-8")
    found = {finding.file for finding in lint_bundle(bundle)}
    assert found == {"configs/metadata.json", "configs/networks/unet.yaml", "configs/more.yml", "elsewhere/x.json"}


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b]\n"
        "d: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e, *e, *e, *e, *e]\n"
        "g: [*e, *e, *e, *e, *e, *e]\n",
        "a: &a [*a]\n",
        "[" * 5000,
        "a: !!python/object/apply:os.mkdir [CANARY]\n",
        "a: 1\na: $exit()\n",
        "a: {b: 1, b: 2}\n",
        "\x00",
    ],
    ids=["many laughs", "a ring", "deep", "an object", "a key twice", "an inner key twice", "no text"],
)
def test_a_file_that_no_safe_reader_takes_is_final(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.yaml").write_text(text, encoding="utf-8")
    (finding,) = lint_bundle(tmp_path)
    assert finding.final
    assert not (tmp_path / "CANARY").exists()


LOGGING = """[loggers]
keys=root
[handlers]
keys=one
[formatters]
keys=full
[logger_root]
level=INFO
handlers=one
[handler_one]
class={kind}
formatter=full
args={args}
[formatter_full]
format=%(asctime)s %(message)s
"""


@pytest.mark.parametrize(
    ("kind", "args", "found"),
    [
        ("StreamHandler", "(sys.stdout,)", 0),
        ("logging.StreamHandler", "( sys.stderr, )", 0),
        ("StreamHandler", "(open('CANARY', 'w'),)", 1),
        ("FileHandler", "('CANARY',)", 2),
        ("logging.handlers.SocketHandler", "('example.org', 80)", 2),
        ("StreamHandler if open('CANARY', 'w') else 0", "(sys.stdout,)", 1),
    ],
)
def test_logging_may_print_and_nothing_else(kind: str, args: str, found: int, tmp_path: Path) -> None:
    (tmp_path / "logging.conf").write_text(LOGGING.format(kind=kind, args=args), encoding="utf-8")
    assert len(lint_bundle(tmp_path)) == found


@pytest.mark.parametrize(
    "more",
    [
        "[DEFAULT]\nargs=(1,)\n",
        "[handler_two]\nkwargs={'stream': open('x')}\n",
        "defaults={'x': open('x')}\n",
        "some_later_option=open('x')\n",
        "[something]\nelse=open('x')\n",
    ],
)
def test_logging_has_no_other_way_to_be_evaluated(more: str, tmp_path: Path) -> None:
    text = LOGGING.format(kind="StreamHandler", args="(sys.stdout,)") + more
    (tmp_path / "logging.conf").write_text(text, encoding="utf-8")
    assert lint_bundle(tmp_path)


def test_logging_may_say_all_that_is_never_evaluated(tmp_path: Path) -> None:
    text = LOGGING.format(kind="StreamHandler", args="(sys.stdout,)") + "datefmt=%H:%M\nstyle=%\ndefaults={}\n"
    text += "[logger_two]\nlevel=DEBUG\nhandlers=one\npropagate=0\nqualname=two\n"
    (tmp_path / "logging.conf").write_text(text, encoding="utf-8")
    assert not lint_bundle(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["scripts/net.py", "a.so", "b.pyc", "models/model.ts", "data.npy", "x.pkl", "report.html", "program", "x.sh"],
)
def test_files_that_could_run_are_found(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    (finding,) = lint_bundle(tmp_path)
    assert finding.file == name
    assert not finding.final
