"""A study as it was meant: read from its file, checked, and with one budget chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from brats_pipeline.studies.schema import complaints

HERE = Path(__file__).resolve().parent.parent
FULL = "full"
"""The budget that the study means; every other one is a reduced one, and says so."""
DEFAULT_METRICS = ("dice", "hd95_mm")


@dataclass(frozen=True)
class Phantom:
    """A synthetic cohort that takes the place of data.

    Args:
        layout: of :func:`brats_pipeline.write_cohort`.
        cases: how many.
        size: voxels a side, or along each axis; None for the layout's own.
        spacing: voxel side in mm; None for 1, or for slices.
        seed: of the cohort.
    """

    layout: str
    cases: int
    size: int | tuple[int, int, int] | None = None
    spacing: float | None = None
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Voxels along each axis; None for the layout's own."""
        return (self.size, self.size, self.size) if isinstance(self.size, int) else self.size


@dataclass(frozen=True)
class Folds:
    """How the cohort is cut.

    Args:
        k: number of patient-grouped folds.
        seed: of the split.
        test: the folds that are tested, each by a network that saw nothing of it.
        validation: ``next``: the fold behind the tested one chooses the epoch and the others train; ``none``: all
            others train and the last epoch is kept.
    """

    k: int = 5
    seed: int = 0
    test: tuple[int, ...] = (0,)
    validation: str = "next"

    def validating(self, tested: int) -> int | None:
        """The fold that chooses the epoch while ``tested`` is held out."""
        return None if self.validation == "none" else (tested + 1) % self.k


@dataclass(frozen=True)
class Arm:
    """One of the things compared.

    Args:
        name: of its folders and its rows.
        title: what it is in a few words.
        bundle: what is trained.
        network: of the family; None for the bundle's own.
        settings: configuration id to value: of the study, the arm and the budget, later ones over earlier ones.
        seeds: one training each.
    """

    name: str
    title: str
    bundle: str
    network: str | None
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A study with one budget.

    Args:
        name: of the study.
        title: heading of the report.
        about: what it asks, in a paragraph.
        notes: what a reader of its report must know, a sentence or more each.
        arms: in the order of tables.
        reference: name of the arm that the others are compared with.
        folds: how the cohort is cut.
        rules: of scoring; None for those that suit the data.
        metrics: columns of the headline table.
        compare: columns that arms are compared by.
        ranking: columns that arms are ranked by.
        test_loss: whether the loss on the tested cases is reported.
        budget: its name.
        minutes: wall time of a training; None where epochs decide.
        reduction: what the budget changes, in words; empty for the full one.
        phantom: the cohort that takes the place of data; None: data are needed.
        content: of the file, with the chosen budget alone.
        path: of the file.
    """

    name: str
    title: str
    about: str
    notes: tuple[str, ...]
    arms: tuple[Arm, ...]
    reference: str
    folds: Folds
    rules: str | None
    metrics: tuple[str, ...]
    compare: tuple[str, ...]
    ranking: tuple[str, ...]
    test_loss: bool
    budget: str
    minutes: float | None
    reduction: tuple[str, ...]
    phantom: Phantom | None
    content: Mapping[str, Any] = field(repr=False)
    path: Path = field(repr=False)

    @property
    def budget_in_words(self) -> str:
        """``full budget``, or ``reduced budget`` with its numbers."""
        if self.budget == FULL:
            return "full budget"
        return f"reduced budget “{self.budget}”: {'; '.join(self.reduction) or 'as the full one'}"

    @property
    def sha256(self) -> str:
        """Of what the study asks for; comments and the order of keys do not count."""
        told = json.dumps({**self.content, "budget": self.budget}, sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()

    def arm(self, name: str) -> Arm:
        """The arm of this name.

        Raises:
            PipelineError: there is none.
        """
        for number, arm in enumerate(self.arms):
            if name in (arm.name, str(number)):
                return arm
        known = ", ".join(f"{number} {arm.name}" for number, arm in enumerate(self.arms))
        raise PipelineError(f"{self.name} has no arm {name!r}; known: {known}")


def studies_folder() -> Path:
    """The folder of the studies that come with this distribution: inside a wheel, else beside the package."""
    packed = HERE / "_studies"
    return packed if packed.is_dir() else HERE.parent / "studies"


def list_studies() -> dict[str, Path]:
    """The studies that come with this distribution: name to file."""
    return {path.stem: path for path in sorted(studies_folder().glob("*.yaml"))}


def study_path(name: str | Path) -> Path:
    """The file of a study: a path, or the name of one that comes with this distribution.

    Raises:
        PipelineError: neither; the message lists the known names.
    """
    known = list_studies()
    if str(name) in known:
        return known[str(name)]
    if Path(name).is_file():
        return Path(name).resolve()
    raise PipelineError(
        f"unknown study {str(name)!r}: it is neither a file nor one of {', '.join(known) or 'the studies (none found)'}"
    )


def read_plan(study: str | Path, budget: str = FULL) -> Plan:
    """Read a study file and choose a budget; nothing is looked up in bundles, see :func:`check_plan`.

    Args:
        study: a file, or the name of a study that comes with this distribution.
        budget: its name in the file.

    Raises:
        PipelineError: the file cannot be read or used; the message names each mistake.
    """
    import yaml

    path = study_path(study)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    _refuse(path, list(complaints(content)))
    budgets = content.get("budgets") or {}
    known = list(dict.fromkeys([*budgets, FULL]))
    if budget not in known:
        raise PipelineError(f"{path}: has no budget {budget!r}; known: {', '.join(known)}")
    return _plan(path, {**content, "budgets": {budget: budgets.get(budget) or {}}}, budget)


def _refuse(path: Path, sentences: Sequence[str]) -> None:
    if sentences:
        raise PipelineError("\n  ".join([f"{path} is no study that can be run:", *sentences]))


def _plan(path: Path, content: Mapping[str, Any], name: str) -> Plan:
    chosen = content["budgets"][name]
    limits = {key: chosen[key] for key in ("max_epochs", "patches_per_epoch") if key in chosen}
    evaluation = content.get("evaluation", {})
    own = {arm["name"]: arm for arm in content["arms"]}
    wanted = content.get("folds", {}) | chosen.get("folds", {})
    folds = Folds(**{**wanted, "test": tuple(wanted.get("test", (0,)))})
    reference = content.get("reference", content["arms"][0]["name"])
    mistakes = [
        f"arms: {arm} stands there {count} times; give each arm a name of its own"
        for arm in own
        if (count := sum(each["name"] == arm for each in content["arms"])) > 1
    ]
    if reference not in own:
        mistakes.append(f"reference: there is no arm {reference!r}; known: {', '.join(own)}")
    mistakes += [
        f"budgets.{name}.arms: there is no arm {arm!r}; known: {', '.join(own)}"
        for arm in chosen.get("arms", {})
        if arm not in own
    ]
    if beyond := [fold for fold in folds.test if fold >= folds.k]:
        mistakes.append(f"folds.test: there is no fold {beyond[0]}; k is {folds.k}, so the last one is {folds.k - 1}")
    if folds.validation == "next" and folds.k < 3:
        mistakes.append(f"folds: k is {folds.k}; with validation: next one fold is tested, one validates, one trains")
    _refuse(path, mistakes)
    phantom = chosen.get("data", {}).get("phantom")
    if phantom is not None and isinstance(phantom.get("size"), list):
        phantom = {**phantom, "size": tuple(phantom["size"])}
    seeds = chosen.get("seeds")
    arms = tuple(
        Arm(
            name=arm["name"],
            title=arm.get("title", arm["name"]),
            bundle=arm.get("bundle", content["bundle"]),
            network=arm.get("network"),
            settings={
                **content.get("set", {}),
                **arm.get("set", {}),
                **limits,
                **chosen.get("set", {}),
                **chosen.get("arms", {}).get(arm["name"], {}),
            },
            seeds=tuple(seeds or arm.get("seeds") or content.get("seeds", (0,))),
        )
        for arm in content["arms"]
    )
    compare = tuple(evaluation.get("compare", ("dice",)))
    return Plan(
        name=content["name"],
        title=content["title"],
        about=content.get("about", ""),
        notes=tuple(content.get("notes", ())),
        arms=arms,
        reference=reference,
        folds=folds,
        rules=evaluation.get("rules"),
        metrics=tuple(evaluation.get("metrics", DEFAULT_METRICS)),
        compare=compare,
        ranking=tuple(evaluation.get("ranking", compare)),
        test_loss=evaluation.get("test_loss", False),
        budget=name,
        minutes=chosen.get("minutes"),
        reduction=_reduction(chosen, folds, len(arms[0].seeds)),
        phantom=None if phantom is None else Phantom(**phantom),
        content=content,
        path=path,
    )


def _reduction(chosen: Mapping[str, Any], folds: Folds, seeds: int) -> tuple[str, ...]:
    """What a budget changes, in words."""
    words = [chosen["about"]] if chosen.get("about") else []
    words += [f"{key} {chosen[key]}" for key in ("max_epochs", "patches_per_epoch") if key in chosen]
    if "minutes" in chosen:
        words.append(f"{chosen['minutes']:g} minutes of training each")
    words += [f"{key} {value}" for key, value in chosen.get("set", {}).items()]
    words += [
        f"{arm}: {', '.join(f'{key} {value}' for key, value in settings.items())}"
        for arm, settings in chosen.get("arms", {}).items()
    ]
    if "folds" in chosen:
        words.append(f"{len(folds.test)} of {folds.k} folds tested")
    if "seeds" in chosen:
        words.append(f"{seeds} seed{'' if seeds == 1 else 's'}")
    if "data" in chosen:
        words.append(f"{chosen['data']['phantom']['cases']} synthetic cases")
    return tuple(words)


def as_json(plan: Plan) -> dict[str, Any]:
    """What is kept of a plan in JSON files."""
    kept = asdict(plan)
    for name in ("content", "path"):
        del kept[name]
    return {**kept, "sha256": plan.sha256, "budget_in_words": plan.budget_in_words, "file": plan.path.name}
