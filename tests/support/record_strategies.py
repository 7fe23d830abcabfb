"""Image records for tests: plain ones to write by hand, and hypothesis strategies for any."""

from __future__ import annotations

import hashlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fgdd_fast.images.crops import Box
from fgdd_fast.selection.ranking import RANKINGS
from fgdd_fast.selection.records import ImageRecord, View
from fgdd_fast.selection.select import SelectionSettings

SIZE = 100
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make_record(
    source: str,
    occupancy: float = 0.5,
    full: float = 1.0,
    crops: tuple[float, ...] = (1.0, 2.0),
    content: str | None = None,
    kept: tuple[float, ...] = (),
    sides: tuple[int, ...] = (),
    perceptual_hash: int | None = None,
) -> ImageRecord:
    """A record of an image of 100 x 100 whose crops, of the losses given, lie side by side.

    Their sides are 50 pixels, and what they keep of the foreground is not known, unless it is given.
    """
    shares = kept or (None,) * len(crops)
    widths = sides or (50,) * len(crops)
    return ImageRecord(
        source=source,
        sha256=hashlib.sha256((content or source).encode("utf-8", "surrogateescape")).hexdigest(),
        class_name="cat",
        occupancy=occupancy,
        full=View(Box(0, 0, SIZE, SIZE), full),
        crops=tuple(
            View(Box(place, 0, side, side), loss, share)
            for place, (loss, side, share) in enumerate(zip(crops, widths, shares, strict=True))
        ),
        perceptual_hash=perceptual_hash,
    )


occupancies = st.floats(0, 1, width=32)
finite_losses = st.floats(0, 100, width=32)
any_losses = st.one_of(finite_losses, st.sampled_from([float("nan"), float("inf"), float("-inf")]))
sources = st.text(st.sampled_from("ab/'\" 🐱\udcff"), min_size=1, max_size=8)


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int) -> Box:
    left, right = sorted(draw(st.tuples(*[st.integers(0, width - 1)] * 2)))
    top, bottom = sorted(draw(st.tuples(*[st.integers(0, height - 1)] * 2)))
    return Box(left, top, right - left + 1, bottom - top + 1)


@st.composite
def image_records(draw: st.DrawFn, losses: st.SearchStrategy[float] = any_losses) -> ImageRecord:
    """A record of an image of any size; small sizes and few contents make equal boxes and bytes common."""
    width, height = draw(st.tuples(*[st.sampled_from([1, 2, 3, 640, 5000])] * 2))
    views = st.builds(View, boxes(width, height), losses, st.floats(0, 1, width=32))
    return ImageRecord(
        source=draw(sources),
        sha256=hashlib.sha256(bytes([draw(st.integers(0, 30))])).hexdigest(),
        class_name="cat",
        occupancy=draw(occupancies),
        full=View(Box(0, 0, width, height), draw(losses)),
        crops=tuple(draw(st.lists(views, max_size=3))),
        perceptual_hash=draw(st.integers(0, 255)),
    )


def classes_of_records(
    losses: st.SearchStrategy[float] = any_losses, min_size: int = 1
) -> st.SearchStrategy[list[ImageRecord]]:
    """The records of one class, each source once."""
    return st.lists(
        image_records(losses), min_size=min_size, max_size=6, unique_by=lambda record: record.source
    )


rule_texts = st.one_of(
    st.sampled_from(["mean", "median", "otsu", "always-patch", "always-full"]),
    st.builds("{}:{}".format, st.sampled_from(["quantile", "fixed"]), st.floats(0, 1)),
)
any_rule_texts = st.builds("{}{}".format, st.sampled_from(["", "shuffled:", "inverted:"]), rule_texts)

any_selections = st.builds(
    SelectionSettings,
    st.sampled_from([*RANKINGS]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.none() | st.integers(0, 8),
)
