"""What a check finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Finding:
    """Something odd about a data set.

    Attributes:
        code: what kind it is, such as `two-classes`; each is listed in `fgdd_fast.checking.registry.CHECKS`.
        severity: `error` where the work stops or its result is wrong; `warning` where the result may be
            worse than it seems; `note` for what is worth knowing.
        message: what was found, with its count, in a sentence.
        advice: what to do about it.
        files: the files or folders concerned: POSIX paths within the data set. Those of another folder, such
            as the validation images, begin with that folder.
        groups: where files belong together, such as copies of one picture: these, `files` in groups.
    """

    code: str
    severity: Severity
    message: str
    advice: str
    files: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


def matching(findings: Iterable[Finding], wanted: Sequence[str]) -> tuple[Finding, ...]:
    """Return the findings of which the code or the severity is among those wanted.

    `warning` also stands for errors, and `note` for everything.
    """
    severities = {each for name in wanted if name in SEVERITIES for each in _as_severe(name)}
    return tuple(each for each in findings if each.code in wanted or each.severity in severities)


def _as_severe(name: str) -> tuple[Severity, ...]:
    return SEVERITIES[: [*SEVERITIES].index(name) + 1]  # type: ignore[arg-type]


def some(names: Sequence[str], limit: int = 5) -> str:
    """Return the first of several names, quoted, for a sentence."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun, as in `1 image` and `3 images`."""
    return f"{count} {singular if count == 1 else plural or f'{singular}s'}"
