"""What a prediction is made from: which cases, which of their modalities, and how their files are recognised."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from brats_pipeline.cases import Case, Source, find_cases
from brats_pipeline.cases.decathlon import listed_case, parse_channels
from brats_pipeline.cases.stacks import is_stack
from brats_pipeline.errors import PipelineError
from transforms.labels import MODALITIES
from transforms.nifti import is_volume_name, strip_suffix
from transforms.scans import read_scan_header


def case_from_files(images: Mapping[str, str | Path], *, case_id: str | None = None) -> Case:
    """A case made of one file per modality.

    Args:
        images: modality to file.
        case_id: names the prediction; by default what the file names begin with, else their folder.

    Raises:
        PipelineError: a file does not exist, or is given for two modalities.
    """
    paths = {name: _where(images[name]) for name in MODALITIES if name in images}
    for name, path in paths.items():
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "there is no such file"
            raise PipelineError(f"--{name} {path}: {what}; give the path of a .nii, .nii.gz, .mha or .nrrd file")
        twins = [other for other in paths if other != name and paths[other].resolve() == path.resolve()]
        if twins:
            raise PipelineError(f"{path} is given for {name} and for {twins[0]}; give one file for each modality")
    if case_id is None:
        common = os.path.commonprefix([strip_suffix(path.name) for path in paths.values()])  # noqa: RUF071 -- letters are meant
        named = re.fullmatch(r"(.*\w)[-_. ]+\w*", common)  # up to the last separator: t1 and t2 share a letter
        case_id = named[1] if named else next(iter(paths.values())).parent.name
    sources = {name: Source(paths=(path,)) for name, path in paths.items()}
    return Case(case_id=case_id, patient_id=case_id, images=sources, label=None, layout="plain")


def _where(path: str | Path) -> Path:
    """A path from the root on, by the names that it was given by: links into a store lead to files without names."""
    return Path(os.path.abspath(path))  # noqa: PTH100 -- resolve() would follow links


def cases_given(inputs: Sequence[str | Path] | Mapping[str, str | Path], *, channels: str | None = None) -> list[Case]:
    """The cases of what was handed over.

    Args:
        inputs: folders of cases and 4-D files; or one file per modality.
        channels: what the channels of the 4-D files are, as ``"flair,t1,t1c,t2"``; by default what the dataset.json of
            the Decathlon says that lists them.

    Raises:
        PipelineError: nothing can be made of it, or two cases have one name.
    """
    if isinstance(inputs, Mapping):
        given, files, folders = [case_from_files(inputs)], [], []
    else:
        paths = list(map(Path, inputs))
        files = [path for path in paths if is_volume_name(path.name) and not path.is_dir()]
        folders = [path for path in paths if path not in files]
        given = [case_from_channels(path, channels) for path in files]
    if channels is not None and not files:
        raise PipelineError("--channels names the channels of 4-D files, and none was given; leave it out")
    given += find_cases(*folders) if folders else []
    ids = [case.case_id for case in given]
    if twice := sorted({case_id for case_id in ids if ids.count(case_id) > 1}):
        raise PipelineError(f"two cases are called {twice[0]}; segment them apart, or rename one")
    return given


def case_from_channels(path: Path, channels: str | None) -> Case:
    """A case made of one 4-D file.

    Args:
        path: of the file.
        channels: as in :func:`cases_given`.

    Raises:
        PipelineError: the file cannot be read, holds one volume or another number of them than is named, or nobody
            says which channel is which.
    """
    shape = read_scan_header(path).shape
    if len(shape) != 4:
        raise PipelineError(
            f"{path}: has shape {'x'.join(map(str, shape))}; a file given alone needs a fourth axis, the modalities: "
            "give a folder of the case, or its files by --t1c --t1 --t2 --flair"
        )
    path = _where(path)
    listed = listed_case(path)
    if channels is None:
        if listed is not None:
            return listed
        raise PipelineError(
            f"{path}: holds {shape[3]} channels, and no dataset.json says which is which; name them in their order, "
            "such as --channels flair,t1,t1c,t2"
        )
    found, named = parse_channels(channels), channels.count(",") + 1
    if named != shape[3]:
        raise PipelineError(
            f"{path}: holds {shape[3]} channels, and --channels {channels} names {named}; name every one, '-' for one "
            "that is no modality"
        )
    case_id = strip_suffix(path.name)
    images = {name: Source((path,), found[name]) for name in MODALITIES if name in found}
    layout = "plain" if listed is None else listed.layout
    return Case(case_id=case_id, patient_id=case_id, images=images, label=None, layout=layout)


def chosen(cases: Sequence[Case], only: Collection[str] | None) -> list[Case]:
    """The cases of these ids, in their order; all of them for None.

    Raises:
        PipelineError: one of them is not there.
    """
    if only is None:
        return list(cases)
    if absent := sorted(set(only) - {case.case_id for case in cases}):
        raise PipelineError(f"there is no case {', '.join(absent[:3])} among the {len(cases)} that were found")
    return [case for case in cases if case.case_id in only]


def without_modalities(case: Case, names: Collection[str]) -> Case:
    """The same case as if these modalities had not been acquired.

    Raises:
        PipelineError: there is no such modality.
    """
    if unknown := sorted(set(names) - set(MODALITIES)):
        raise PipelineError(f"there is no modality {', '.join(unknown)}; known: {', '.join(MODALITIES)}")
    return replace(case, images={name: source for name, source in case.images.items() if name not in names})


def refuse_untrained(bundle: Path) -> None:
    """Refuse to leave modalities out for a network that has never seen a scan without one.

    Raises:
        PipelineError: the bundle's ``train.yaml`` has no ``modality_dropout`` above 0.
    """
    import yaml

    path = bundle / "configs" / "train.yaml"
    try:
        share = yaml.safe_load(path.read_text(encoding="utf-8")).get("modality_dropout")
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise PipelineError(
            f"{path}: does not say how the network was trained ({error}); restore the bundle"
        ) from error
    if not isinstance(share, int | float) or share <= 0:
        raise PipelineError(
            f"{bundle.name} was trained without modality dropout (modality_dropout: {share} in {path}), so a missing "
            "modality would mislead it; train one with `--set modality_dropout=0.2 --set presence_flags=true`, or give "
            "a case with every modality"
        )


def inputs_of(case: Case, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Modality to the origin and the state of its files, as JSON-able values.

    Args:
        case: what is segmented.
        wanted: the modalities that matter; those that the case lacks are left out.

    Returns:
        Of each modality ``path`` (the file, or the folder of slices), ``channel``, and ``listing_sha256`` (of the
        names, sizes and times of change of the files). No file is read.
    """
    return {name: _state(case.images[name]) for name in wanted if name in case.images}


def _state(source: Source) -> dict[str, Any]:
    first = source.paths[0].resolve()
    listing = "\n".join(map(_line, source.paths))
    return {
        "path": str(first.parent if is_stack(source) else first),
        "channel": source.channel,
        "listing_sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }


def _line(path: Path) -> str:
    try:
        told = path.stat()
    except OSError:  # a file that is not there any more; whoever reads it says so
        return f"{path.name} absent"
    return f"{path.name} {told.st_size} {told.st_mtime_ns}"


def states_of(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """Case id to the state of its files, the label map's among them, wherever they lie; as :func:`inputs_of` tells."""
    told = {}
    for case in cases:
        files = dict(case.images) | ({} if case.label is None else {"label": case.label})
        state = inputs_of(replace(case, images=files), list(files))
        told[case.case_id] = {
            name: {key: value for key, value in each.items() if key != "path"} for name, each in state.items()
        }
    return told


def other_origin(recorded: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Where a recorded case came from, if that is another place than where it comes from now.

    Files that were replaced where they lie keep their origin.
    """
    for name in recorded.keys() & now.keys():
        if recorded[name]["path"] != now[name]["path"]:
            return str(recorded[name]["path"])
    return None
