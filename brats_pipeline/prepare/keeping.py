"""A folder that is whole or absent: it is filled under a hidden name beside its place, then renamed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brats_pipeline.errors import PipelineError
from brats_pipeline.locking import CLAIM, claimed

RECORD = "prepare.json"
PREVIEW = "preview.png"


def _sweep(out: Path) -> None:
    """Take away what killed processes left beside a folder; living ones hold a claim on theirs."""
    for left in out.parent.glob(f".{out.name}.part-*"):
        with claimed(left) as free:
            if free:
                shutil.rmtree(left, ignore_errors=True)


def _is_free(out: Path) -> bool:
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def _refuse_others(out: Path) -> None:
    """Refuse to replace what is not a prepared case and nothing else.

    Raises:
        PipelineError: there is no record of ours, or a file lies there that it does not name.
    """
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        matches = [*record["registration"].values(), *([record["atlas"]] if record["atlas"] else [])]
        ours = {RECORD, PREVIEW, *record["outputs"], *(each["transform"] for each in matches)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipelineError(f"{out}: is there already and no prepared case; give another place with --out") from error
    files = [path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()]
    if others := sorted({path.relative_to(out).as_posix() for path in files} - ours):
        some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise PipelineError(
            f"{out}: holds {some}, which prepare did not write and would remove; move it away, or give another place "
            "with --out"
        )


@contextmanager
def whole_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``out`` when the block ends well, and vanishes when it does not.

    Raises:
        PipelineError: ``out`` is there already (without ``overwrite``, or as something else than a prepared case and
            what belongs to it), or its parent cannot be written.
    """
    if not _is_free(out):
        _refuse_others(out)
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
                    if not _is_free(out):
                        _refuse_others(out)  # what came while the case was prepared
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
