"""SHA-256 sums of a bundle's files, in the form that ``sha256sum --check`` reads.

They tell that nothing was lost or changed on the way. They do not tell who made the bundle: whoever changes a file can
write its sum, too.
"""

from __future__ import annotations

import re
from pathlib import Path

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256, write_atomically

SUMS = "SHA256SUMS"


def files_of(bundle: Path) -> dict[str, Path]:
    """Name below the bundle, with ``/``, to path, for every file but the sums themselves."""
    paths = sorted(path for path in bundle.rglob("*") if path.is_file())
    return {name: path for path in paths if (name := path.relative_to(bundle).as_posix()) != SUMS}


def write_sums(bundle: Path) -> None:
    """Write the sums of every file of a bundle into its folder."""
    lines = [f"{file_sha256(path)}  {name}\n" for name, path in files_of(bundle).items()]
    write_atomically(bundle / SUMS, "".join(lines))


def check_sums(bundle: Path) -> bool:
    """Whether a bundle has sums; each is compared.

    Raises:
        PipelineError: a file differs from its sum, is missing, or has none; or the sums cannot be read.
    """
    sums = bundle / SUMS
    if not sums.is_file():
        return False
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise PipelineError(f"{SUMS} cannot be read as text ({error}); ask for the bundle again") from error
    matches = [re.fullmatch(r"([0-9a-f]{64}) [ *](\S.*)", line) for line in lines if line]
    told = {match[2]: match[1] for match in matches if match}
    if None in matches or len(told) < len(matches) or not all(map(str.isprintable, told)):
        raise PipelineError(
            f"{SUMS} is damaged: each line must be 64 digits, two spaces and a name, once; ask for the bundle again"
        )
    found = files_of(bundle)
    wrong = [f"{name} is missing" for name in told if name not in found]
    wrong += [f"{name} has no sum" for name in found if name not in told]
    wrong += [
        f"{name} has other bytes than its sum tells"
        for name, path in found.items()
        if name in told and file_sha256(path) != told[name]
    ]
    if wrong:
        raise PipelineError(f"{SUMS}: {'; '.join(wrong[:5])}; the bundle was changed or damaged: ask for it again")
    return True
