"""The package's names: each resolves, is documented, and costs nothing before it is used."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import brats_pipeline


@pytest.mark.parametrize("name", brats_pipeline.__all__)
def test_every_exported_name_resolves(name: str) -> None:
    assert getattr(brats_pipeline, name) is not None
    assert name in dir(brats_pipeline)


@pytest.mark.parametrize("name", [name for name in brats_pipeline.__all__ if not name.startswith("_")])
def test_every_exported_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(brats_pipeline, name))


@pytest.mark.parametrize("name", brats_pipeline.__all__)
def test_no_module_hides_a_function_of_its_name(name: str) -> None:
    # Importing a submodule binds it on the package, so the second use of the name would give the module.
    assert importlib.util.find_spec(f"brats_pipeline.{name}") is None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="tumor"):
        brats_pipeline.tumor  # noqa: B018


def test_importing_the_package_imports_nothing_else(python: Callable[..., Any], tmp_path: Path) -> None:
    heavy = "{'torch', 'monai', 'numpy', 'nibabel', 'typer', 'rich'} & set(sys.modules)"
    result = python(["-c", f"import sys, brats_pipeline; print({heavy})"], cwd=tmp_path)
    assert result.stdout == "set()\n"


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert brats_pipeline.__version__ == version("brats-pipeline")
