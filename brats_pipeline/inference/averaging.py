"""Several answers about one case and their mean: checkpoints of one network, and mirror images of the scan.

What is averaged are probabilities, and what comes out is the logit of their mean: thresholds on logits and sigmoids
behind the inferer find what they would find behind a single network. Mirror images as nnU-Net (Isensee et al. 2021).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.inferers import SliceInferer
from brats_pipeline.weights import load_weights
from transforms.uncertainty import MemberPool

ALL_AXES = "all"
Weights = Sequence[float | Sequence[float]]


class CheckpointEnsemble(nn.Module):
    """Several networks of one kind, all of them kept in memory; what they say is averaged.

    :class:`EnsembleInferer` runs the members one after another over the whole scan. Called as a network it gives the
    mean for the input at hand, so that any inferer can use it.

    Args:
        members: at least one network.

    Attributes:
        stride: the number that every side of an input must be a multiple of; 1 where the members do not say.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble of no network; give at least one")
        self.members = nn.ModuleList(members)
        stride = getattr(members[0], "stride", 1)
        self.stride = stride if isinstance(stride, int) else 1

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the mean probability: ``(N, C, *spatial)`` to ``(N, R, *spatial)``."""
        pool = MemberPool()
        for member in self.members:
            pool.add(member(image).float().sigmoid())
        return pool.logits()


def load_members(network: nn.Module, checkpoints: str | Path | Sequence[str | Path]) -> nn.Module:
    """Put weights into a network; made to be named in a bundle's YAML.

    Args:
        network: gets the weights, or those of the first file.
        checkpoints: one file of weights; or several for this network, such as those of a study's folds.

    Returns:
        The network; for several files a :class:`CheckpointEnsemble` of it and of copies of it.

    Raises:
        PipelineError: no file is named, one is named twice, or weights do not fit.
    """
    if isinstance(checkpoints, str | Path):
        return load_weights(network, checkpoints)
    paths = [Path(path) for path in checkpoints]
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        named = ", ".join(map(str, paths)) or "none"
        raise PipelineError(f"the checkpoints of an ensemble are {named}; give at least one, and each once")
    networks = [network, *(copy.deepcopy(network) for _ in paths[1:])]
    members = [load_weights(member, path) for member, path in zip(networks, paths, strict=True)]
    return members[0] if len(members) == 1 else CheckpointEnsemble(members)


def mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every choice of the axes, the empty one first: ``[0, 2]`` to ``(), (0,), (2,), (0, 2)``."""
    return [chosen for count in range(len(axes) + 1) for chosen in itertools.combinations(axes, count)]


class EnsembleInferer(Inferer):
    """The mean of the probabilities of every checkpoint and every mirror image, as its logit.

    With one network and no mirror image it is the inferer it wraps, to the bit.

    Args:
        inferer: runs one network over one image, and gives logits.
        flips: axes of the image; the scan is mirrored along every choice of them, so that n axes make 2^n members.
            ``all``: every axis that the inferer looks along: x, y and z; x and y for :class:`SliceInferer`.
        weights: of each checkpoint, one number for all regions or one for each in the order of the channels; by default
            all count alike. Only their ratios matter. Mirror images of one checkpoint count alike.
        spread: also tell how far the members are apart, see :meth:`transforms.uncertainty.MemberPool.logits`.
        batch: mirror images that are handed to the inferer at a time, which costs memory; by default all of them on a
            GPU, one on a CPU. Slices of all of them fill its batches, and so do images that fit into one window.

    Raises:
        ValueError: axes that cannot be meant, or weights that are not one per checkpoint.
    """

    def __init__(
        self,
        inferer: Inferer,
        *,
        flips: str | Sequence[int] = (),
        weights: Weights | None = None,
        spread: bool = False,
        batch: int | None = None,
    ) -> None:
        in_plane = isinstance(inferer, SliceInferer)
        if flips != ALL_AXES:
            known = (0, 1) if in_plane else (0, 1, 2)
            if isinstance(flips, str) or not set(flips) <= set(known) or len(set(flips)) < len(flips):
                which = "a network of slices does not look along z; " if in_plane else ""
                raise ValueError(f"flips are {flips!r}; {which}give all, or some of {list(known)}, each once")
        if batch is not None and batch < 1:
            raise ValueError(f"batch is {batch}; it must be at least 1")
        self.inferer = inferer
        self.flips = flips
        self.weights = weights
        self.spread = spread
        self.batch = batch
        self._in_plane = in_plane

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Logits ``(N, R, *spatial)``, or ``(N, 4 * R, *spatial)`` with ``spread``, with the metadata of the input."""
        networks: list[Callable[..., Any]] = (
            list(network.members) if isinstance(network, CheckpointEnsemble) else [network]
        )
        weights = [1.0] * len(networks) if self.weights is None else list(self.weights)
        if len(weights) != len(networks):
            raise ValueError(f"{len(weights)} weights for {len(networks)} checkpoints; give one for each")
        images = self.mirrored(inputs)
        if len(networks) * len(images) == 1 and not self.spread:
            return self.inferer(inputs, networks[0], *args, **kwargs)  # type: ignore[no-any-return]
        pool = MemberPool(spread=self.spread)
        for member, weight in zip(networks, weights, strict=True):
            for logits in self._of(inputs, member, images, *args, **kwargs):
                pool.add(logits.float().sigmoid_(), weight)
        pooled = pool.logits()
        return MetaTensor(pooled, meta=inputs.meta) if isinstance(inputs, MetaTensor) else pooled

    def mirrored(self, inputs: Tensor) -> list[tuple[int, ...]]:
        """The axes of ``inputs`` that each of its mirror images is turned along, itself first."""
        return mirrorings(self._axes(inputs.dim() - 2))

    def _axes(self, axes: int) -> list[int]:
        if self.flips == ALL_AXES:
            return list(range(2 if self._in_plane else axes))
        chosen = sorted(int(axis) for axis in self.flips)
        if chosen and chosen[-1] >= axes:
            raise ValueError(f"flips are {chosen} for an image of {axes} axes; leave out what is not there")
        return chosen

    def _of(
        self, inputs: Tensor, network: Callable[..., Any], images: Sequence[tuple[int, ...]], *args: Any, **kwargs: Any
    ) -> Iterator[Tensor]:
        """Logits of one network for each mirror image, turned back."""
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        inferer = self._in_logits()
        size = self.batch or (len(images) if plain.device.type == "cuda" else 1)
        for first in range(0, len(images), size):
            dims = [[2 + axis for axis in chosen] for chosen in images[first : first + size]]
            stack = torch.cat([plain.flip(turned) if turned else plain for turned in dims])
            logits = inferer(stack, network, *args, **kwargs)
            if not logits.is_floating_point():
                raise ValueError("the inferer gives regions, of which there is no mean; let it keep logits")
            for turned, part in zip(dims, logits.split(len(plain)), strict=True):
                yield part.flip(turned) if turned else part.clone()

    def _in_logits(self) -> Inferer:
        """The inferer, told to keep logits where it would reduce them to regions."""
        if getattr(self.inferer, "reduce", "logits") == "logits":
            return self.inferer
        other = copy.copy(self.inferer)
        other.reduce = "logits"  # type: ignore[attr-defined]
        return other
