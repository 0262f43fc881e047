"""Reading a study file: found by path or name, held against its form, one budget chosen. Bundles are not looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from brats_pipeline.studies.plan import FULL, Arm, Folds, Phantom, Plan
from brats_pipeline.studies.schema import complaints

HERE = Path(__file__).resolve().parent.parent
DEFAULT_METRICS = ("dice", "hd95_mm")


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
    asked = chosen.get("arms", {})
    kept = [name for name in own if name in asked] if isinstance(asked, list) else list(own)
    changes = {} if isinstance(asked, list) else asked
    wanted = content.get("folds", {}) | chosen.get("folds", {})
    folds = Folds(**{**wanted, "test": tuple(wanted.get("test", (0,)))})
    reference = content.get("reference", next(iter(kept or own)))
    mistakes = [
        f"arms: {arm} stands there {count} times; give each arm a name of its own"
        for arm in own
        if (count := sum(each["name"] == arm for each in content["arms"])) > 1
    ]
    if reference not in own:
        mistakes.append(f"reference: there is no arm {reference!r}; known: {', '.join(own)}")
    elif reference not in kept:
        mistakes.append(f"budgets.{name}.arms: {reference} is the reference arm and must be among them")
    mistakes += [
        f"budgets.{name}.arms: there is no arm {arm!r}; known: {', '.join(own)}" for arm in asked if arm not in own
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
                **changes.get(arm["name"], {}),
            },
            seeds=tuple(seeds or arm.get("seeds") or content.get("seeds", (0,))),
        )
        for arm in content["arms"]
        if arm["name"] in kept
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
        missing=2 if (missing := evaluation.get("missing", False)) == "pairs" else int(missing),
        budget=name,
        minutes=chosen.get("minutes"),
        reduction=_reduction(chosen, folds, arms, len(own)),
        phantom=None if phantom is None else Phantom(**phantom),
        content=content,
        path=path,
    )


def _told(value: Any) -> str:
    """A setting in words; of a component its name and its plain arguments."""
    if not isinstance(value, Mapping):
        return str(value)
    plain = [
        f"{key} {given}"
        for key, given in value.items()
        if key != "_target_" and not isinstance(given, Mapping | list) and str(given)[:1] not in "@$"
    ]
    return " ".join([str(value.get("_target_", "")), *([f"({', '.join(plain)})"] if plain else [])]).strip()


def _reduction(chosen: Mapping[str, Any], folds: Folds, arms: Sequence[Arm], of: int) -> tuple[str, ...]:
    """What a budget changes, in words."""
    words = [chosen["about"]] if chosen.get("about") else []
    words += [f"{key} {chosen[key]}" for key in ("max_epochs", "patches_per_epoch") if key in chosen]
    if "minutes" in chosen:
        words.append(f"{chosen['minutes']:g} minutes of training each")
    words += [f"{key} {_told(value)}" for key, value in chosen.get("set", {}).items()]
    asked = chosen.get("arms", {})
    if isinstance(asked, list):
        words.append(f"{len(arms)} of {of} arms: {', '.join(arm.name for arm in arms)}")
    else:
        told = {arm: ", ".join(f"{key} {_told(value)}" for key, value in given.items()) for arm, given in asked.items()}
        alike = {changes: [arm for arm in told if told[arm] == changes] for changes in told.values() if changes}
        words += [f"{', '.join(changed)}: {changes}" for changes, changed in alike.items()]
    if "folds" in chosen:
        words.append(f"{len(folds.test)} of {folds.k} folds tested")
    if "seeds" in chosen:
        words.append(f"{(seeds := len(arms[0].seeds))} seed{'' if seeds == 1 else 's'}")
    if "data" in chosen:
        words.append(f"{chosen['data']['phantom']['cases']} synthetic cases")
    return tuple(words)
