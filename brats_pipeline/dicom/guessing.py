"""Which modality a series is, from what it is called and how it was taken.

Names come first, as people gave them; the times of the sequence must not contradict them, and decide where the name
says nothing. What is computed from other images or shows something else than anatomy (diffusion, perfusion,
susceptibility, angiography, spectra, localizers, projections, subtractions) is never a modality.
"""

from __future__ import annotations

from dataclasses import dataclass

from brats_pipeline.dicom import words as known
from brats_pipeline.dicom.finding import Series
from brats_pipeline.dicom.headers import number_of, text_of
from brats_pipeline.dicom.words import has, plain

FEWEST_SLICES = 8
"""Fewer slices do not cover a head: a localizer, or a test."""


@dataclass(frozen=True)
class Guess:
    """What a series was taken to be.

    Args:
        modality: ``t1c``, ``t1``, ``t2``, ``flair``, or None.
        why: in a few words.
        sure: False where nothing but the header's contrast agent makes a T1c of a T1, or where the two disagree.
        disputed: whether name and header disagree about contrast agent, so that only a person can tell.
    """

    modality: str | None
    why: str
    sure: bool = True
    disputed: bool = False


def guess(series: Series) -> Guess:
    """Say which modality a series is, and why."""
    words = plain(text_of(series.header, "SeriesDescription"))
    if _named(words) is None and _never(series, words) is None:  # a protocol is often named for the whole exam
        words = plain(text_of(series.header, "ProtocolName"))
    if excluded := _never(series, words):
        return Guess(None, excluded)
    named, timed = _named(words), _timed(series)
    times = _told(series)
    if named == "t2" and (has(words, known.GRADIENT_ECHO) or "GR" in _sequence(series)):
        return Guess(None, "T2* of a gradient echo")
    if named is not None and timed is not None and named != timed:
        return Guess(None, f"called {named}, but {times} are those of {timed}")
    kind = named or timed
    if kind is None or kind == "pd":
        return Guess(None, f"neither name nor times tell ({times})" if times else "neither name nor times tell")
    why = f"called {kind}" if named else times
    if kind != "t1":
        return Guess(kind, why)
    return _contrast(series, words, why)


def _sequence(series: Series) -> set[str]:
    return set(text_of(series.header, "ScanningSequence").upper().split("\\"))


def _never(series: Series, words: str) -> str | None:
    """Why a series is no modality whatever else it says."""
    types = {part.strip().upper() for part in text_of(series.header, "ImageType").split("\\")}
    for why, values in known.NEVER_TYPES.items():
        if types & values:
            return why
    for why, pattern in known.NEVER.items():
        if has(words, pattern):
            return why
    if "EP" in _sequence(series):
        return "echo planar"
    frames = number_of(series.header, "NumberOfFrames") or 1
    if len(series.instances) * frames < FEWEST_SLICES:
        return f"fewer than {FEWEST_SLICES} images"
    return None


def _named(words: str) -> str | None:
    """The modality by name; T1 FLAIR, as one vendor calls a T1, is a T1."""
    t1, t2, flair = (has(words, pattern) for pattern in (known.T1, known.T2, known.FLAIR))
    if flair and not t1:
        return "flair"
    if t1 and t2:
        return None
    return "t1" if t1 else "t2" if t2 else None


def _timed(series: Series) -> str | None:
    """The contrast by echo, repetition and inversion time in milliseconds; None where they leave it open."""
    header = series.header
    echo, repetition = number_of(header, "EchoTime"), number_of(header, "RepetitionTime")
    inversion, flip = number_of(header, "InversionTime") or 0, number_of(header, "FlipAngle")
    if echo is None or repetition is None or echo <= 0 or repetition <= 0:
        return None
    if 300 <= inversion <= 1400 and echo < 40:
        return "t1"
    if repetition < 1200:
        if "SE" in _sequence(series):
            return "t1" if echo < 40 else None
        steady = repetition < 15 and (flip is None or flip > 40)  # bright fluid: no T1
        return "t1" if echo < 10 and not steady else None
    if repetition >= 1800 and echo >= 60:
        return "flair" if inversion >= 1400 else "t2"
    if repetition >= 1800 and echo < 40 and not inversion:
        return "pd"
    return None


def _told(series: Series) -> str:
    """The times in words."""
    pairs = (("TR", "RepetitionTime"), ("TE", "EchoTime"), ("TI", "InversionTime"))
    found = [(short, number_of(series.header, keyword)) for short, keyword in pairs]
    return " ".join(f"{short} {value:.4g}" for short, value in found if value)


def _contrast(series: Series, words: str, why: str) -> Guess:
    """Whether a T1 was taken after contrast agent was given: by name, else by the agent in its header."""
    agent = text_of(series.header, "ContrastBolusAgent")
    given = agent.upper() not in known.NO_AGENT if agent else None
    after = _after(words)
    if after is None and given:
        return Guess("t1c", f"{why}, contrast agent in its header", sure=False)
    if after is None:
        return Guess("t1", f"{why}, no contrast agent")
    why += f", named as {'after' if after else 'before'} contrast"
    disputed = given is not None and given != after
    if disputed:
        why += f", but as agent its header has {agent}"
    return Guess("t1c" if after else "t1", why, sure=not disputed, disputed=disputed)


def _after(words: str) -> bool | None:
    """Whether a name is that of a scan after contrast agent was given; None where it leaves that open."""
    if has(words, known.BOTH):
        return None
    if has(words, known.BEFORE):
        return False
    return True if has(words, known.AFTER) else None
