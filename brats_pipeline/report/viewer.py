"""The viewer inside a report: NiiVue, from the package ipyniivue where it is installed. Nothing is fetched.

The package carries NiiVue inside a notebook widget, one JavaScript module that does not export the class. Its name is
read from the place where the widget makes its only instance, and handed out by a line added at the end.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

EVENT = "niivue-loaded"
"""Name of the browser event that hands out the class."""

_PACKAGE = "ipyniivue"
_INSTANCE = re.compile(r'"Creating new Niivue instance"\);.{0,200}?=new ([A-Za-z_$][\w$]*)\(', re.DOTALL)


@dataclass(frozen=True)
class Viewer:
    """What a report needs to show volumes.

    Args:
        script: base64 of the gzipped module.
        version: of the package.
        licence: its text, which has to travel with the script.
    """

    script: str
    version: str
    licence: str


def exported(widget: str) -> str | None:
    """The widget's module, with a last line that hands out the NiiVue class; None where the class is not found."""
    found = _INSTANCE.search(widget)
    if found is None:
        return None
    return f'{widget}\nwindow.dispatchEvent(new CustomEvent("{EVENT}", {{ detail: {found[1]} }}));\n'


def find_viewer() -> Viewer | str:
    """The viewer, or a sentence that says why there is none and what to do."""
    spec = importlib.util.find_spec(_PACKAGE)  # not imported: that would load a notebook
    if spec is None or not spec.submodule_search_locations:
        return "The slices cannot be scrolled: install the viewer with pip install brats-pipeline[viewer]."
    package = metadata.distribution(_PACKAGE)
    path = Path(spec.submodule_search_locations[0]) / "static" / "widget.js"
    script = exported(path.read_text(encoding="utf-8")) if path.is_file() else None
    if script is None:
        return (
            f"The slices cannot be scrolled: this report does not know {_PACKAGE} {package.version}; "
            f"install {_PACKAGE} 2.4.4."
        )
    packed = gzip.compress(script.encode(), compresslevel=9, mtime=0)
    return Viewer(
        script=base64.b64encode(packed).decode(),
        version=package.version,
        licence=package.read_text("licenses/LICENSE") or "BSD-2-Clause, Copyright (c) Niivue",
    )
