"""Draw every network as the reference shows it: boxes with the shapes that its modules really give.

    python -m benchmarks.draw_networks [docs/reference/img]

Each network is built with its default arguments and run without computing (on torch's meta device), in two dimensions
on 256 x 256 and in three on 128 x 128 x 128; forward hooks note what comes out of every module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.transforms import Bbox
from torch import Tensor, nn

from networks import NETWORKS

SIDES = {2: 256, 3: 128}
ENCODER, DECODER, CONTEXT, DATA = "#dbe7f5", "#dff0dc", "#fbe6c8", "#eeeeee"
LINE = "#444444"
FONT = 8.0
HALF = 0.28
"""Half the height of a box."""

Point = tuple[float, float]


def shapes(network: nn.Module, image: Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of what each module last returned, by its path; containers that are never called have none."""
    found: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) else output  # pooling gives its indices too
            found[path] = tuple(first.shape)

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in network.named_modules()]
    with torch.inference_mode():
        network(image)
    for handle in handles:
        handle.remove()
    return found


class Model:
    """A network in both dimensions, and the shapes of its modules."""

    def __init__(self, name: str) -> None:
        self.networks: dict[int, nn.Module] = {}
        self.shapes: dict[int, dict[str, tuple[int, ...]]] = {}
        for dims, side in SIDES.items():
            with torch.device("meta"):
                image = torch.empty(1, 4, *[side] * dims)
                self.networks[dims] = NETWORKS[name](spatial_dims=dims, in_channels=4, out_channels=3).eval()
            self.shapes[dims] = shapes(self.networks[dims], image)
            self.shapes[dims]["image"] = tuple(image.shape)

    def lines(self, path: str) -> str:
        """Channels and grid of a module's output, a line for each dimension."""
        given = []
        for dims, power in ((2, "²"), (3, "³")):
            shape = self.shapes[dims][path]
            given.append(f"{shape[1]} @ {shape[2]}{power}")
        return "\n".join(given)

    def count(self, path: str) -> int:
        """How many modules a list holds."""
        modules = self.networks[2].get_submodule(path)
        assert isinstance(modules, nn.ModuleList)
        return len(modules)


def _inside(box: Bbox, frame: Bbox) -> bool:
    return bool(frame.x0 <= box.x0 and frame.y0 <= box.y0 and box.x1 <= frame.x1 and box.y1 <= frame.y1)


class Picture:
    """A canvas in inches with boxes and arrows."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.axis("off")
        self.boxes: list[tuple[str, Bbox]] = []

    def box(self, centre: Point, title: str, lines: str, colour: str, *, width: float = 1.3) -> None:
        """A box: what it is in bold, and the shapes below."""
        x, y = centre
        height = 2 * HALF
        self.axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=colour,
                edgecolor=LINE,
                linewidth=0.8,
            )
        )
        self.boxes.append((title, Bbox.from_bounds(x - width / 2, y - height / 2, width, height)))
        self.axes.text(x, y + 0.16, title, ha="center", va="center", fontsize=FONT, fontweight="bold")
        for number, line in enumerate(lines.splitlines()):  # one text a line: an SVG centres each by itself
            self.axes.text(x, y - 0.02 - 0.14 * number, line, ha="center", va="center", fontsize=FONT)

    def arrow(self, *points: Point, dashed: bool = False, head: bool = True) -> None:
        """A line through points, with its head at the last."""
        style: Any = {"color": LINE, "linewidth": 1.1, "linestyle": (0, (4, 2)) if dashed else "-"}
        self.axes.plot([x for x, _ in points], [y for _, y in points], **style, solid_capstyle="butt")
        if head:
            self.axes.annotate(
                "",
                xy=points[-1],
                xytext=points[-2],
                arrowprops={"arrowstyle": "-|>", "color": LINE, "linewidth": 0, "shrinkA": 0, "shrinkB": 0},
            )

    def say(self, at: Point, text: str, *, align: str = "center") -> None:
        """Words beside an arrow."""
        self.axes.text(*at, text, ha=align, va="center", fontsize=FONT, style="italic", color="#333333")

    def overlaps(self) -> list[tuple[str, str]]:
        """Pairs of texts, or of boxes, that lie on each other, and what leaves the picture (beside an empty text)."""
        renderer = self.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        to_inches = self.axes.transData.inverted()
        texts = [(text.get_text(), text.get_window_extent(renderer)) for text in self.axes.texts if text.get_text()]
        placed = [(words, Bbox(to_inches.transform(extent))) for words, extent in texts]
        frame = Bbox.from_bounds(0, 0, *self.figure.get_size_inches())
        found = [(words, "") for words, box in [*placed, *self.boxes] if not _inside(box, frame)]
        for kind in (placed, self.boxes):
            for number, (first, box) in enumerate(kind):
                found += [(first, second) for second, other in kind[number + 1 :] if box.overlaps(other)]
        for words, box in placed:  # a text crosses no edge of a box
            found += [(words, title) for title, edge in self.boxes if edge.overlaps(box) and not _inside(box, edge)]
        return found

    def save(self, path: Path) -> None:
        """Write an SVG that is the same each time and keeps its words as text, or what else the ending says."""
        metadata: Any = {"Date": None} if path.suffix == ".svg" else {}
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "networks"}):
            self.figure.savefig(path, metadata=metadata, dpi=110)


# --- encoder and decoder, level by level ------------------------------------------------------------------------------

ROW = 1.12
LEFT, MIDDLE, RIGHT = 2.0, 4.6, 7.2


def ladder(name: str, *, down: str, up: str, skip: str, bottom: str) -> Picture:
    """A U: down on the left, up on the right, and what crosses between them on each level."""
    model = Model(name)
    levels = model.count("encoder")
    picture = Picture(9.2, ROW * levels + 1.45)
    heights = [ROW * (levels - level) + 0.75 for level in range(levels)]
    gates = model.count("gates") if hasattr(model.networks[2], "gates") else 0
    picture.box((0.65, heights[0]), "image", model.lines("image"), DATA, width=0.95)
    picture.arrow((1.13, heights[0]), (LEFT - 0.65, heights[0]))
    for level, y in enumerate(heights):
        picture.box((LEFT, y), f"encoder {level}", model.lines(f"encoder.{level}"), ENCODER)
        picture.box((RIGHT, y), f"decoder {level}", model.lines(f"decoder.{levels - 1 - level}"), DECODER)
        gate = levels - 1 - level  # gates are listed coarsest first; the finest level has none
        start = LEFT + 0.65
        if gates and gate < gates:
            picture.box((MIDDLE, y), "gate", model.lines(f"gates.{gate}"), CONTEXT, width=1.0)
            picture.arrow((start, y), (MIDDLE - 0.5, y))
            if level + 1 < levels:  # what the coarser decoder gives, before it is up-sampled
                branch = heights[level + 1] + HALF + 0.14
                picture.arrow((RIGHT, branch), (MIDDLE, branch), (MIDDLE, y - HALF), dashed=True)
            else:
                picture.arrow((MIDDLE, 0.75 + HALF), (MIDDLE, y - HALF), dashed=True)
            start = MIDDLE + 0.5
        picture.arrow((start, y), (RIGHT - 0.65, y), dashed=name == "segnet")
        picture.say(((start + RIGHT - 0.65) / 2, y + 0.11), "multiply, concatenate" if start > MIDDLE else skip)
        if level + 1 < levels:
            middle = (y + heights[level + 1]) / 2
            picture.arrow((LEFT, y - HALF), (LEFT, heights[level + 1] + HALF))
            picture.say((LEFT - 0.12, middle), down, align="right")
            picture.arrow((RIGHT, heights[level + 1] + HALF), (RIGHT, y - HALF))
            picture.say((RIGHT + 0.12, middle), up, align="left")
    picture.box((MIDDLE, 0.75), bottom, model.lines("bottleneck" if bottom == "bottleneck" else "pool"), CONTEXT)
    picture.arrow((LEFT, heights[-1] - HALF), (LEFT, 0.75), (MIDDLE - 0.65, 0.75))
    picture.say((LEFT - 0.12, (heights[-1] + 0.75) / 2), down, align="right")
    picture.arrow((MIDDLE + 0.65, 0.75), (RIGHT, 0.75), (RIGHT, heights[-1] - HALF))
    picture.say((RIGHT + 0.12, (heights[-1] + 0.75) / 2), up, align="left")
    picture.box((8.55, heights[0]), "logits", model.lines("head"), DATA, width=0.9)
    picture.arrow((RIGHT + 0.65, heights[0]), (8.1, heights[0]))
    legend(picture, dashed={"attention_unet": "gating signal", "segnet": "positions of maxima"}.get(name))
    return picture


def legend(picture: Picture, *, dashed: str | None = None) -> None:
    """How to read the boxes."""
    words = "channels @ side of the grid: 2D above, 3D below"
    picture.say((0.2, 0.2), words + (f"; dashed: {dashed}" if dashed else ""), align="left")


# --- residual encoder, context, and back ------------------------------------------------------------------------------

COLUMNS = tuple(0.8 + 1.6 * number for number in range(6))


def encoder_row(picture: Picture, model: Model, y: float) -> None:
    """Image, stem and the four stages, from left to right."""
    picture.box((COLUMNS[0], y), "image", model.lines("image"), DATA, width=1.0)
    picture.box((COLUMNS[1], y), "stem", model.lines("encoder.stem"), ENCODER, width=1.2)
    picture.arrow((COLUMNS[0] + 0.5, y), (COLUMNS[1] - 0.6, y))
    for stage in range(4):
        x = COLUMNS[stage + 2]
        picture.box((x, y), f"stage {stage + 1}", model.lines(f"encoder.stages.{stage}"), ENCODER, width=1.2)
        picture.arrow((COLUMNS[stage + 1] + 0.6, y), (x - 0.6, y))


def fan(picture: Picture, boxes: Sequence[tuple[float, str, str]], *, top: float, y: float, bottom: float) -> None:
    """Branches side by side: from one line above them into one below."""
    source = COLUMNS[5]
    left, right = boxes[0][0], boxes[-1][0]
    picture.arrow((source, top), (source, y + 0.55), head=False)
    picture.arrow((left, y + 0.55), (max(right, source), y + 0.55), head=False)
    for x, title, lines in boxes:
        picture.arrow((x, y + 0.55), (x, y + HALF))
        picture.box((x, y), title, lines, CONTEXT, width=1.1)
        picture.arrow((x, y - HALF), (x, y - 0.5), head=False)
    picture.arrow((left, y - 0.5), (right, y - 0.5), head=False)
    picture.arrow(((left + right) / 2, y - 0.5), ((left + right) / 2, bottom))


def dilation(model: Model, dims: int, path: str) -> int:
    """The dilation of a convolution."""
    value = model.networks[dims].get_submodule(path).dilation
    assert isinstance(value, tuple)
    return int(value[0])


def deeplab(name: str) -> Picture:
    """Atrous pyramid on the coarse grid, outline from stage 1."""
    model = Model(name)
    picture = Picture(10.4, 5.1)
    encoder_row(picture, model, 4.6)
    branches = model.count("pyramid.branches")
    spread = [4.85 + 1.2 * number for number in range(branches + 1)]
    boxes = [(spread[0], "1x1", model.lines("pyramid.branches.0"))]
    for number in range(1, branches):
        path = f"pyramid.branches.{number}"
        rates = {dims: dilation(model, dims, f"{path}.0") for dims in SIDES}
        boxes.append((spread[number], f"rate {rates[2]} (3D: {rates[3]})", model.lines(path)))
    boxes.append((spread[-1], "image mean", model.lines("pyramid.whole")))
    middle = (spread[0] + spread[-1]) / 2
    fan(picture, boxes, top=4.6 - HALF, y=3.35, bottom=2.1 + HALF)
    picture.say((middle + 0.12, 2.62), "concatenate", align="left")
    picture.box((middle, 2.1), "join, 1x1", model.lines("pyramid.join"), CONTEXT)
    detail = COLUMNS[2]
    picture.arrow((detail, 4.6 - HALF), (detail, 2.1 + HALF))
    picture.box((detail, 2.1), "detail, 1x1", model.lines("detail"), DECODER, width=1.2)
    refine = (detail + middle) / 2
    picture.box((refine, 0.9), "refine, 2 x 3x3", model.lines("refine"), DECODER, width=1.5)
    picture.arrow((detail, 2.1 - HALF), (detail, 0.9), (refine - 0.75, 0.9))
    picture.arrow((middle, 2.1 - HALF), (middle, 0.9), (refine + 0.75, 0.9))
    picture.say((middle + 0.12, 1.4), "resize, concatenate", align="left")
    picture.box((0.8, 0.9), "logits", model.lines(""), DATA, width=1.0)
    picture.arrow((refine, 0.9 - HALF), (refine, 0.42), (0.8, 0.42), (0.8, 0.9 - HALF))
    picture.say((2.4, 0.53), "1x1 head, resize")
    legend(picture)
    return picture


def pspnet(name: str) -> Picture:
    """Means over the parts of the grid at several scales, joined with the grid itself."""
    model = Model(name)
    picture = Picture(9.6, 3.9)
    encoder_row(picture, model, 3.4)
    bins = model.networks[2].get_submodule("pyramid").bins
    spread = [8.8 - 1.2 * (4 - number) for number in range(5)]
    boxes = [(spread[0], "grid itself", model.lines("encoder.stages.3"))]
    for number, count in enumerate(bins):
        boxes.append((spread[number + 1], f"bins: {count}", model.lines(f"pyramid.branches.{number}.conv")))
    fan(picture, boxes, top=3.4 - HALF, y=2.15, bottom=0.95 + HALF)
    middle = (spread[0] + spread[-1]) / 2
    picture.say((middle + 0.12, 1.42), "resize, concatenate", align="left")
    picture.box((middle, 0.95), "join, 3x3", model.lines("join"), DECODER)
    picture.box((0.8, 0.95), "logits", model.lines(""), DATA, width=1.0)
    picture.arrow((middle - 0.65, 0.95), (1.3, 0.95))
    picture.say(((middle - 0.65 + 1.3) / 2, 1.07), "1x1 head, resize")
    legend(picture)
    return picture


DRAWINGS: dict[str, Callable[[], Picture]] = {
    "unet": lambda: ladder("unet", down="max pool", up="transposed conv", skip="concatenate", bottom="bottleneck"),
    "residual_unet": lambda: ladder(
        "residual_unet", down="strided unit", up="transposed conv", skip="concatenate", bottom="bottleneck"
    ),
    "attention_unet": lambda: ladder(
        "attention_unet", down="max pool", up="transposed conv", skip="concatenate", bottom="bottleneck"
    ),
    "segnet": lambda: ladder("segnet", down="max pool", up="unpool", skip="positions of the maxima", bottom="pooled"),
    "deeplabv3plus": lambda: deeplab("deeplabv3plus"),
    "pspnet": lambda: pspnet("pspnet"),
}
"""Name in ``NETWORKS`` to its drawing."""


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference/img")
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        DRAWINGS[name]().save(folder / f"{name}.svg")
        print(folder / f"{name}.svg")


if __name__ == "__main__":
    main()
