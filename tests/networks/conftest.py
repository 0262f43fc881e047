import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def smp():
    """segmentation_models_pytorch, as an oracle.

    It imports torchvision, and a torchvision built for CUDA cannot load its operators beside a torch built for the CPU.
    Nothing here calls them, so their names are declared in its place.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        declarations = torch.library.Library("torchvision", "FRAGMENT")
        for name in _operators():
            declarations.define(f"{name}(Tensor unused) -> Tensor")
        yield importlib.import_module("segmentation_models_pytorch")
        return
    yield importlib.import_module("segmentation_models_pytorch")


def _operators():
    folder = Path(importlib.util.find_spec("torchvision").submodule_search_locations[0])
    return re.findall(r'register_fake\("torchvision::(\w+)"', (folder / "_meta_registrations.py").read_text("utf-8"))
