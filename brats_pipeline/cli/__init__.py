"""The command line: parse, call one function of the library, print what came of it."""

from brats_pipeline.cli.main import run

__all__ = ["run"]
