"""The weights of a run as those that a bundle comes with: in half the bytes, under a licence, with what suits them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from brats_pipeline.bundles.installed import WEIGHTS, bundle_path, read_metadata, weights_path
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256, write_atomically
from brats_pipeline.overlays import TUNED
from brats_pipeline.weights import read_checkpoint, write_checkpoint

LARGEST = 25_000_000
"""Bytes that the model zoo allows a file."""
STATED = re.compile(r"sha256 `[0-9a-f]{64}`")
"""How a model card states the hash of the weights."""


def ship_weights(run: str | Path, bundle: str | Path, *, licence: str) -> Path:
    """Put the weights of a run into the bundle that it was trained from.

    Floating-point numbers are stored as float16; a network takes them back into its own format. What was made for these
    weights (post-processing, calibration, fingerprint) goes along, the metadata gets hash and licence, and the model
    card the hash, where it says ``sha256 `...```.

    Args:
        run: name or folder of the run.
        bundle: name or folder of the bundle.
        licence: the terms that the weights stand under, in a few words.

    Returns:
        The file of weights.

    Raises:
        PipelineError: there are none, one of them is too large for float16, or the file would be above 25 MB; then the
            bundle stays as it was.
    """
    source, target = bundle_path(run), bundle_path(bundle)
    halved = {}
    for name, value in read_checkpoint(weights_path(source)).items():
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        halved[name] = value.half() if floating else value
        if floating and not bool(torch.isfinite(halved[name]).all()):
            raise PipelineError(f"{weights_path(source)}: {name} holds numbers that float16 has not; ship float32")
    size = sum(value.numel() * value.element_size() for value in halved.values() if isinstance(value, torch.Tensor))
    if size > LARGEST:
        raise PipelineError(f"{source}: weights of {size / 1e6:.1f} MB, at most {LARGEST / 1e6:.0f} go into a bundle")
    path = weights_path(target)
    write_checkpoint(path, halved)
    sha256 = file_sha256(path)
    for name in TUNED:
        (target / "configs" / name).unlink(missing_ok=True)  # it suited other weights
        if (source / "configs" / name).is_file():
            write_atomically(target / "configs" / name, (source / "configs" / name).read_bytes())
    metadata = read_metadata(target) | {WEIGHTS: {"sha256": sha256, "licence": licence}}
    text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
    write_atomically(target / "configs" / "metadata.json", text)
    card = target / "docs" / "README.md"
    write_atomically(card, STATED.sub(f"sha256 `{sha256}`", card.read_text(encoding="utf-8")))
    return path
