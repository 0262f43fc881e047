"""Kinds of files in a bundle, by their names: what reading one of them could do."""

from __future__ import annotations

from enum import Enum, auto
from pathlib import Path


class Kind(Enum):
    """What a file is."""

    CONFIGURATION = auto()
    LOGGING = auto()
    WEIGHTS = auto()
    SCRIPTED = auto()
    PROGRAM = auto()
    PICKLED = auto()
    PAGE = auto()
    DATA = auto()
    UNKNOWN = auto()


_SUFFIXES = {
    Kind.CONFIGURATION: "yaml yml json",
    Kind.LOGGING: "conf ini cfg",
    Kind.WEIGHTS: "pt pth ckpt",
    Kind.SCRIPTED: "ts torchscript",
    Kind.PROGRAM: "py pyc pyo pyd pyi pyx so dll dylib exe sh bash bat cmd ps1 ipynb whl egg jar js",
    Kind.PICKLED: "pkl pickle npy npz joblib",
    Kind.PAGE: "html htm svg xhtml",
    Kind.DATA: "md rst txt csv tsv png jpg jpeg gif pdf onnx xml bin bib log nii gz tif tiff",
}
_BY_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_PLAIN_NAMES = ("license", "notice", "authors", "changelog", "readme", "sha256sums", ".claim", ".turn")


def kind_of(path: Path) -> Kind:
    """What a file is, by its name: the last suffix in any case, or one of the names that need none."""
    name = path.name.lower()
    if name in _PLAIN_NAMES or name.startswith("events.out.tfevents."):
        return Kind.DATA
    return _BY_SUFFIX.get(name.rpartition(".")[2] if "." in name else "", Kind.UNKNOWN)
