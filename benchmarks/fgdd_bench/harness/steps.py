"""Steps that follow each other: what runs in one go is what runs stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fgdd_bench.harness.ways import Stage, StageName


@dataclass(frozen=True)
class Step:
    """One step of a way.

    Attributes:
        name: the stage that it is.
        do: from an item (an image, a group of images or a mosaic) and from what the step before made of it
            (None at first) to what this one makes of it.
        threads: processor threads that it keeps busy.
    """

    name: StageName
    do: Callable[[Any, Any], Any]
    threads: int = 1


def run_steps(steps: Sequence[Step], item: Any) -> Any:
    """What all steps together make of an item."""
    value = None
    for step in steps:
        value = step.do(item, value)
    return value


def as_stages(
    steps: Sequence[Step], items: Sequence[Any], *, inputs: Sequence[Any] | None = None, images: int = 1
) -> tuple[list[Stage], list[Any]]:
    """Each step as a stage, whose inputs are made here by the steps before it.

    Args:
        steps: one after the other.
        items: what they work on, one in each call.
        inputs: what the first step gets with each item.
        images: how many images an item covers.

    Returns:
        (the stages, what the last step makes of each item).
    """
    stages: list[Stage] = []
    values = list(inputs) if inputs is not None else [None] * len(items)
    for step in steps:
        run = partial(_call, step, items, values)
        stages.append(Stage(step.name, run, len(items), images, step.threads))
        values = [run(index) for index in range(len(items))]
    return stages, values


def _call(step: Step, items: Sequence[Any], inputs: Sequence[Any], index: int) -> Any:
    return step.do(items[index], inputs[index])


def groups(count: int, size: int) -> list[list[int]]:
    """Indices below `count` in groups of exactly `size`: the last is filled up from the beginning."""
    return [[(start + place) % count for place in range(size)] for start in range(0, count, size)]
