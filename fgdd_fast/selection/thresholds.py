"""Rules that choose, class by class, between an image's full view and its best crop.

A rule turns the foreground occupancies of a class's images into a threshold; an image whose occupancy is
at least the threshold is kept whole. An image in which nothing was found has no say in the threshold, and is
never kept whole by it, for nothing dominates it. `always-patch` is RDED (Sun et al., CVPR 2024). The controls
`shuffled:` and `inverted:` give the rule wrong occupancies on purpose: a gain that survives them does not
come from the foreground. A new rule is a function with `threshold_rule`, here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.seeding import seeded_hash
from fgdd_fast.selection.records import ImageRecord, TileKind

Control = Literal["shuffled", "inverted"]
RuleThreshold = Callable[[Sequence[float], float], float]
"""Turns a class's occupancies (at least one, in (0, 1]) and a rule's value into a threshold in [0, 1].

Images in which nothing was found are left out; where that leaves none, it is given a 1.
"""


@dataclass(frozen=True)
class RuleKind:
    """A kind of rule.

    Attributes:
        threshold: gives a class's threshold.
        value: letter that stands for the rule's value, from 0 to 1, in help texts; None where it has none.
        always: what every image gives, whatever its occupancy; None where the threshold decides.
    """

    threshold: RuleThreshold
    value: str | None = None
    always: TileKind | None = None


RULE_KINDS: dict[str, RuleKind] = {}


def threshold_rule(
    name: str, *, value: str | None = None, always: TileKind | None = None
) -> Callable[[RuleThreshold], RuleThreshold]:
    """Register a function as a kind of rule; `--rule` and its help know it by its name.

    Args:
        name: what users write, followed by a colon and the value where it has one.
        value, always: see `RuleKind`.
    """

    def register(threshold: RuleThreshold) -> RuleThreshold:
        RULE_KINDS[name] = RuleKind(threshold, value, always)
        return threshold

    return register


# Where all occupancies are equal, the threshold of a rule is exactly they, and every image stays whole. (A
# mean by plain summation can miss it: that of three times 0.1 comes out above 0.1.)


@threshold_rule("quantile", value="Q")
def _quantile(occupancies: Sequence[float], value: float) -> float:
    return float(np.quantile(np.array(occupancies, np.float64), value))


@threshold_rule("mean")
def _mean(occupancies: Sequence[float], value: float) -> float:  # noqa: ARG001 - it has none
    return statistics.mean(occupancies)


@threshold_rule("median")
def _median(occupancies: Sequence[float], value: float) -> float:  # noqa: ARG001
    return statistics.median(occupancies)


@threshold_rule("otsu")
def _otsu(occupancies: Sequence[float], value: float) -> float:  # noqa: ARG001
    """Split a class in two where the occupancies of both parts lie farthest apart; the upper part is whole.

    Source: Otsu, "A threshold selection method from gray-level histograms" (IEEE Transactions on Systems,
    Man, and Cybernetics, 1979), without a histogram.
    """
    ordered = np.sort(np.array(occupancies, np.float64))
    lower = np.arange(1, len(ordered))
    upper = len(ordered) - lower
    sums = ordered.cumsum()[:-1]
    apart = lower * upper * ((ordered.sum() - sums) / upper - sums / lower) ** 2
    return float(ordered[1 + apart.argmax()]) if ordered[0] < ordered[-1] else float(ordered[0])


@threshold_rule("fixed", value="T")
def _fixed(occupancies: Sequence[float], value: float) -> float:  # noqa: ARG001
    return value


@threshold_rule("always-patch", always="crop")
def _always_patch(occupancies: Sequence[float], value: float) -> float:  # noqa: ARG001
    return 1.0


@threshold_rule("always-full", always="full")
def _always_full(occupancies: Sequence[float], value: float) -> float:  # noqa: ARG001
    return 0.0


RULE_NAMES = [f"{name}:0.3" if kind.value else name for name, kind in RULE_KINDS.items()]  # to choose from
RULES_HELP = (
    "Rules: "
    + ", ".join(f"{name}:{kind.value} (0 to 1)" if kind.value else name for name, kind in RULE_KINDS.items())
    + "; controls: "
    + ", ".join(f"{name}:RULE" for name in get_args(Control))
)


@dataclass(frozen=True)
class Rule:
    """A threshold rule; `str` gives the text from which it is parsed.

    Attributes:
        kind: one of `RULE_KINDS`: how the threshold follows from the occupancies.
        value: such as a quantile, in [0, 1]; None for the kinds that need none.
        control: how occupancies are exchanged between a class's images first; None to leave them.
    """

    kind: str
    value: float | None = None
    control: Control | None = None

    @property
    def needs_foreground(self) -> bool:
        """Whether the foreground of images plays a part."""
        return RULE_KINDS[self.kind].always is None

    def __str__(self) -> str:
        parts = (self.control, self.kind, self.value)
        return ":".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True)
class ClassDecision:
    """What a rule says of one class.

    Attributes:
        threshold: the occupancy in [0, 1] from which an image is kept whole.
        kinds: for each record, in the order given, what its image gives.
        found: for each record, whether the rule sees a foreground in its image, or asks for none.
        seen: for each record, that whose occupancy decides: itself, or under a control another.
    """

    threshold: float
    kinds: tuple[TileKind, ...]
    found: tuple[bool, ...]
    seen: tuple[ImageRecord, ...]


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
    name, colon, value_text = plain.partition(":")
    kind = RULE_KINDS.get(name)
    if kind is not None and bool(colon) == (kind.value is not None):
        value = _share(value_text) if colon else None
        if value is not None or not colon:
            return Rule(name, value, control)
    raise SettingsError(f"'{text}' is no threshold rule", RULES_HELP)


def _share(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return abs(value) if 0 <= value <= 1 else None  # abs: -0.0 is 0.0


def threshold_of(rule: Rule, occupancies: Sequence[float]) -> float:
    """Return the threshold, in [0, 1], that a rule sets for a class's occupancies, each in [0, 1]."""
    known = [occupancy for occupancy in occupancies if occupancy > 0]
    return RULE_KINDS[rule.kind].threshold(known or [1.0], rule.value or 0.0)


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
    kind = RULE_KINDS[rule.kind]
    if kind.value is not None and rule.value is None:
        raise ValueError(f"the rule {rule.kind} needs a value")
    threshold = threshold_of(rule, [record.occupancy for record in records])
    if kind.always is not None:
        count = len(records)
        return ClassDecision(threshold, (kind.always,) * count, (True,) * count, tuple(records))
    seen = _controlled(rule.control, records, seed)
    occupancies = [record.occupancy for record in seen]
    return ClassDecision(
        threshold,
        tuple("full" if each >= threshold and each > 0 else "crop" for each in occupancies),
        tuple(each > 0 for each in occupancies),
        tuple(seen),
    )


def _controlled(control: Control | None, records: Sequence[ImageRecord], seed: int) -> Sequence[ImageRecord]:
    """The record whose occupancy the rule sees for each: its own, or under a control another's."""
    if control is None:
        return records
    if control == "inverted":
        takers = sorted(records, key=lambda record: (record.occupancy, record.source))
        givers = takers[::-1]
    else:
        takers = sorted(records, key=lambda record: record.source)
        givers = sorted(records, key=lambda record: seeded_hash("fgdd shuffle", seed, record.source).digest())
    seen = {taker.source: giver for taker, giver in zip(takers, givers, strict=True)}
    return [seen[record.source] for record in records]
