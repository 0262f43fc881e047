"""What series are called: words that tell a modality, contrast agent, or something that is no modality."""

from __future__ import annotations

import re
from collections.abc import Mapping

NEVER: Mapping[str, str] = {
    "diffusion": r"adc|eadc|dwi|dti|diff\w*|trace\w*|ep2d|b ?[1-9]\d{2,3}|hardi|noddi|average dc|fractional anis\w*",
    "susceptibility": r"swi|swan|swip|suscept\w*|veno\w*|hemo|t2star|mag images|pha images",
    "perfusion": r"perf\w*|dsc|dce|p?c?asl|r?cbf|r?cbv|mtt|ttp|tmax|ktrans|dynamic|dyn|gbp|pbp|leakage",
    "localizer": r"loc|locali[sz]er|scout|survey|aahead\w*|3 ?plane|smartbrain|cal|calib\w*",
    "projection": r"mip|minip|mnip|projection|3d saved state|screen ?save\w*",
    "subtraction": r"sub|subtr\w*",
    "function": r"bold|fmri|resting\w*",
    "vessels": r"mra|mrv|tof|angio\w*|pca",
    "spectrum": r"spectro\w*|svs|csi|mrs|press",
    "map of the field": r"field ?map\w*|b0|b1|phase map|gre field",
    "map of a time": r"t1 ?maps?|t2 ?maps?|relax\w*",
    "steady state": r"ciss|fiesta\w*|b?ssfp|trufi\w*|true ?fisp|btfe",
    "part of an MP2RAGE": r"inv ?[12]",
}
"""Why a series is never a modality, to words of its name."""
NEVER_TYPES: Mapping[str, frozenset[str]] = {
    "diffusion": frozenset({"ADC", "DIFFUSION", "TRACEW", "FA", "TENSOR", "DIFFUSION_ANISO", "ISOTROPIC"}),
    "susceptibility": frozenset({"SWI", "MNIP", "T2_STAR MAP"}),
    "perfusion": frozenset({"PERFUSION", "CBF", "CBV", "MTT", "TTP", "ASL", "RELCBF", "RELCBV", "RELMTT"}),
    "localizer": frozenset({"LOCALIZER"}),
    "projection": frozenset({"MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "PJN", "CSA MIP"}),
    "subtraction": frozenset({"SUB", "SUBTRACTION", "SUBTRACT", "PROCESSED SUBTRACTION"}),
    "phase": frozenset({"P", "PHASE", "PHASE MAP", "VELOCITY MAP"}),
    "map": frozenset({"T1 MAP", "T2 MAP", "R2", "R2_STAR MAP", "B0 MAP"}),
}
"""Why a series is never a modality, to values of its ImageType."""

T1 = r"t1|mprage\w*|mp rage|mp2rage|f?spgr|bravo|vibe|thrive|tfl"
T2 = r"t2"
FLAIR = r"\w*flair\w*|dark ?fluid|tirm|da fl|space ir"
GRADIENT_ECHO = r"gre|ffe|flash|fl2d|fl3d|medic|merge"
AFTER = (
    r"gd|gad|gado\w*|\w*post|post ?con\w*|postgad\w*|contrast|contrasted|with con\w*|km|kontrast|ce|wc|enhanced|"
    r"dotarem|gadovist|gadavist|magnevist|multihance|prohance|clariscan|inj\w*|apres|contraste|mdc|pluscontrast|t1 c"
)
BEFORE = (
    r"\w*pre|precon\w*|pregad\w*|without\w*|wo|no con\w*|non ?con\w*|native?|plain|unenhanced|sans|ohne|avant|"
    r"(?:vor|o) (?:km|kontrast\w*|gd|gado\w*|gabe|inj\w*)|vor$|(?:sin|senza|sem) (?:contraste|mdc|gad\w*)|minuscontrast"
)
BOTH = (
    r"w wo|w minuscontrast|with and without|pre and post|pre post|vor (?:und |u )?nach|"
    r"minuscontrast pluscontrast|pluscontrast minuscontrast"
)
"""Names that speak of before and after: the exam, not the series."""
NO_AGENT = frozenset({"NO", "NONE", "N", "N/A", "NO CONTRAST", "WITHOUT", "OHNE", "KEIN", "KEINES", "0"})
"""What stands for no agent in ContrastBolusAgent."""
TREATED = r"(?<![a-z0-9])(?:pre|post)[ ._-]*(?:op|operat[a-z]*|surg[a-z]*|resect[a-z]*|biops[a-z]*)(?![a-z])"
"""Before or after a treatment, which says nothing of contrast agent."""


def plain(text: str) -> str:
    """A name in lower case with one blank between words: ``T1W_tse+C`` to ``t1 w tse pluscontrast``."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    text = re.sub(TREATED, " ", text)
    text = re.sub(r"t2[ _]?\*|t2[ _]?star", " t2star ", text)
    text = re.sub(r"\+ ?/ ?-|- ?/ ?\+", " w wo ", text)
    text = re.sub(r"\+ ?(c|gd|gad\w*|km|con\w*)?(?![a-z])|(?<![a-z])c ?\+", " pluscontrast ", text)
    text = re.sub(
        r"(?<![a-z0-9])w/o|(?<=[ _])-(?:c|km)(?![a-z])|(?<![a-z])(?:c|km)-(?![a-z0-9])", " minuscontrast ", text
    )
    text = re.sub(r"t([12])(?=[a-z])(?!star)", r"t\1 ", text)
    return " ".join(re.split(r"[^a-z0-9]+", text)).strip()


def has(words: str, pattern: str) -> bool:
    """Whether whole words of a plain name fit a pattern."""
    return re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", words) is not None
