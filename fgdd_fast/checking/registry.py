"""The checks: each a function over what a scan saw, registered by the code of its findings.

A check is one function, `@check("code", "severity", needs=..., about=...)`, that yields what it finds; its
module is imported by `fgdd_fast.checking.check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from fgdd_fast.checking.findings import Finding, Severity
from fgdd_fast.checking.seen import Seen

Need = Literal["names", "files", "pixels", "models"]
NEEDS: tuple[Need, ...] = get_args(Need)


class Found(NamedTuple):
    """A finding without its code; its severity is the check's, unless it says another."""

    message: str
    advice: str
    files: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    severity: Severity | None = None


@dataclass(frozen=True)
class Check:
    """A kind of oddity, and how it is found.

    Attributes:
        code: of its findings.
        severity: theirs, unless a finding says another.
        needs: the most that it looks at: `names` of files and folders, `files` (sizes and first bytes, of
            some all bytes), `pixels` of every image, or answers of `models`.
        about: what it finds, in a few words.
        find: yields what it finds.
    """

    code: str
    severity: Severity
    needs: Need
    about: str
    find: Callable[[Seen], Iterable[Found]]

    def run(self, seen: Seen) -> Iterator[Finding]:
        """Yield the findings."""
        for found in self.find(seen):
            files = found.files or tuple(file for group in found.groups for file in group)
            severity = found.severity or self.severity
            yield Finding(self.code, severity, found.message, found.advice, files, found.groups)


CHECKS: dict[str, Check] = {}
"""Every check by its code."""


def check(
    code: str, severity: Severity, *, needs: Need, about: str
) -> Callable[[Callable[[Seen], Iterable[Found]]], Callable[[Seen], Iterable[Found]]]:
    """Register a function that yields what it finds; see `Check`."""

    def register(find: Callable[[Seen], Iterable[Found]]) -> Callable[[Seen], Iterable[Found]]:
        CHECKS[code] = Check(code, severity, needs, about, find)
        return find

    return register
