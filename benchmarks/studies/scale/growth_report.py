"""What the growth of cost comes to, as figures and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.studies.scale.growth import FLAT, LINEAR, Growth
from benchmarks.studies.scale.growth_runs import SizeRuns
from benchmarks.studies.scale.projection import IMAGENET

_TIMES = ("seconds", "processor_seconds")


def verdicts(grown: Growth) -> dict[str, dict[str, object]]:
    """What the growth comes to, with the bars that it is held to."""
    images = IMAGENET.classes * IMAGENET.pool
    memory = {command: lines["peak_memory"] for command, lines in grown.lines.items()}
    return {
        "time": {
            "linear": grown.per_image.linear,
            "most_that_an_image_may_differ": LINEAR,
            "compared": grown.per_image.compared,
            "ratio": grown.per_image.ratio,
            "processor_ratio": grown.per_image.processor_ratio,
        },
        "memory": {
            "flat": grown.flat,
            "most_bytes_per_1000_images": FLAT,
            "bytes_per_1000_images": {command: 1000 * line.slope for command, line in memory.items()},
            f"bytes_at_{images}_images": {
                command: line.start + line.slope * images for command, line in memory.items()
            },
        },
        "store": {"bytes_per_image": grown.store.slope},
        "again": {f"{name}_per_image": grown.lines["measure again"][name].slope for name in _TIMES},
        "distill": {f"further_{name}_per_image": _further(grown, name) for name in _TIMES},
    }


def _further(grown: Growth, name: str) -> float:
    """What an image adds to the time of `distill` when everything about it is known."""
    return grown.lines["distill"][name].slope - grown.lines["measure again"][name].slope


def show_growth(sizes: Sequence[SizeRuns], grown: Growth, console: Console) -> None:
    """Print what was measured on each number of images, and the verdicts."""
    console.print("Seconds of the clock / of the processor, and the peaks of memory of the three commands:")
    table = Table("images", box=SIMPLE)
    for heading in ("measure", "an image", "again", "distill", "memory, MB", "store, an image"):
        table.add_column(heading, justify="right")
    for size in sizes:
        images, each = size.runs[0].images, grown.per_image
        usages = [run.usage for run in size.runs]
        measure, again, distill = (f"{use.seconds:.1f} / {use.processor_seconds:.1f}" for use in usages)
        per_image = f"{1000 * each.seconds[images]:.1f} / {1000 * each.processor_seconds[images]:.1f} ms"
        memory = ", ".join(f"{use.peak_memory / 1e6:.0f}" for use in usages)
        stored = f"{size.store_bytes / images:,.0f} bytes"
        table.add_row(f"{images:,}", measure, per_image, again, distill, memory, stored)
    console.print(table)
    links, copies = sizes[-1].links, sizes[-1].copies
    console.print(f"The last are {links:,} links to photographs and {copies:,} numbered copies of them.")
    for sentence in _sentences(grown):
        console.print(sentence)


def _sentences(grown: Growth) -> Iterator[str]:
    each = grown.per_image
    standard, largest = each.compared
    yield (
        f"Time is {'' if each.linear else 'not '}linear: an image of {largest:,} takes {each.ratio:.2f} "
        f"times what one of {standard:,} takes, {each.processor_ratio:.2f} times in processor time (within "
        f"{LINEAR:.0%} counts as linear)."
    )
    slopes = ", ".join(
        f"{command} {lines['peak_memory'].slope / 1e3:+.2f} MB" for command, lines in grown.lines.items()
    )
    yield (
        f"Memory is {'' if grown.flat else 'not '}flat: the peak changes with each 1,000 images by: {slopes} "
        f"(up to {FLAT / 1e6:.0f} MB counts as flat)."
    )
    again = [1000 * grown.lines["measure again"][name].slope for name in _TIMES]
    further = [1000 * _further(grown, name) for name in _TIMES]
    yield (
        f"An image adds {grown.store.slope:,.0f} bytes to the store; where everything is known, it takes "
        f"{again[0]:.2f} ms ({again[1]:.2f} of the processor), and {further[0]:.2f} ms ({further[1]:.2f}) "
        "more to be decided on."
    )


def show_check(check: Mapping[str, Any], console: Console) -> None:
    """Print how the arithmetic of the projection fits what was run."""
    projected, measured = check["projected"], check["measured"]
    console.print(
        f"Measuring {check['images']:,} images takes {projected['seconds']:.0f} s by the projection's "
        f"arithmetic ({projected['processor_seconds']:.0f} s of the processor); it took "
        f"{measured['seconds']:.0f} s ({measured['processor_seconds']:.0f})."
    )
