"""Which engine a test is run with."""

from __future__ import annotations

import os

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``engine`` with onnxruntime, or with what ``BRATS_PIPELINE_ENGINE`` names.

    OpenVINO has a process of its own (test_openvino.py): loaded beside torch's and onnxruntime's threads it brings down
    processes that later tests start.
    """
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", [os.environ.get("BRATS_PIPELINE_ENGINE", "onnxruntime")])
