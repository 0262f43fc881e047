"""The modules of ours that a configuration needs, found by their imports and copied into a package of another name.

Nothing is imported to find them: the syntax tree of each file tells what it imports, in functions too. What a bundle's
own requirements do not bring (:data:`BASE`) is imported where it is there. Where it is not, one of :data:`STAND_INS`
takes its place, or its absence is told when it is used.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from brats_pipeline.bundles.installed import HERE
from brats_pipeline.errors import PipelineError

OWN = ("brats_pipeline", "networks", "transforms")
BASE = frozenset(["fire", "ignite", "monai", "nibabel", "numpy", "torch", "yaml"])
"""Top-level modules that ``pip install monai nibabel pytorch-ignite pyyaml fire`` brings."""
PACKAGES = {
    "PIL": "Pillow",
    "cc3d": "connected-components-3d",
    "sklearn": "scikit-learn",
    "SimpleITK": "SimpleITK",
    "yaml": "PyYAML",
    "ignite": "pytorch-ignite",
}
"""Module to the name under which it is installed, where they differ."""
STAND_INS = {"PIL": "brats_pipeline.stand_ins.tiff", "cc3d": "brats_pipeline.stand_ins.parts"}
"""Module to that of ours which does the little that a bundle asks of it, where it is not installed."""

ABSENT = '''"""What stands in for a package that is not installed, until it is used."""

from __future__ import annotations

from typing import Any

from {package}.brats_pipeline.errors import PipelineError


class Absent:
    """Tells what to install as soon as anything is asked of it."""

    def __init__(self, package: str) -> None:
        self.__dict__["package"] = package

    def __getattr__(self, name: str) -> Any:
        raise PipelineError(f"this needs {{self.package}}, which is not installed: pip install {{self.package}}")

    def __call__(self, *args: object, **kwargs: object) -> Any:
        return self.anything


def absent(package: str, name: str) -> Any:
    """What an import that failed would have bound to ``name``."""
    return type(name, (Exception,), {{}}) if name.endswith("Error") else Absent(package)
'''
ABSENT_MODULE = "absent"


def module_file(module: str) -> Path | None:
    """The file of one of our modules; None where there is none of that name."""
    path = HERE.parent.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def module_of(name: str) -> str:
    """The module that a dotted name of ours lies in: ``"networks.UNet"`` to ``"networks"``.

    Raises:
        PipelineError: it is in none.
    """
    module = name
    while module and module_file(module) is None:
        module = module.rpartition(".")[0]
    if not module:
        raise PipelineError(f"{name} is in no module of ours; the configuration must name what is installed")
    return module


def home_of(name: str) -> str:
    """Where what a dotted name stands for is written: ``"networks.UNet"`` to ``"networks.unet.UNet"``."""
    module = module_of(name)
    file = module_file(module)
    wanted, _, rest = name[len(module) + 1 :].partition(".")
    if file is None or file.name != "__init__.py" or not wanted:
        return name
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OWN:
            for alias in node.names:
                if (alias.asname or alias.name) == wanted:
                    return home_of(".".join(filter(None, (node.module, alias.name, rest))))
    return name


def modules_behind(names: Collection[str]) -> list[str]:
    """Our modules that some dotted names need, by way of each other's imports; packages among them.

    Raises:
        PipelineError: a name is in no module of ours, or in one that is not copied.
    """
    homes = {module_of(home_of(name)): name for name in names}
    if astray := sorted(name for module, name in homes.items() if module in OWN):
        raise PipelineError(
            f"{astray[0]} is written in {astray[0].partition('.')[0]}/__init__.py, which no bundle takes along; write "
            "it in a module of its own"
        )
    waiting = set(homes)
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in found or module in OWN:
            continue
        found.add(module)
        file = module_file(module)
        assert file is not None
        waiting |= set(_imported(ast.parse(file.read_text(encoding="utf-8"))))
        waiting |= {STAND_INS[root] for root in _foreign(module) & STAND_INS.keys()}
        parts = module.split(".")
        waiting |= {".".join(parts[:count]) for count in range(2, len(parts))}
    return sorted(found)


def _imported(tree: ast.AST) -> Iterator[str]:
    """Our modules that a file imports anywhere but for its types."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OWN:
            yield node.module
            yield from (name for alias in node.names if module_file(name := f"{node.module}.{alias.name}") is not None)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in OWN)
        else:
            yield from _imported(node)


def packages_used(modules: Collection[str]) -> list[str]:
    """What is to be installed for everything in our modules to work, beyond :data:`BASE`."""
    return sorted({PACKAGES.get(root, root) for module in modules for root in _foreign(module)})


def _foreign(module: str) -> set[str]:
    file = module_file(module)
    assert file is not None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {root for name in names if _is_foreign(root := name.partition(".")[0])}


def _is_foreign(root: str) -> bool:
    return root not in sys.stdlib_module_names and root not in BASE and root not in OWN


def vendored(modules: Collection[str], package: str, *, version: str) -> dict[str, str]:
    """Name below the bundle to text, for a package that holds copies of our modules.

    Args:
        modules: with all that they import, see :func:`modules_behind`.
        package: name of the package that holds them.
        version: of this distribution, which is told.
    """
    told = f'"""Modules of brats_pipeline {version}, copied for this bundle; Apache-2.0, see LICENSE."""\n'
    leaves = [module for module in sorted(modules) if module_file(module).name != "__init__.py"]  # type: ignore[union-attr]
    texts = {"__init__.py": told + "\n" + "".join(f"import {package}.{module}\n" for module in leaves)}
    texts |= {f"{top}/__init__.py": told for top in OWN}
    texts[f"{OWN[0]}/__init__.py"] += f'\n__version__ = "{version}"\n'
    texts[f"{ABSENT_MODULE}.py"] = ABSENT.format(package=package)
    for module in modules:
        file = module_file(module)
        assert file is not None
        path = PurePosixPath(*module.split("."))
        name = str(path / "__init__.py") if file.name == "__init__.py" else f"{path}.py"
        texts[name] = moved(file.read_text(encoding="utf-8"), package)
    return {f"{package}/{name}": text for name, text in sorted(texts.items())}


def moved(text: str, package: str) -> str:
    """The text of one of our modules, its imports turned to copies within ``package``.

    Raises:
        PipelineError: it imports one of our modules by ``import X``, whose name cannot be moved.
    """
    lines = text.splitlines(keepends=True)
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name.partition(".")[0] in OWN for alias in node.names):
            raise PipelineError(f"`{ast.unparse(node)}` cannot be moved into {package}; write `from X import Y` there")
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OWN:
            row = node.lineno - 1
            start = node.col_offset + len("from ")
            lines[row] = f"{lines[row][:start]}{package}.{lines[row][start:]}"
    for node in reversed(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if _is_foreign(root := names[0].partition(".")[0]):
                lines[node.lineno - 1 : node.end_lineno] = [_guarded(node, root, package)]
    return "".join(lines)


def _guarded(node: ast.Import | ast.ImportFrom, root: str, package: str) -> str:
    """An import of a library, and what is bound to its names where it is not installed."""
    if stand_in := STAND_INS.get(root):
        parent, _, module = f"{package}.{stand_in}".rpartition(".")
        names = ", ".join(ast.unparse(alias) for alias in node.names)
        whole = f"from {parent} import {module} as {node.names[0].asname or root}"
        instead = f"    {whole if isinstance(node, ast.Import) else f'from {parent}.{module} import {names}'}\n"
    else:
        needed = PACKAGES.get(root, root)
        bound = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        instead = f"    from {package}.{ABSENT_MODULE} import absent\n\n"
        instead += "".join(f'    {name} = absent("{needed}", "{name}")\n' for name in bound)
    return f"try:\n    {ast.unparse(node)}\nexcept ImportError:\n{instead}"
