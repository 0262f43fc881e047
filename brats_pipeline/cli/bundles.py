"""`bundle list`, `info`, `path`, `import`, `export` and `verify`: bundles on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from brats_pipeline.cli.options import Json
from brats_pipeline.cli.printing import complain, print_table, say


def bundle_list(as_json: Json = False) -> int:
    """The bundles that come with this installation."""
    from brats_pipeline.bundles import list_bundles, read_metadata, weights_path

    rows = [
        [path.name, read_metadata(path)["version"], "yes" if weights_path(path).is_file() else "no", str(path)]
        for path in list_bundles()
    ]
    header = ["bundle", "version", "weights", "path"]
    if as_json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows]))  # noqa: T201
    else:
        print_table(header, rows)
    return 0


def bundle_info(name: Annotated[str, typer.Argument(help="Name or folder.")]) -> int:
    """What a bundle says of itself (metadata.json)."""
    from brats_pipeline.bundles import bundle_path, read_metadata

    print(json.dumps(read_metadata(bundle_path(name)), indent=2))  # noqa: T201
    return 0


def bundle_path_command(name: Annotated[str, typer.Argument(help="Name or folder.")]) -> int:
    """Where a bundle lies, for `--bundle_root`."""
    from brats_pipeline.bundles import bundle_path

    print(bundle_path(name))  # noqa: T201
    return 0


def bundle_import(
    source: Annotated[Path, typer.Argument(help="ZIP file or folder of a bundle from elsewhere.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New folder; by default its name, here.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Take over what could run code, too.")] = False,
) -> int:
    """Take over a bundle: unpacked safely, compared with its sums, and read before anything of it runs."""
    from brats_pipeline.bundles.importing import import_bundle

    imported = import_bundle(source, out, trust=trust)
    for finding in imported.trusted:
        complain(f"trusted: {finding}")
    if not imported.hashed:
        complain("trusted: it came without SHA256SUMS; whether anything was lost or changed cannot be told")
    say(f"bundle: {imported.path}")
    return 0


def bundle_export(
    run: Annotated[Path, typer.Argument(help="Name or folder of a run or bundle with weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder, or new file that ends in .zip.")],
    torchscript: Annotated[bool, typer.Option("--torchscript", help="Also models/model.ts.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also models/model.onnx.")] = False,
    openvino: Annotated[bool, typer.Option("--openvino", help="Also models/model.xml and .bin.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="Evaluation of these weights, for the model card.")
    ] = None,
) -> int:
    """Write a run as a bundle that runs without this program: settings, weights, modules, model card, sums."""
    from brats_pipeline.inference.packing import export_run

    exported = export_run(run, out, torchscript=torchscript, onnx=onnx, openvino=openvino, report=report)
    for sentence in exported.notes:
        say(sentence)
    if not exported.measured:
        complain("the model card says that nothing was measured; --report gives it figures")
    say(f"bundle: {exported.path} ({exported.files} files, {exported.size_bytes / 1e6:.1f} MB)")
    return 0


def bundle_verify(
    name: Annotated[str, typer.Argument(help="Name or folder of a bundle or run.")],
    weights: Annotated[bool, typer.Option("--weights", help="A bundle without weights does not pass.")] = False,
    as_json: Json = False,
) -> int:
    """Check a bundle by the rules of the model zoo, offline; this runs its configuration."""
    from brats_pipeline.bundles.verifying import verify_bundle

    found = verify_bundle(name, weights=weights)
    if as_json:
        told = {"bundle": str(found.bundle), "holds": found.holds, "problems": found.problems, "notes": found.notes}
        print(json.dumps(told))  # noqa: T201
        return 0 if found.holds else 1
    for sentence in found.notes:
        say(f"note: {sentence}")
    for check, sentences in found.problems.items():
        for sentence in sentences:
            complain(f"{check}: {sentence}")
    failed = sum(map(len, found.problems.values()))
    say(f"{found.bundle.name}: {'holds' if found.holds else f'{failed} problems'} ({len(found.problems)} checks)")
    return 0 if found.holds else 1
