"""What can be said of a bundle by reading it: files, texts, versions and the official schemas of its metadata.

The rules are those of the model zoo (``CONTRIBUTING.md`` and ``ci/verify_bundle.py``). Each check gives one sentence
for everything that is wrong.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brats_pipeline.bundles.installed import WEIGHTS, weights_path
from brats_pipeline.bundles.subject import NETWORK, TRAVELLING, Subject, find_config
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256

SCHEMAS = Path(__file__).parent / "schemas"
"""``meta_schema_20220324.json`` and ``meta_schema_20240725.json`` as MONAI-extra-test-data publishes them."""
LARGEST_BYTES = 25 * 2**20
"""Of a file in the zoo's repository; larger ones are fetched by ``large_files.yml``."""
NEEDED = ("LICENSE", "docs/README.md", "configs/logging.conf")
HEADINGS = ("Authors", "Tags", "Model Description", "Data", "Preprocessing", "Performance", "System Configuration")
"""Of the zoo's template for model cards; it marks only others as optional."""
PINNED = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
PERSONAL = re.compile(r"(?:/home/|/Users/|[A-Z]:\\+Users\\+)[\w.-]+")
VERSION = re.compile(r"\d+\.\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\+[\w.]+)?")
SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


def _travelling(root: Path) -> Iterator[Path]:
    """The files that make the bundle; a run has others beside them."""
    yield from (path for name in TRAVELLING for path in sorted((root / name).rglob("*")) if path.is_file())
    yield from (path for path in sorted((root / "models").glob("model.*")) if path.is_file())


def check_files(subject: Subject) -> Iterator[str]:
    """Everything is there, small enough, and names no person's folders."""
    root = subject.root
    for name in NEEDED:
        if not (root / name).is_file():
            yield f"{name} is missing"
    if find_config(root, "inference") is None:
        yield "configs/inference.yaml (or .json) is missing"
    if subject.metadata.get("data_source") and not (root / "docs" / "data_license.txt").is_file():
        yield "docs/data_license.txt is missing; say there under which terms the data come that data_source names"
    for path in _travelling(root):
        name = path.relative_to(root).as_posix()
        if (size := path.stat().st_size) > LARGEST_BYTES:
            yield f"{name} has {size / 2**20:.0f} MB, and a file may have 25; keep the weights in float16, or fewer"
        elif name.startswith("models/"):
            continue
        elif found := PERSONAL.search(path.read_text(encoding="utf-8", errors="replace")):
            yield f"{name} names a folder of one person ({found[0]}); write <data root>/... instead"


def check_card(subject: Subject) -> Iterator[str]:
    """The model card has the sections of the zoo's template."""
    path = subject.root / "docs" / "README.md"
    if not path.is_file():
        return
    titles = {line.strip("#* ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")}
    if absent := [name for name in HEADINGS if name not in titles]:
        yield f"docs/README.md lacks the sections {', '.join(absent)} of the model zoo's template"


def check_versions(subject: Subject) -> Iterator[str]:
    """Versions are exact, and the bundle's own is told of in the changelog and has not been used."""
    metadata = subject.metadata
    version, changelog = metadata.get("version"), metadata.get("changelog")
    if not isinstance(version, str) or not re.fullmatch(r"\d+\.\d+\.\d+", version):
        yield f"metadata.json: version is {version!r}; three numbers such as 0.1.0 are needed"
    elif not isinstance(changelog, Mapping) or version not in changelog:
        yield f"metadata.json: version {version} is not in the changelog; add a line on what has changed"
    for name, pin in _pins(metadata):
        if not isinstance(pin, str) or not VERSION.fullmatch(pin):
            yield f"metadata.json: {name} is {pin!r}; one exact version is needed, since it is installed with =="
    required, optional = (metadata.get(f"{kind}_packages_version") for kind in ("required", "optional"))
    if required is not None and optional is not None and required != optional:
        yield (
            "metadata.json: optional_packages_version replaces required_packages_version once MONAI reads it; "
            "make them equal, or leave it out"
        )
    listing = subject.root.parent / "model_info.json"
    if listing.is_file():
        known = json.loads(listing.read_text(encoding="utf-8"))
        if f"{subject.root.name}_v{version}" in known:
            yield f"{subject.root.name} {version} is published already (model_info.json); give it a new version"


def _pins(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((name, metadata.get(name)) for name in PINNED)
    for field in ("required_packages_version", "optional_packages_version"):
        packages = metadata.get(field, {})
        yield from packages.items() if isinstance(packages, Mapping) else [(field, packages)]


def other_versions(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What is installed here in another version than the bundle was made with."""
    for name, pin in _pins(metadata):
        package = PINNED.get(name, name)
        try:
            here = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} {pin} is not installed here"
            continue
        if here.partition("+")[0] != str(pin).partition("+")[0]:
            yield f"{package} is {here} here and {pin} in metadata.json"


def check_schemas(subject: Subject) -> Iterator[str]:
    """The metadata follow both official schemas, and name one of them."""
    import jsonschema

    known = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(SCHEMAS.glob("*.json"))}
    named = str(subject.metadata.get("schema", "")).rpartition("/")[2]
    if named not in known:
        yield f"metadata.json: schema is {subject.metadata.get('schema')!r}; it must end in {' or '.join(known)}"
    for name, schema in known.items():
        for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(dict(subject.metadata)):
            place = "::".join(map(str, error.absolute_path))
            yield f"metadata.json{f', {place}' if place else ''}: {error.message.splitlines()[0]} ({name})"


def check_weights(subject: Subject) -> Iterator[str]:
    """Weights, where there are some, fit the network and are those that metadata and model card tell of."""
    from brats_pipeline.weights import load_weights

    if not subject.has_weights:
        return
    weights = weights_path(subject.root)
    try:
        load_weights(subject.network(), weights)
    except PipelineError as error:
        yield f"{error} ({NETWORK} of inference.yaml)"
    found, stated = file_sha256(weights), stated_hashes(subject.root)
    told = subject.metadata.get(WEIGHTS)
    if isinstance(told, Mapping) and told.get("sha256") != found:
        yield f"models/model.pt has the sha256 {found}, and metadata.json tells of {told.get('sha256')} ({WEIGHTS})"
    if stated and found not in stated:
        yield f"models/model.pt has the sha256 {found}, and docs/README.md tells of {', '.join(sorted(stated))}"
    elif told and not stated:
        yield f"docs/README.md does not tell the sha256 of the weights; write sha256 `{found}`"


def stated_hashes(root: Path) -> set[str]:
    """The sha256 sums in the model card."""
    path = root / "docs" / "README.md"
    return set(SHA256.findall(path.read_text(encoding="utf-8"))) if path.is_file() else set()


def check_shared_ids(subject: Subject) -> Iterator[str]:
    """What training and inference both define is the same thing."""
    from monai.bundle import ConfigParser

    paths = [find_config(subject.root, name) for name in ("train", "inference")]
    if None in paths:
        return
    train, infer = (ConfigParser.load_config_file(str(path)) for path in paths)
    if other := sorted(key for key in (train.keys() & infer.keys()) - OWN_IDS if train[key] != infer[key]):
        yield f"train and inference differ in {', '.join(other)}; what both define must be equal"


OWN_IDS = frozenset(["imports", "initialize", "run", "finalize", "prepare_on"])
"""Ids that training and inference each have for themselves."""
