"""Every property that MONAI knows of a training is in the configuration, and referred to where MONAI looks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from monai.bundle.properties import TrainProperties
from monai.utils import BundleProperty, BundlePropertyConfig

from brats_pipeline.bundles import list_bundles

OF_OTHER_NAMES = {"validator", "interval"}
"""Properties that are referred to by a handler's argument of this name, wherever the handler stands."""


def values(config: object, name: str) -> list[object]:
    """What stands under a name, anywhere."""
    if isinstance(config, dict):
        found = [config[name]] if name in config else []
        return found + [value for part in config.values() for value in values(part, name)]
    return [value for part in config for value in values(part, name)] if isinstance(config, list) else []


@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda path: path.name)
@pytest.mark.parametrize("name", sorted(TrainProperties))
def test_a_training_has_the_property(bundle: Path, name: str) -> None:
    described = TrainProperties[name]
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.yaml"))
    wanted = described[BundlePropertyConfig.ID]
    assert wanted in parser, f"{name} ({described[BundleProperty.DESC]})"
    place = described.get(BundlePropertyConfig.REF_ID)
    if place in OF_OTHER_NAMES:
        assert f"@{wanted}" in values(parser.get(), place)
    elif place is not None and name != "network_def":
        reference = parser.get(place)
        assert reference == f"@{wanted}" or str(reference).startswith("$")
