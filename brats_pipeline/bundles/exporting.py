"""A trained run as a bundle that needs nothing of this distribution: configuration, weights, modules, model card."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import brats_pipeline
from brats_pipeline.bundles.cards import (
    NOTHING_MEASURED,
    Measured,
    card_text,
    performance,
    performance_told,
    read_report,
)
from brats_pipeline.bundles.declaring import declared
from brats_pipeline.bundles.detaching import detached, modules_needed, resolved
from brats_pipeline.bundles.installed import WEIGHTS, bundle_path, read_metadata, weights_path
from brats_pipeline.bundles.scripts import package_name
from brats_pipeline.bundles.sums import files_of, write_sums
from brats_pipeline.bundles.vendoring import packages_used, vendored
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256, write_atomically

REQUIRED = ("nibabel", "pytorch-ignite", "PyYAML", "fire")
ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Extra = Callable[[Path, Path], str]
"""Writes further files of the network into a bundle (run, bundle), checks them, and says so in a sentence."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: the folder or ZIP file.
        package: the bundle's own package of modules.
        files: their number.
        size_bytes: of all files, unpacked.
        measured: whether the model card has figures.
        notes: what was said of further files.
    """

    path: Path
    package: str
    files: int
    size_bytes: int
    measured: bool
    notes: list[str]


def export_bundle(run: str | Path, out: Path, *, report: Path | None = None, extras: Sequence[Extra] = ()) -> Exported:
    """Write a run as a bundle of its own.

    Args:
        run: name or folder of a bundle with weights.
        out: a new folder, or a new file that ends in ``.zip``.
        report: folder of an evaluation of these weights, whose figures go into the model card.
        extras: what else to write.

    Raises:
        PipelineError: there are no weights; ``out`` exists; or what was written cannot be vouched for. Then nothing
            is left behind.
    """
    from brats_pipeline.weights import read_checkpoint

    source = bundle_path(run)
    if out.exists() or out.is_symlink():
        raise PipelineError(f"{out}: exists already, and is not overwritten; choose another place with -o")
    read_checkpoint(weights_path(source))
    sha256 = file_sha256(weights_path(source))
    measured = None if report is None else read_report(report, sha256)
    packed = out.suffix.lower() == ".zip"
    home = out.resolve().parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=home, prefix=".export."))
    except OSError as error:
        raise PipelineError(f"{home}: cannot be written ({error.strerror or error}); choose another folder") from error
    try:
        bundle = work / (out.stem if packed else out.name)
        package, told, notes = _write(source, bundle, measured, sha256, extras)
        write_sums(bundle)
        sizes = [path.stat().st_size for path in files_of(bundle).values()]
        if packed:
            _pack(bundle, work / "bundle.zip")
        (work / "bundle.zip" if packed else bundle).rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Exported(out, package, len(sizes), sum(sizes), told, notes)


def _write(
    source: Path, bundle: Path, measured: Measured | None, sha256: str, extras: Sequence[Extra]
) -> tuple[str, bool, list[str]]:
    import yaml

    record = _record(source)
    package = package_name(Path(str(record.get("bundle") or source.name)).name)
    content = resolved(source)
    if absent := [key for key in ("modalities", "regions", "network_def") if key not in content]:
        raise PipelineError(
            f"{source}: configs/inference.yaml lacks {', '.join(absent)}, which every run of "
            "`brats-pipeline train` has; export such a run"
        )
    modules = modules_needed(content)
    for name, text in vendored(modules, package, version=brats_pipeline.__version__).items():
        write_atomically(bundle / name, text)
    own = detached(content, package)
    head = "# Segment: case folders in, label maps out. Runs from any folder and without brats_pipeline:\n#\n"
    head += f"#   {_usage()}\n"
    text = yaml.safe_dump(own, sort_keys=False, default_flow_style=None, width=120)
    write_atomically(bundle / "configs" / "inference.yaml", head + text)
    kept = ("logging.conf", "expected_dice.json", "fingerprint.json")
    for name in (*(f"configs/{each}" for each in kept), "docs/data_license.txt", "LICENSE"):
        if (source / name).is_file():
            write_atomically(bundle / name, (source / name).read_bytes())
    write_atomically(weights_path(bundle), weights_path(source).read_bytes())
    training = _training(record)
    metadata = _metadata(source, content, modules, measured, " ".join(training), sha256)
    figures = performance(measured)
    card = source / "docs" / "README.md"
    known = performance_told(card.read_text("utf-8")) if WEIGHTS in metadata and card.is_file() else None
    if measured is None and known:
        figures = known
        training = training if record else ["How they were trained stands below, under Performance."]
    write_atomically(bundle / "configs" / "metadata.json", json.dumps(metadata, indent=2) + "\n")
    notes = [extra(source, bundle) for extra in extras]
    text = card_text(
        metadata=metadata,
        network=own["network_def"],
        training=training,
        usage=f"From any folder:\n\n```sh\n{_usage()}\n```",
        measured=figures,
        weights_sha256=sha256,
        licence=metadata.get(WEIGHTS, {}).get("licence"),
        extras=notes,
    )
    write_atomically(bundle / "docs" / "README.md", text)
    return package, figures != NOTHING_MEASURED, notes


def _usage() -> str:
    return (
        "python -m monai.bundle run --config_file B/configs/inference.yaml --bundle_root B --dataset_dir <data root> "
        "--output_dir OUT"
    )


def _record(source: Path) -> dict[str, Any]:
    """What a run tells of its training; nothing where it is no run."""
    try:
        record = json.loads((source / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _training(record: Mapping[str, Any]) -> list[str]:
    """How the weights came to be, in sentences, as far as the run tells."""
    if not record:
        return ["How they were trained is not told."]
    fold = record.get("fold")
    held_out = "all cases of its list, none held out" if fold is None else f"all folds of its list but fold {fold}"
    parts = [f"Trained by brats_pipeline for {record.get('epochs', 'an unknown number of')} epochs on {held_out}"]
    parts += [f"seed {record['seed']}"] if "seed" in record else []
    parts += ["not finished"] if record.get("status") != "finished" else []
    return [", ".join(parts) + "."]


def _metadata(
    source: Path,
    content: Mapping[str, Any],
    modules: Sequence[str],
    measured: Measured | None,
    training: str,
    sha256: str,
) -> dict[str, Any]:
    """The run's metadata with what the export knows better: versions, packages, figures, channels."""
    metadata = declared(read_metadata(source), content)
    if not isinstance(told := metadata.get(WEIGHTS), dict) or told.get("sha256") != sha256:
        metadata = {key: value for key, value in metadata.items() if key != WEIGHTS} | {"eval_metrics": {}}
    versions = {name: _version(name) for name in ("monai", "torch", "numpy")}
    optional = [name for name in packages_used(modules) if name not in REQUIRED]
    version = str(metadata["version"])
    changelog = metadata.get("changelog", {})
    change = f"exported with weights. {training}"
    if WEIGHTS in metadata and version in changelog:
        change = f"{changelog[version]}; exported with weights by brats_pipeline {brats_pipeline.__version__}"
    return {
        **metadata,
        "changelog": {**changelog, version: change},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        # Tools of either schema read one of the two names, and MONAI takes the older one where both are there.
        "required_packages_version": {name: _version(name) for name in REQUIRED},
        "optional_packages_version": {name: _version(name) for name in REQUIRED},
        "suggested_packages_version": {name: _version(name) for name in optional if _installed(name)},
        "eval_metrics": metadata["eval_metrics"] if measured is None else measured.eval_metrics,
    }


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _version(package: str) -> str:
    """The installed version without its build, such as ``2.13.0`` of ``2.13.0+cpu``."""
    return importlib.metadata.version(package).partition("+")[0]


def _pack(bundle: Path, target: Path) -> None:
    """A ZIP file whose one folder is the bundle; the same bytes for the same files."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
            member = zipfile.ZipInfo((Path(bundle.name) / path.relative_to(bundle)).as_posix(), ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o100644 << 16
            archive.writestr(member, path.read_bytes())
