"""Handing cases to a bundle's own configuration."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import open_workflow, plain_errors
from brats_pipeline.inference.ensembles import COMBINE
from brats_pipeline.inference.result import Segmentation


def run_bundle(
    root: Path,
    items: Sequence[Mapping[str, Any]],
    device: str | None,
    overrides: Mapping[str, Any],
    result: Segmentation,
    begin: Callable[[], None],
    on_case: Callable[[str], None] | None,
    combining: Mapping[str, Any],
) -> None:
    """Segment cases as ``python -m monai.bundle run`` would by ``inference.yaml``.

    Args:
        root: the bundle.
        items: the cases, as items of a datalist.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default what the configuration says.
        overrides: id to value, given by a person.
        result: what becomes of each case is noted here, whatever happens.
        begin: called before the first case.
        on_case: called after each case with its id, when what became of it is noted; from one thread at a time.
        combining: id to value of the overlay that averages the members of an ensemble; empty without one.

    Raises:
        PipelineError: the configuration refuses to start, or an error that is not about one case ended the run.
    """
    from ignite.engine import Events

    with tempfile.TemporaryDirectory(prefix="brats-pipeline-") as folder:
        listing = Path(folder) / "datalist.json"
        listing.write_text(json.dumps({"testing": list(items)}), encoding="utf-8")
        own = {"data_list_file_path": str(listing), "output_dir": str(result.out), "share": "1/1"}
        runtime: dict[str, Any] = {**overrides, **combining, **own}
        configs = ["inference.yaml", COMBINE] if combining else ["inference.yaml"]
        if device is not None:
            runtime["device"] = f"$torch.device('{device}')"
        workflow = open_workflow(root, configs, workflow_type="infer", overrides=runtime, changed=overrides)
        with plain_errors(overrides):
            evaluator = workflow.parser.get_parsed_content("evaluator")

        noted: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (result.failed, evaluator.failures),
            (result.seconds, evaluator.seconds),
            (result.hashes, evaluator.hashes),
            (result.unlike, evaluator.unlike),
        ]
        one_at_a_time = threading.Lock()  # what cannot be loaded and what was written are told by different threads

        def finished(case_id: str) -> None:
            with one_at_a_time:
                for here, there in noted:
                    if case_id in there:
                        here[case_id] = there[case_id]
                if case_id not in result.failed:
                    result.done.append(case_id)
                if on_case is not None:
                    on_case(case_id)

        evaluator.add_event_handler(Events.STARTED, begin)
        evaluator.watchers.append(finished)
        try:
            with plain_errors(overrides):
                workflow.run()
                workflow.finalize()
        finally:
            for here, there in noted:
                here.update(there)
