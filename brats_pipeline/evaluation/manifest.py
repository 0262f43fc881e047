"""What a report was made from and by what: everything another person needs to make it again, and to check it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256, write_atomically

SCHEMA_VERSION = 1
NAME = "manifest.json"
PACKAGES = ("brats-pipeline", "numpy", "scipy", "nibabel", "connected-components-3d", "pandas", "matplotlib")


def versions() -> dict[str, str]:
    """Versions of what numbers come from."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """The machine in a few words; empty where the system does not tell."""
    gpus = [_said(path, "Model") for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    memory_kib = _said(Path("/proc/meminfo"), "MemTotal").split(" ")[0]
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": _said(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory_kib) / 2**20, 1) if memory_kib.isdigit() else None,
        "gpus": gpus,
    }


def _said(path: Path, name: str) -> str:
    """What the first line ``name: value`` of a system file says."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def hashed(files: Mapping[str, Sequence[Path]], *, start: Path) -> dict[str, dict[str, str]]:
    """Case id to the SHA-256 of each of its files, by the path relative to ``start``; files that are gone say so."""
    return {
        case_id: {relative(path, start): file_sha256(path) if path.is_file() else "absent" for path in paths}
        for case_id, paths in sorted(files.items())
    }


def relative(path: str | Path, start: Path) -> str:
    """A path as seen from ``start``, so that both can move together; as it is where they lie on different drives."""
    try:
        return os.path.relpath(Path(path).resolve(), start.resolve())
    except ValueError:
        return str(path)


def fingerprint(references: Mapping[str, Mapping[str, str]]) -> str:
    """One hash for a data set: of the names and the contents of its references, wherever they lie."""
    lines = [f"{case_id} {' '.join(files.values())}" for case_id, files in sorted(references.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_manifest(
    out: Path,
    *,
    call: Mapping[str, Any],
    predictions: Mapping[str, Sequence[Path]] | None = None,
    references: Mapping[str, Sequence[Path]] | None = None,
    dataset_sha256: str | None = None,
    outputs: Iterable[str],
    seeds: Mapping[str, int],
    probabilities: Mapping[str, Sequence[Path]] | None = None,
    patients: Path | None = None,
) -> None:
    """Write ``manifest.json`` beside a report, last, when everything else is there.

    Args:
        out: folder of the report.
        call: what the report was asked for; with the same call :func:`read_manifest` lets it be made again.
        predictions: case id to its files; None where other manifests hold them.
        references: case id to its files; None where other manifests hold them.
        dataset_sha256: the :func:`fingerprint` of the references, where they are None.
        outputs: names of the report's own files in ``out``.
        seeds: what drew random numbers, to its seed.
        probabilities: case id to its file.
        patients: the table that says which case is of which patient.

    Raises:
        PipelineError: the file cannot be written.
    """
    held = hashed(references or {}, start=out)
    content = {
        "schema_version": SCHEMA_VERSION,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "call": dict(call),
        "seeds": dict(seeds),
        "versions": versions(),
        "hardware": hardware(),
        "dataset_sha256": dataset_sha256 or fingerprint(held),
        "predictions": hashed(predictions or {}, start=out),
        "references": held,
        "probabilities": hashed(probabilities or {}, start=out),
        "patients": {} if patients is None else {relative(patients, out): file_sha256(patients)},
        "outputs": {name: file_sha256(out / name) for name in sorted(outputs)},
    }
    write_atomically(out / NAME, json.dumps(content, indent=2) + "\n")


def remove_stale(out: Path, names: Iterable[str]) -> None:
    """Remove files that an earlier report in the same folder wrote; what its manifest does not list is another's."""
    try:
        listed = json.loads((out / NAME).read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        if name in listed:
            (out / name).unlink(missing_ok=True)


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest of a report.

    Raises:
        PipelineError: there is none, or it cannot be understood.
    """
    path = out / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
    except FileNotFoundError:
        raise PipelineError(f"{out}: holds no {NAME}; give a folder that `brats-pipeline evaluate` wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{path}: cannot be read ({error}); evaluate again") from error
    if version != SCHEMA_VERSION:
        raise PipelineError(
            f"{path}: has schema version {version}, this program knows {SCHEMA_VERSION}; evaluate again"
        )
    return dict(content)
