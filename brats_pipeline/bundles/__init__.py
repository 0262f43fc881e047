"""Bundles: where they lie, how their configuration runs, and how it is frozen into a run."""

from brats_pipeline.bundles.freezing import WHOLE_CONFIGS, freeze_bundle
from brats_pipeline.bundles.installed import (
    bundle_for,
    bundle_path,
    bundles_folder,
    list_bundles,
    network_overlay,
    read_metadata,
    wanted_modalities,
    weights_licence,
    weights_path,
    written_regions,
)
from brats_pipeline.bundles.workflow import open_workflow, plain_errors, refuse_unknown_ids

__all__ = [
    "WHOLE_CONFIGS",
    "bundle_for",
    "bundle_path",
    "bundles_folder",
    "freeze_bundle",
    "list_bundles",
    "network_overlay",
    "open_workflow",
    "plain_errors",
    "read_metadata",
    "refuse_unknown_ids",
    "wanted_modalities",
    "weights_licence",
    "weights_path",
    "written_regions",
]
