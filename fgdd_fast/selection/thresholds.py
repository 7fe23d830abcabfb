"""Rules that choose, class by class, between an image's full view and its best crop.

A rule turns the foreground occupancies of a class's images into a threshold; an image whose occupancy is
at least the threshold is kept whole. `always-patch` is RDED (Sun et al., CVPR 2024). The controls `shuffled:`
and `inverted:` give the rule wrong occupancies on purpose: a gain that survives them does not come from the
foreground.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.seeding import seeded_hash
from fgdd_fast.selection.records import ImageRecord, TileKind

Kind = Literal["quantile", "mean", "median", "fixed", "always-patch", "always-full"]
Control = Literal["shuffled", "inverted"]

RULES_HELP = (
    "Rules: quantile:Q (0 to 1), mean, median, fixed:T (0 to 1), always-patch, always-full; "
    "controls: shuffled:RULE, inverted:RULE"
)
_WITH_VALUE: tuple[Kind, ...] = ("quantile", "fixed")
_CONSTANT: dict[Kind, tuple[float, TileKind]] = {"always-patch": (1.0, "crop"), "always-full": (0.0, "full")}


@dataclass(frozen=True)
class Rule:
    """A threshold rule; `str` gives the text from which it is parsed.

    Attributes:
        kind: how the threshold follows from the occupancies.
        value: the quantile or the fixed threshold, in [0, 1]; None for the kinds that need none.
        control: how occupancies are exchanged between a class's images first; None to leave them.
    """

    kind: Kind
    value: float | None = None
    control: Control | None = None

    def __str__(self) -> str:
        parts = (self.control, self.kind, self.value)
        return ":".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True)
class ClassDecision:
    """What a rule says of one class.

    Attributes:
        threshold: the occupancy in [0, 1] from which an image is kept whole.
        kinds: for each record, in the order given, what its image gives.
    """

    threshold: float
    kinds: tuple[TileKind, ...]


def parse_rule(text: str) -> Rule:
    """Parse a rule such as `quantile:0.3`, `always-patch` or `shuffled:mean`.

    Raises:
        SettingsError: the text is no rule; the advice lists the rules.
    """
    control: Control | None = None
    plain = text
    for name in get_args(Control):
        if text.startswith(f"{name}:"):
            control, plain = name, text.removeprefix(f"{name}:")
    for kind in get_args(Kind):
        if kind in _WITH_VALUE and plain.startswith(f"{kind}:"):
            value = _share(plain.removeprefix(f"{kind}:"))
            if value is not None:
                return Rule(kind, value, control)
        elif kind not in _WITH_VALUE and plain == kind:
            return Rule(kind, None, control)
    raise SettingsError(f"'{text}' is no threshold rule", RULES_HELP)


def _share(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return abs(value) if 0 <= value <= 1 else None  # abs: -0.0 is 0.0


def decide(rule: Rule, records: Sequence[ImageRecord], seed: int) -> ClassDecision:
    """Apply a rule to one class; the order of the records plays no part.

    Args:
        rule: the rule.
        records: the class's images, at least one, each source once.
        seed: for the control `shuffled`.

    Raises:
        DataError: an occupancy is not within [0, 1].
    """
    for record in records:
        if not 0 <= record.occupancy <= 1:
            raise DataError(
                f"The foreground occupancy of '{record.source}' is {record.occupancy}, not within 0 to 1",
                "Check the foreground model; measure again with one that works.",
            )
    if rule.kind in _CONSTANT:
        threshold, kind = _CONSTANT[rule.kind]
        return ClassDecision(threshold, tuple(kind for _ in records))
    occupancies = _controlled(rule.control, records, seed)
    threshold = _threshold(rule, [record.occupancy for record in records])
    return ClassDecision(
        threshold, tuple("full" if occupancy >= threshold else "crop" for occupancy in occupancies)
    )


def _threshold(rule: Rule, occupancies: list[float]) -> float:
    """The threshold of quantile, mean, median or fixed.

    Where all occupancies are equal, the threshold is exactly they, and every image stays whole. (A mean by
    plain summation can miss it: that of three times 0.1 comes out above 0.1.)
    """
    if rule.kind == "mean":
        return statistics.mean(occupancies)
    if rule.kind == "median":
        return statistics.median(occupancies)
    if rule.value is None:
        raise ValueError(f"the rule {rule.kind} needs a value")
    if rule.kind == "quantile":
        return float(np.quantile(np.array(occupancies, np.float64), rule.value))
    return rule.value


def _controlled(control: Control | None, records: Sequence[ImageRecord], seed: int) -> list[float]:
    """The occupancy that the rule sees for each record: its own, or under a control another's."""
    if control is None:
        return [record.occupancy for record in records]
    if control == "inverted":
        takers = sorted(records, key=lambda record: (record.occupancy, record.source))
        givers = takers[::-1]
    else:
        takers = sorted(records, key=lambda record: record.source)
        givers = sorted(records, key=lambda record: seeded_hash("fgdd shuffle", seed, record.source).digest())
    seen = {taker.source: giver.occupancy for taker, giver in zip(takers, givers, strict=True)}
    return [seen[record.source] for record in records]
