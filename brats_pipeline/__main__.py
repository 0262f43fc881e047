"""The door: runs the command line and turns every outcome into an exit code.

0 done; 1 finished, but some cases failed; 2 the request or the data cannot be used; 130 interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``brats-pipeline`` and of ``python -m brats_pipeline``."""
    from brats_pipeline.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
