"""The errors a user can cause, and what the command line makes of them.

    PipelineError            the request or the data cannot be used          exit code 2
      CaseError              one case of a cohort cannot be used             exit code 1, or 2 when it was the only one

Every message says what came, what is needed and what to do. Wrong arguments of a function raise ``ValueError``; these
classes are for what a person hands over: files, folders, configurations.
"""

from __future__ import annotations


class PipelineError(Exception):
    """The request or the data cannot be used; the text is one clear message for a person."""


class CaseError(PipelineError):
    """One case cannot be used.

    Args:
        case_id: the case that the message is about.
        reason: what came, what is needed, what to do.
    """

    def __init__(self, case_id: str, reason: str) -> None:
        super().__init__(f"{case_id}: {reason}")
        self.case_id = case_id
        self.reason = reason


def was_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is what an error began with: a layer in between may have made another error of it."""
    seen: set[int] = set()  # an error raised from one that it caused itself makes a ring
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if isinstance(link, KeyboardInterrupt):
            return True
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return False


def root_cause(error: BaseException) -> BaseException:
    """The first :class:`PipelineError` in the chain of causes, else the innermost cause.

    MONAI wraps what a transform raises once for every layer of its engines.
    """
    while not isinstance(error, PipelineError):
        cause = error.__cause__ or error.__context__
        if cause is None:
            return error
        error = cause
    return error
