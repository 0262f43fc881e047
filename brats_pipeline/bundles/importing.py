"""Taking over a bundle from elsewhere: unpacked safely, compared with its sums, and read before anything of it runs."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from brats_pipeline.bundles.installed import read_metadata
from brats_pipeline.bundles.linting import Finding, lint_bundle, printable
from brats_pipeline.bundles.scripts import own_scripts
from brats_pipeline.bundles.sums import check_sums
from brats_pipeline.bundles.unpacking import MAX_BYTES, unpack
from brats_pipeline.errors import PipelineError

LISTED = 20


@dataclass(frozen=True)
class Imported:
    """What became of an import.

    Args:
        path: where the bundle lies now.
        hashed: whether it came with sums, which all hold.
        trusted: what was let through on the word of the person.
    """

    path: Path
    hashed: bool
    trusted: list[Finding]


def import_bundle(
    source: Path, out: Path | None = None, *, trust: bool = False, max_bytes: int = MAX_BYTES
) -> Imported:
    """Take over a bundle from a ZIP file or a folder.

    Args:
        source: the file or folder; it is not changed.
        out: the new folder; by default the bundle's name in the current folder.
        trust: take over what is not known to be harmless, too. Archives that lead out of their folder, files that
            differ from their sums, and weights that are more than weights are refused all the same.
        max_bytes: of all files, unpacked.

    Raises:
        PipelineError: says everything that speaks against it; then nothing is written.
    """
    if not source.exists():
        raise PipelineError(f"{source}: there is no such file or folder; give a bundle as a ZIP file or a folder")
    if out is not None:
        _refuse_existing(out)
    home = (out.parent if out is not None else Path()).resolve()
    absent = [folder for folder in (home, *home.parents) if not folder.exists()]
    try:
        home.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=home, prefix=".import."))
    except OSError as error:
        raise PipelineError(f"{home}: cannot be written ({error.strerror or error}); choose another folder") from error
    try:
        try:
            unpack(source, work / "unpacked", max_bytes=max_bytes)
            bundle = _bundle_within(work / "unpacked")
            hashed = check_sums(bundle)
        except PipelineError as error:
            raise PipelineError(f"{source} is refused: {error}") from error
        name = source.resolve().name if source.is_dir() else source.stem
        target = out if out is not None else home / (name if bundle == work / "unpacked" else bundle.name)
        _refuse_existing(target)
        findings = lint_bundle(bundle, package=own_scripts(bundle))
        if not any(finding.final and finding.file == "configs/metadata.json" for finding in findings):
            read_metadata(bundle)
        _refuse(source, findings, hashed=hashed, trust=trust)
        bundle.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):  # where the bundle lies now, or something else
            for folder in absent:
                folder.rmdir()
    return Imported(target, hashed, findings)


def _bundle_within(folder: Path) -> Path:
    """The bundle in what was unpacked: the folder itself, or the only one in it."""
    if (folder / "configs" / "metadata.json").is_file():
        return folder
    inner = list(folder.iterdir())
    if len(inner) == 1 and (inner[0] / "configs" / "metadata.json").is_file():
        return inner[0]
    raise PipelineError("it is no bundle: there is no configs/metadata.json in it, or in the only folder in it")


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise PipelineError(f"{target}: exists already, and is not overwritten; choose another folder with -o")


def _refuse(source: Path, findings: list[Finding], *, hashed: bool, trust: bool) -> None:
    """Say everything that speaks against a bundle at once."""
    final = [finding for finding in findings if finding.final]
    if not final and (trust or (hashed and not findings)):
        return
    reasons = _gathered(final or findings)
    if not final and not hashed:
        reasons.append("there is no SHA256SUMS: whether anything was lost or changed on the way cannot be told")
    shown = "".join(f"\n  {reason}" for reason in reasons[:LISTED])
    more = len(reasons) - LISTED
    advice = (
        "Such files are never taken over; ask for the bundle again."
        if final
        else "Read these places; if you know who made the bundle and what they do, give --trust. Nothing was executed."
    )
    raise PipelineError(f"{source} is refused:{shown}{f'{chr(10)}  and {more} more' if more > 0 else ''}\n{advice}")


def _gathered(findings: list[Finding]) -> list[str]:
    """Each finding in words; of many files of one folder that are found for one reason, the first."""
    together: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        folder, inside, _ = finding.file.partition("/")
        group = (folder if inside and not finding.place else f"{finding.file} {finding.place}", finding.reason)
        together.setdefault(group, []).append(finding)
    return [
        f"{group[0].file} and {len(group) - 1} more below {folder}/: {printable(reason)}"
        if len(group) > 1
        else str(group[0])
        for (folder, reason), group in together.items()
    ]
