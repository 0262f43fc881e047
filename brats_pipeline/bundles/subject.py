"""A bundle under examination: as it lies there, and a copy of it that can be run without a trace."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brats_pipeline.bundles.installed import read_metadata, weights_path
from brats_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser
    from torch import nn

SUFFIXES = (".json", ".yaml", ".yml")
TRAVELLING = ("configs", "docs")
NETWORK = "network_def"
"""The id that the model zoo's checks and MONAI Label look for."""


@dataclass(frozen=True)
class Subject:
    """What the checks look at.

    Args:
        root: the bundle, of which nothing is changed.
        copy: what is run: its configuration, its packages and its weights, or random ones where it has none.
        metadata: its ``metadata.json``.
        has_weights: whether the weights are its own.
    """

    root: Path
    copy: Path
    metadata: Mapping[str, Any]
    has_weights: bool

    def config(self, name: str) -> Path | None:
        """The copy of ``configs/<name>.yaml``, or of another suffix; None where there is none."""
        return find_config(self.copy, name)

    def parser(self, name: str) -> ConfigParser:
        """A configuration with the metadata, computing on the CPU.

        Raises:
            PipelineError: there is none.
        """
        from monai.bundle import ConfigParser

        path = self.config(name)
        if path is None:
            raise PipelineError(f"configs/{name}.yaml is missing")
        parser = ConfigParser()
        parser.read_config(str(path))
        parser.read_meta(str(self.copy / "configs" / "metadata.json"))
        parser["bundle_root"] = str(self.copy)
        parser["device"] = "$torch.device('cpu')"
        return parser

    def network(self) -> nn.Module:
        """The network of ``inference.yaml`` with new weights, on the CPU."""
        network: nn.Module = self.parser("inference").get_parsed_content(NETWORK)
        return network.cpu().eval()


def find_config(root: Path, name: str) -> Path | None:
    """``configs/<name>`` with the first suffix that is there."""
    paths = (root / "configs" / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


@contextmanager
def subject_of(root: Path) -> Iterator[Subject]:
    """Copy a bundle into a temporary folder, from which its own packages can be imported, with MONAI quiet.

    Raises:
        PipelineError: the metadata cannot be read.
    """
    metadata = read_metadata(root)
    with tempfile.TemporaryDirectory(prefix="brats-pipeline-") as folder, _quiet():
        copy = Path(folder) / root.name
        packages = [path.name for path in root.iterdir() if (path / "__init__.py").is_file()]
        for name in (*TRAVELLING, *packages):
            if (root / name).is_dir():
                shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        subject = Subject(root, copy, metadata, weights_path(root).is_file())
        weights_path(copy).parent.mkdir()
        sys.path.insert(0, str(copy))
        try:
            if subject.has_weights:
                shutil.copy(weights_path(root), weights_path(copy))
            yield subject
        finally:
            sys.path.remove(str(copy))
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", None)).startswith(str(copy)):
                    del sys.modules[name]  # another bundle may have a package of this name


@contextmanager
def _quiet() -> Iterator[None]:
    """MONAI's and torch's comments on what they are asked to do are no findings."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
