"""Whether a bundle is what others may expect of one: the checks of the model zoo, offline and in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from brats_pipeline.bundles.installed import bundle_path, weights_path
from brats_pipeline.bundles.paper_checks import (
    check_card,
    check_files,
    check_schemas,
    check_shared_ids,
    check_versions,
    check_weights,
    other_versions,
    stated_hashes,
)
from brats_pipeline.bundles.running_checks import check_network, check_torchscript, check_workflows, in_words
from brats_pipeline.bundles.subject import Subject, subject_of

CHECKS: dict[str, Callable[[Subject], Iterator[str]]] = {
    "files": check_files,
    "model card": check_card,
    "versions": check_versions,
    "schemas": check_schemas,
    "shared ids": check_shared_ids,
    "weights": check_weights,
    "network": check_network,
    "torchscript": check_torchscript,
    "workflows": check_workflows,
}
"""Name of each check to what it finds wrong, one sentence each; in this order."""


@dataclass
class Verification:
    """What was found.

    Args:
        bundle: its folder.
        problems: check to what is wrong, in sentences; a check that found nothing has none.
        notes: what is no fault, and worth knowing.
    """

    bundle: Path
    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.problems.values())


def verify_bundle(bundle: str | Path, *, weights: bool = False) -> Verification:
    """Check a bundle or run by the rules of the model zoo's ``ci/verify_bundle.py`` (regular, min and full), and more.

    The bundle's own code runs, in this process: of one from elsewhere make sure first (``bundle import``). Nothing is
    written into its folder, and nothing is downloaded.

    Args:
        bundle: name or folder.
        weights: whether it must have weights; without them random ones take their place and a note says so.

    Raises:
        PipelineError: there is no such bundle, or its metadata cannot be read.
    """
    root = bundle_path(bundle)
    found = Verification(root)
    with subject_of(root) as subject:
        if not subject.has_weights:
            _without_weights(subject, found, needed=weights)
        for name, check in CHECKS.items():
            sentences = found.problems.setdefault(name, [])
            try:
                sentences += check(subject)
            except Exception as error:
                sentences.append(f"could not be done: {in_words(error)}")
    found.notes += dict.fromkeys(other_versions(subject.metadata))
    return found


def _without_weights(subject: Subject, found: Verification, *, needed: bool) -> None:
    """Say that there are none, and let the checks run with random ones."""
    import torch

    absent = "models/model.pt is missing"
    if needed:
        found.problems["weights"] = [f"{absent}; train the bundle, or leave out --weights"]
    else:
        found.notes.append(f"{absent}: everything was checked with random weights instead")
    if stated_hashes(subject.root):
        found.notes.append("docs/README.md tells a sha256 of weights that are not there")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.save(subject.network().state_dict(), weights_path(subject.copy))
    except Exception:  # the check of the network says what is wrong
        pass
