"""What a plan gives reason to doubt, in words: a teacher that guesses, images in which nothing was found."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fgdd_fast.models.network import Teacher
from fgdd_fast.planning import Plan

_NAMED = 5  # classes in a warning


def doubts(plan: Plan, teacher: Teacher) -> Iterator[str]:
    """Yield a warning for each reason not to trust a plan.

    Args:
        plan: what was decided.
        teacher: by whose losses.
    """
    yield from _of_the_teacher(plan, teacher)
    yield from _of_nothing_found(plan)


def _of_the_teacher(plan: Plan, teacher: Teacher) -> Iterator[str]:
    """Whether the teacher does not recognise whole images, whose losses then mean nothing."""
    bundle = teacher.bundle
    chance, loss = math.log(len(bundle.classes or ())), plan.mean_full_loss()
    if loss < chance:
        return
    fills_the_view = bundle.tile_of is None and teacher.tile_size >= bundle.preprocessing.width
    advice = "are its classes these? Run: fgdd-fast teacher check"
    if teacher.view != "resize" and not fills_the_view:
        size = teacher.tile_size
        advice += f" Or are tiles of {size} pixels too small for it as it sees them? Try: --score-view resize"
    yield (
        f"The teacher's mean loss on whole images is {loss:.2f}, no better than guessing ({chance:.2f}): "
        f"{advice}"
    )


def _of_nothing_found(plan: Plan) -> Iterator[str]:
    """Whether there are images that have no foreground, where a rule asks for it."""
    counts = {part.name: part.selection.nothing_found for part in plan.classes}
    if not plan.settings.rule.needs_foreground or not any(counts.values()):
        return
    images = sum(len(part.occupancies) for part in plan.classes)
    most = sorted(counts, key=lambda name: -counts[name])[:_NAMED]
    named = ", ".join(f"{name} {counts[name]}" for name in most if counts[name])
    more = ", ..." if sum(map(bool, counts.values())) > _NAMED else ""
    yield (
        f"In {sum(counts.values())} of {images} images no foreground was found ({named}{more}): they give "
        "crops, after all others. If it is there, try another --foreground, or other --prompts."
    )
