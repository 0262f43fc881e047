"""What a training can die of, in words that say what to do."""

from __future__ import annotations

from pathlib import Path

import torch

from brats_pipeline.errors import PipelineError, root_cause, was_interrupted

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "DefaultCPUAllocator",
    "ALLOC_FAILED",  # cuBLAS and cuDNN have codes of their own
)
PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "NCCL communicator was aborted", "remote process")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)


def kept(last: Path) -> str:
    """What is left of a run whose training died."""
    if last.is_file():
        return f"the checkpoint of the last whole epoch is kept in {last}"
    return "no epoch was finished, so there is no checkpoint"


def explained(error: BaseException, *, epoch: int, last: Path) -> BaseException:
    """The error to raise instead of one that ended a training; the same where there is nothing to add.

    Args:
        error: that reached the trainer.
        epoch: in which it happened.
        last: where the checkpoint of the last whole epoch lies, if there is one.
    """
    cause = root_cause(error) if isinstance(error, Exception) else error
    if was_interrupted(error) or isinstance(cause, PipelineError):
        return error
    if ran_out_of_memory(cause):
        where = "of the GPU" if isinstance(cause, torch.OutOfMemoryError) or "CU" in str(cause) else "of the machine"
        return PipelineError(
            f"the memory {where} did not suffice in epoch {epoch} ({_first_line(cause)}); {kept(last)}. Lower "
            "batch_size, patch_size or network_def::features (in validation roi_size), then train again, or --resume"
        )
    if "DataLoader worker" in str(cause):
        return PipelineError(
            f"a process that loads data was ended from outside in epoch {epoch}, often for want of memory "
            f"({_first_line(cause)}); {kept(last)}. Lower num_workers, then --resume"
        )
    if isinstance(cause, OSError):
        return PipelineError(f"{cause} ({type(cause).__name__}) in epoch {epoch}; {kept(last)}")
    if any(sign in str(cause) for sign in PEER_GONE):
        return PipelineError(
            f"another process of this training ended in epoch {epoch}, see its message above ({_first_line(cause)}); "
            f"{kept(last)}"
        )
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
