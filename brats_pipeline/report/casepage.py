"""What a report shows of one case beside its scores: a picture, volumes to scroll through, its confusion of tissues."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from brats_pipeline.report.budget import encoded
from brats_pipeline.report.confusion import Shares
from brats_pipeline.report.overlay import COLOURS, MODALITIES, OTHER_COLOUR
from brats_pipeline.report.volumes import CaseVolume

PLACE_BYTES = 1200
"""What surrounds a picture or a volume in the page, controls included."""


@dataclass(frozen=True)
class CasePage:
    """What a report shows of one case beside its scores.

    Args:
        case_id: the case.
        overlay: a JPEG, or None.
        no_overlay: why there is none.
        volume: what can be scrolled; None without.
        shows_head: whether skull and face were left in the scan.
        confusion: tissue of the reference and of the prediction to their common volume in ml.
    """

    case_id: str
    overlay: bytes | None = None
    no_overlay: str | None = None
    volume: CaseVolume | None = None
    shows_head: bool = False
    confusion: Shares | None = None

    @property
    def size(self) -> int:
        """Bytes that picture and volumes take in the report."""
        layers = (*self.volume.images.values(), self.volume.labels) if self.volume else ()
        return sum(encoded(len(each)) + PLACE_BYTES for each in (self.overlay or b"", *layers))


def embedded(picture: bytes, kind: str) -> str:
    """A picture as a data address, so that the file needs no other."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def view_of(number: int, volume: CaseVolume, *, referenced: bool = True) -> dict[str, Any]:
    """A case's volumes as the page holds them.

    Args:
        number: of the case in the page.
        volume: what can be scrolled.
        referenced: whether there is a reference to compare with.
    """
    colours = [COLOURS.get(region, OTHER_COLOUR) for region in volume.regions]
    return {
        "id": f"scan{number}",
        "images": [
            (MODALITIES.get(name, name), f"scan{number}-{name}", base64.b64encode(image).decode())
            for name, image in volume.images.items()
        ],
        "labels": base64.b64encode(volume.labels).decode(),
        "place": json.dumps(volume.place),
        "colours": json.dumps(colours),
        "key": list(zip(volume.regions, colours, strict=True)),
        "mm": f"{volume.mm:g}",
        "predicted": volume.predicted,
        "referenced": referenced,
    }
