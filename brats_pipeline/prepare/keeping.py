"""A folder that is whole or absent: it is filled under a hidden name beside its place, then renamed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brats_pipeline.errors import PipelineError
from brats_pipeline.locking import CLAIM, claimed

RECORD = "prepare.json"


def _sweep(out: Path) -> None:
    """Take away what killed processes left beside a folder; living ones hold a claim on theirs."""
    for left in out.parent.glob(f".{out.name}.part-*"):
        with claimed(left) as free:
            if free:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def whole_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``out`` when the block ends well, and vanishes when it does not.

    Raises:
        PipelineError: ``out`` is there already (without ``overwrite``, or as something that is no prepared case), or
            its parent cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not out.is_dir() or not (out / RECORD).is_file():
            raise PipelineError(f"{out}: is there already and no prepared case; give another place with --out")
        if not overwrite:
            raise PipelineError(f"{out}: is there already; give --overwrite to prepare the case again")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.part-"))
    except OSError as error:
        raise PipelineError(
            f"{out}: cannot be written ({error.strerror or error}); check the path, the folder's rights and the disk"
        ) from error
    try:
        with claimed(part):
            yield part
            try:
                (part / CLAIM).unlink(missing_ok=True)
                part.chmod(out.parent.stat().st_mode & 0o777)
                if out.exists():
                    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.part-"))
                    out.replace(old)
                    part.replace(out)
                    shutil.rmtree(old, ignore_errors=True)
                else:
                    part.replace(out)
            except OSError as error:
                raise PipelineError(f"{out}: cannot be put in place ({error.strerror or error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
