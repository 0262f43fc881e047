"""Scored arms side by side: headline figures, paired comparisons with the reference arm, and a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brats_pipeline.metrics import RegionScore
from brats_pipeline.metrics.comparison import compare_paired, mean_over_patients, verdict
from brats_pipeline.metrics.joining import by_case
from brats_pipeline.metrics.ranking import Ranking, rank_runs
from brats_pipeline.metrics.statistics import RESAMPLES, holm
from brats_pipeline.metrics.subgroups import Everyone, case_facts, summarise_groups
from brats_pipeline.report.missing import WithoutModality
from brats_pipeline.report.study import ArmFigures, Compared
from brats_pipeline.studies.gathering import Scored
from brats_pipeline.studies.plan import Plan


def shared_rows(arms: Sequence[Scored]) -> dict[str, tuple[RegionScore, ...]]:
    """The rows of the cases that every arm with a finished fold has tested: arm to its rows.

    A case that a network was asked for and could not segment is among them, as the miss that it is. Empty where no
    case was tested by all of these.
    """
    begun = [arm for arm in arms if arm.folds]
    if not begun:
        return {}
    common = set.intersection(*({row.case_id for row in arm.rows} for arm in begun))
    if not common:
        return {}
    return {arm.arm.name: tuple(row for row in arm.rows if row.case_id in common) for arm in begun}


def arm_figures(
    plan: Plan,
    arms: Sequence[Scored],
    rows: Mapping[str, Sequence[RegionScore]],
    *,
    patients: Mapping[str, str],
    resamples: int = RESAMPLES,
) -> list[ArmFigures]:
    """The headline figures of each arm that has rows, and what it cost.

    Args:
        plan: the study.
        arms: all of them.
        rows: from :func:`shared_rows`.
        patients: case id to patient.
        resamples: of the bootstrap.
    """
    found = []
    for scored in arms:
        own = rows.get(scored.arm.name)
        if own is None:
            continue
        cohort = case_facts(own)
        regions = list(dict.fromkeys(row.region for row in own))
        figures = {
            (region, metric): summarise_groups(
                own,
                [Everyone()],
                cohort=cohort,
                region=region,
                metric=metric,
                patients=patients,
                resamples=resamples,
            )[0]
            for region in regions
            for metric in dict.fromkeys([*plan.metrics, *plan.compare])
        }
        told = [unit.read() for unit in scored.finished]
        segmented = sum(each.get("segmented", 0) for each in told)
        losses = [(each["test_loss"], each["cases"]) for each in told if each.get("test_loss") is not None]
        found.append(
            ArmFigures(
                name=scored.arm.name,
                title=scored.arm.title,
                network=scored.arm.network or "the bundle's own",
                n=len(cohort),
                units_done=len(told),
                units=len(scored.units),
                figures=figures,
                parameters=told[0].get("parameters"),
                epochs=tuple(sorted({each.get("epochs", 0) for each in told})),
                training_seconds=sum(each.get("training_seconds", 0.0) for each in told),
                segment_seconds=sum(each.get("segment_seconds", 0.0) for each in told) / segmented
                if segmented
                else None,
                test_loss=sum(loss * cases for loss, cases in losses) / sum(cases for _, cases in losses)
                if losses
                else None,
                weights_sha256=tuple(str(each.get("weights_sha256", "")) for each in told),
            )
        )
    return found


def compare_arms(
    plan: Plan,
    rows: Mapping[str, Sequence[RegionScore]],
    *,
    patients: Mapping[str, str],
    resamples: int = RESAMPLES,
) -> list[Compared]:
    """Every arm against the reference arm, case by case; Holm's correction runs over all arms and regions of a metric.

    Args:
        plan: the study.
        rows: from :func:`shared_rows`.
        patients: case id to patient.
        resamples: of the bootstrap.
    """
    if plan.reference not in rows:
        return []
    reference = rows[plan.reference]
    regions = list(dict.fromkeys(row.region for row in reference))
    found = []
    for metric in plan.compare:
        pairs = [(arm, region) for arm in rows if arm != plan.reference for region in regions]
        compared = [
            compare_paired(
                by_case(rows[arm], region=region, metric=metric),
                by_case(reference, region=region, metric=metric),
                patients=patients,
                resamples=resamples,
            )
            for arm, region in pairs
        ]
        adjusted = holm([each.p_value for each in compared])
        tests = sum(p is not None for p in adjusted)
        found += [
            Compared(
                arm=arm,
                reference=plan.reference,
                region=region,
                metric=metric,
                comparison=each,
                adjusted_p=p,
                sentence=f"{region}: "
                + verdict(each, metric=metric, first=arm, second=plan.reference, adjusted_p=p, tests=tests),
            )
            for (arm, region), each, p in zip(pairs, compared, adjusted, strict=True)
        ]
    return found


def without_modalities(
    plan: Plan,
    arms: Sequence[Scored],
    rows: Mapping[str, Sequence[RegionScore]],
    *,
    patients: Mapping[str, str],
    resamples: int = RESAMPLES,
) -> list[WithoutModality]:
    """Every arm without each of its modalities against itself on whole cases; Holm's correction as above.

    Args:
        plan: the study.
        arms: all of them.
        rows: from :func:`shared_rows`; the cases of these are compared.
        patients: case id to patient.
        resamples: of the bootstrap.
    """
    found = []
    for metric in plan.compare:
        asked = [
            (arm.arm.name, modality, region, less)
            for arm in arms
            if arm.arm.name in rows
            for modality, less in arm.missing.items()
            for region in dict.fromkeys(row.region for row in less)
        ]
        values = []
        for name, _, region, less in asked:
            whole = by_case(rows[name], region=region, metric=metric)
            lost = by_case(less, region=region, metric=metric)
            values.append(({case_id: lost[case_id] for case_id in whole}, whole))
        compared = [compare_paired(lost, whole, patients=patients, resamples=resamples) for lost, whole in values]
        adjusted = holm([each.p_value for each in compared])
        for (name, modality, region, _), (lost, _), each, p in zip(asked, values, compared, adjusted, strict=True):
            found.append(WithoutModality(name, modality, region, metric, mean_over_patients(lost, patients), each, p))
    return found


def rank_arms(
    plan: Plan,
    rows: Mapping[str, Sequence[RegionScore]],
    *,
    patients: Mapping[str, str],
    resamples: int = RESAMPLES,
) -> Ranking | None:
    """The arms ranked as runs of a BraTS challenge are; None for fewer than two, or where nothing can be ranked."""
    if len(rows) < 2:
        return None
    try:
        return rank_runs(rows, metrics=plan.ranking, patients=patients, resamples=resamples)
    except ValueError:
        return None
