"""A bundle out of a ZIP file or a folder of unknown origin, into a new folder and nowhere else."""

from __future__ import annotations

import re
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from brats_pipeline.errors import PipelineError

MAX_FILES = 5_000
MAX_BYTES = 4 * 2**30
MAX_RATIO = 200
"""Unpacked bytes for each packed one: text packs by tens, a bomb by a thousand."""
RATIO_FREE_BYTES = 2**20
"""Files below this size may pack as well as they like."""
CHUNK_BYTES = 2**20
ENCRYPTED = 0x1

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def unpack(source: Path, target: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Put the files of a bundle into ``target``, which must be new.

    Args:
        source: a ZIP file or a folder.
        target: is made; on an error what was put there stays for the caller to remove.
        max_bytes: of all files together.

    Raises:
        PipelineError: a name leads out of the bundle or means two files somewhere; a member is neither file nor
            folder; there is too much; or ``source`` is damaged.
    """
    target.mkdir(parents=True)
    if source.is_dir():
        _copy(source, target, max_bytes)
    else:
        _extract(source, target, max_bytes)


def check_names(names: Iterable[str]) -> None:
    """Refuse names that lead elsewhere, or that some file system takes for one another.

    Raises:
        PipelineError: names the first such name.
    """
    seen: dict[str, str] = {}
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        parts = name.rstrip("/").split("/")
        if reason := next((reason for part in parts if (reason := _part_fault(part))), None):
            raise PipelineError(f"member {name!r} {reason}; such an archive is never unpacked")
        folded = unicodedata.normalize("NFKC", name.rstrip("/")).casefold()
        if folded in seen:
            raise PipelineError(
                f"members {seen[folded]!r} and {name!r} have one name, on some file systems at least; such an archive "
                "is never unpacked"
            )
        seen[folded] = name
        (folders if name.endswith("/") else files).add(folded)
        folders |= {str(parent) for parent in PurePosixPath(folded).parents}
    if both := files & folders:
        raise PipelineError(f"member {seen[min(both)]!r} is a file and a folder; such an archive is never unpacked")


def _part_fault(part: str) -> str | None:
    if part in ("", ".", ".."):
        return "leads out of the bundle, or has an empty part in its name"
    if any(character in part for character in '\\:*?"<>|') or not part.isprintable():
        return "has a character in its name that leads elsewhere on some systems"
    if _RESERVED.fullmatch(part) or part[-1] in ". " or part[0] == " ":
        return "has a name that means something else on some systems"
    return None


def _extract(source: Path, target: Path, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            _check_members(members, max_bytes)
            left = max_bytes
            for member in members:
                path = target.joinpath(*member.filename.rstrip("/").split("/"))
                if member.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, path.open("xb") as file:
                    while chunk := packed.read(CHUNK_BYTES):
                        left -= len(chunk)
                        if left < 0:
                            raise PipelineError(f"it unpacks to more than {max_bytes} bytes; a bomb is not unpacked")
                        file.write(chunk)
    except PipelineError:
        raise
    except OSError as error:
        raise PipelineError(f"it cannot be unpacked ({error.strerror or error})") from error
    except Exception as error:  # of zipfile, and of each of the ways to pack
        raise PipelineError(f"it is no ZIP file that can be read ({error}); copy or download it again") from error


def _check_members(members: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(members) > MAX_FILES:
        raise PipelineError(f"it has {len(members)} members, more than {MAX_FILES}; a bomb is not unpacked")
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
            what = "a symbolic link" if kind == stat.S_IFLNK else "neither file nor folder"
            raise PipelineError(f"member {member.filename!r} is {what}; such an archive is never unpacked")
        if member.flag_bits & ENCRYPTED:
            raise PipelineError(f"member {member.filename!r} is encrypted; ask for an archive without a password")
        if member.orig_filename != member.filename:
            raise PipelineError(f"member {member.orig_filename!r} has a name that ends early; it is never unpacked")
        if member.file_size > max(RATIO_FREE_BYTES, MAX_RATIO * member.compress_size):
            raise PipelineError(
                f"member {member.filename!r} unpacks from {member.compress_size} to {member.file_size} bytes, more "
                f"than {MAX_RATIO} times as much; a bomb is not unpacked"
            )
    check_names(member.filename for member in members)
    if (total := sum(member.file_size for member in members)) > max_bytes:
        raise PipelineError(f"it unpacks to {total} bytes, more than {max_bytes}; a bomb is not unpacked")


def _copy(source: Path, target: Path, max_bytes: int) -> None:
    found: dict[str, Path] = {}
    total = 0
    folders = [source]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            mode = path.lstat().st_mode
            name = path.relative_to(source).as_posix()
            if stat.S_ISDIR(mode):
                folders.append(path)
                name += "/"
            elif not stat.S_ISREG(mode):
                what = "a symbolic link" if stat.S_ISLNK(mode) else "neither file nor folder"
                raise PipelineError(f"{name} is {what}; such a bundle is never taken over")
            found[name] = path
            total += 0 if stat.S_ISDIR(mode) else path.lstat().st_size
            if len(found) > MAX_FILES or total > max_bytes:
                raise PipelineError(f"it holds more than {MAX_FILES} files or {max_bytes} bytes; this is no bundle")
    check_names(found)
    for name, path in found.items():
        copy = target / name
        if name.endswith("/"):
            copy.mkdir(parents=True, exist_ok=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy, follow_symlinks=False)
