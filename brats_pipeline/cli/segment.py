"""`segment`: label maps of new scans."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brats_pipeline.cli.options import Device, Json, Out, Quiet, Settings, overrides_of
from brats_pipeline.cli.printing import DISCLAIMER, complain, say
from brats_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from brats_pipeline.inference.result import Segmentation


def segment_command(
    out: Out,
    inputs: Annotated[list[Path] | None, typer.Argument(help="Case folders, cohort folders, or 4-D files.")] = None,
    t1c: Annotated[Path | None, typer.Option(help="Contrast-enhanced T1 of one case.")] = None,
    t1: Annotated[Path | None, typer.Option(help="Native T1 of one case.")] = None,
    t2: Annotated[Path | None, typer.Option(help="T2 of one case.")] = None,
    flair: Annotated[Path | None, typer.Option(help="FLAIR of one case.")] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Of 4-D files, in their order: flair,t1,t1c,t2; by default dataset.json says."
        ),
    ] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option(help="Name or folder of a bundle or run with weights; several of them segment as an ensemble."),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="W", help="Weight of each --bundle, in their order: 2, or by region TC=1,WT=2,ET=0.5."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Another network of the bundle's configs/networks, for weights of it in --set ckpt_path=FILE."
        ),
    ] = None,
    crop: Annotated[
        bool,
        typer.Option("--crop", help="Cut scans to the brain, which is faster, also for weights that never saw a crop."),
    ] = False,
    convention: Annotated[str | None, typer.Option(help="Label convention to write.")] = None,
    device: Device = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Segment again what is there.")] = False,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write the probability of each region (float16, .npz).")
    ] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average the answers for mirror images of the scan.")] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write maps of doubt, volume intervals and the Dice to expect.")
    ] = False,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Segment a case that lacks modalities, by a network trained for it."),
    ] = False,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", metavar="F", help="nifti (always written), nrrd (3D Slicer) or dicom-seg; several may be named."
        ),
    ] = None,
    dicom_series: Annotated[
        Path | None,
        typer.Option(help="With --format dicom-seg: folder of the source series; of several cases, one per case id."),
    ] = None,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="With --format dicom-seg: leave out what names the patient.")
    ] = False,
    native: Annotated[
        bool, typer.Option("--native", help="Also carry label maps of prepared cases back to the original T1c.")
    ] = False,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also write volumes.json: ml per region and tissue.")
    ] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Also draw contours in three planes (PNG).")] = False,
    viewer: Annotated[
        bool, typer.Option("--viewer", help="Also write a page to scroll through the slices (HTML, offline).")
    ] = False,
    backend: Annotated[
        str | None, typer.Option(help="What computes the network: torch, onnxruntime, openvino or tensorrt.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Take no more memory (on a GPU: its memory), such as 8GiB.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Only the K-th of N shares of the cases, as 3/16."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Segment the cases that arrive in a folder, until Ctrl-C.")
    ] = False,
    settle: Annotated[
        float, typer.Option(min=0, help="With --watch: seconds without change before a case is taken to be whole.")
    ] = 10.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Write a label map for every case, in the space of its own T1c."""
    from brats_pipeline.bundles import weights_licence
    from brats_pipeline.inference.ensembles import parse_weight
    from brats_pipeline.inference.extras import Extras
    from brats_pipeline.inference.segment import segment
    from brats_pipeline.progress import growing_bar

    files = {name: path for name, path in (("t1c", t1c), ("t1", t1), ("t2", t2), ("flair", flair)) if path is not None}
    if bool(files) == bool(inputs):
        raise PipelineError("give either folders of cases, or the four files --t1c --t1 --t2 --flair")
    named = {"backend": backend, "max_memory": max_memory, "tta": "all" if tta else None}
    named["field_of_view"] = "foreground" if crop else None
    with growing_bar("segment", quiet=quiet) as (on_start, on_case):
        arguments: dict[str, Any] = {
            "bundle": bundle[0] if bundle and len(bundle) == 1 else bundle or None,
            "weights": [parse_weight(text) for text in weight] if weight else None,
            "convention": convention,
            "channels": channels,
            "device": device,
            "overrides": {
                **_network(bundle, network),
                **overrides_of(settings),
                **{key: value for key, value in named.items() if value is not None},
            },
            "overwrite": overwrite,
            "save_probabilities": save_probabilities,
            "uncertainty": uncertainty,
            "allow_missing": allow_missing,
            "extras": Extras(tuple(formats or ()), native, volumes, preview, viewer, dicom_series, deidentify),
            "share": shard,
            "on_start": on_start,
            "on_case": on_case,
        }
        if watch:
            from brats_pipeline.inference.watching import watch as rounds

            if inputs is None or len(inputs) != 1:
                raise PipelineError("--watch takes one folder, in which case folders arrive")
            say(f"watching {inputs[0]}, Ctrl-C ends it")
            for result in rounds(inputs[0], out, settle=settle, **arguments):
                _tell(result, as_json=as_json)
        result = segment(files or inputs or [], out, **arguments)
    _tell(result, as_json=as_json)
    if not as_json and "ckpt_path" not in arguments["overrides"] and (licence := weights_licence(result.bundle)):
        say(f"weights of {result.bundle.name}: {licence}")
    one_of_many = int(os.environ.get("WORLD_SIZE", "1")) > 1  # torchrun would end the other processes
    if one_of_many or not (result.failed or result.without):
        return 0
    return 1 if result.done or result.skipped else 2


def _network(bundle: Sequence[str] | None, network: str | None) -> Mapping[str, Any]:
    """What a bundle says of another network of its family."""
    from brats_pipeline.bundles import bundle_path, network_overlay

    if network is None:
        return {}
    if bundle is None or len(bundle) != 1:
        raise PipelineError("--network goes with one --bundle, whose configs/networks has it; name the bundle")
    return network_overlay(bundle_path(bundle[0]), network)


def _tell(result: Segmentation, *, as_json: bool) -> None:
    """Say what became of the cases."""
    for case_id, reason in result.failed.items():
        complain(f"{case_id}: {reason}")
    for case_id, sentences in result.unlike.items():
        for sentence in sentences:
            complain(f"warning: {case_id} is unlike the training: {sentence}")
    for case_id, reasons in result.without.items():
        for option, reason in reasons.items():
            complain(f"{case_id}: the label map is there, but {option} could not be made: {reason}")
    if as_json:
        names = ("done", "skipped", "failed", "notes", "missing", "unlike", "without")
        print(json.dumps({"out": str(result.out), **{name: getattr(result, name) for name in names}}))  # noqa: T201
        return
    for case_id, note in result.notes.items():
        say(f"{case_id}: {note}")
    kept = f", {len(result.skipped)} were there already" if result.skipped else ""
    say(f"{len(result.done)} cases segmented{kept}, {len(result.failed)} failed: {result.out}")
    say(DISCLAIMER)
