"""A cohort through a network: a bad case passed over, the last one written while the next is computed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from torch import nn

from brats_pipeline.errors import CaseError, PipelineError, root_cause
from brats_pipeline.inference.cohort import CohortEvaluator
from brats_pipeline.inference.inferers import AutocastInferer

CPU = torch.device("cpu")


class Probe(nn.Conv3d):
    """A 1x1x1 convolution that calls a function before it computes."""

    def __init__(self, before: Any = None) -> None:
        super().__init__(2, 3, kernel_size=1)
        self.before = before

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.before is not None:
            self.before()
        return super().forward(image)


def evaluator(names: str, postprocessing: Any, network: nn.Module | None = None, **more: Any) -> CohortEvaluator:
    data = [{"case_id": name, "image": torch.full((2, 4, 4, 4), float(ord(name)))} for name in names]
    return CohortEvaluator(
        device=CPU,
        val_data_loader=DataLoader(data, batch_size=1),
        network=network or Probe(),
        inferer=AutocastInferer("float32"),
        postprocessing=postprocessing,
        **more,
    )


def test_an_error_about_one_case_passes_it_over_whatever_it_was_wrapped_in() -> None:
    seen = []

    def finish(data: Any) -> Any:
        seen.append(data["case_id"])
        if data["case_id"] == "b":
            raise RuntimeError("a layer says that something failed") from CaseError("b", "its file is gone")
        return data

    engine = evaluator("abc", finish)
    told: list[str] = []
    engine.watchers.append(told.append)
    engine.run()
    assert seen == told == ["a", "b", "c"]
    assert engine.failures == {"b": "its file is gone"}


@pytest.mark.parametrize("names", ["a", "abcd"])
@pytest.mark.parametrize("error", [PipelineError("the disk is full"), ZeroDivisionError("a fault of the program")])
def test_an_error_that_is_not_about_the_case_ends_the_run(names: str, error: Exception) -> None:
    tried = []

    def finish(data: Any) -> Any:
        tried.append(data["case_id"])
        raise error

    engine = evaluator(names, finish)
    with pytest.raises(Exception, match=r".") as caught:
        engine.run()
    assert root_cause(caught.value) is error
    assert tried == ["a"]
    assert not engine.failures


def test_a_case_is_written_while_the_network_works_on_the_next() -> None:
    second_begun = threading.Event()
    passes: list[int] = []

    def before() -> None:
        passes.append(1)
        if len(passes) == 2:
            second_begun.set()

    def finish(data: Any) -> Any:
        if data["case_id"] == "a":
            assert second_begun.wait(10), "the network waits for the first case to be written"
        return data

    engine = evaluator("ab", finish, Probe(before))
    engine.run()
    assert len(passes) == 2
    assert set(engine.seconds) == {"a", "b"}
    assert all(set(stages) == {"network", "write"} for stages in engine.seconds.values())


def test_at_most_one_case_is_held_back() -> None:
    written: list[str] = []
    begun: list[int] = []

    def before() -> None:
        begun.append(1)
        assert len(begun) - len(written) <= 2

    engine = evaluator("abcdef", lambda data: written.append(data["case_id"]) or data, Probe(before))
    engine.run()
    assert written == list("abcdef")


def test_an_interrupt_lets_the_case_that_is_being_written_finish() -> None:
    written: list[str] = []
    hold = threading.Event()

    def before() -> None:
        if hold.is_set():
            raise KeyboardInterrupt

    def finish(data: Any) -> Any:
        hold.set()
        written.append(data["case_id"])
        return data

    with pytest.raises(KeyboardInterrupt):
        evaluator("a" * 50, finish, Probe(before)).run()
    assert written
    assert len(written) < 50


def test_what_watches_an_iteration_finds_the_result_of_the_post_processing() -> None:
    found: list[float] = []

    class Watch:
        def attach(self, engine: Any) -> None:
            from ignite.engine import Events

            engine.add_event_handler(
                Events.ITERATION_COMPLETED, lambda: found.append(float(engine.state.output[0]["pred"]))
            )

    engine = evaluator("ab", lambda data: {**data, "pred": torch.tensor(7.0)}, val_handlers=[Watch()])
    engine.run()
    assert found == [7.0, 7.0]
