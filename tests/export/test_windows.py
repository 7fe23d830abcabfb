from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fgdd_export.tile.receptive_fields import Sliding, Span, share, slide

slidings = st.builds(
    Sliding,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    before=st.integers(0, 3),
)


@given(slidings, st.integers(0, 30), st.integers(1, 12), st.integers(1, 40))
def test_a_window_holds_every_position_that_reads_a_place_of_it(
    sliding: Sliding, start: int, length: int, outputs: int
) -> None:
    window = Span(start, start + length)
    reading = [
        position
        for position in range(outputs)
        if any(
            window.start <= sliding.first_read(position) + tap * sliding.dilation < window.end
            for tap in range(sliding.kernel)
        )
    ]
    assume(reading)
    step = slide(window, sliding, outputs)
    assert 0 <= step.span.start <= min(reading)
    assert max(reading) < step.span.end <= outputs


@given(slidings, st.integers(8, 30), st.integers(1, 12))
def test_a_layer_reads_the_window_and_what_is_padded(sliding: Sliding, start: int, length: int) -> None:
    window = Span(start, start + length)
    step = slide(window, sliding, 100)
    assert step.read == Span(window.start - step.pads[0], window.end + step.pads[1])
    assert min(step.pads) >= 0
    # A layer that gets the window with these pads, and pads nothing itself, gives as many positions.
    assert (step.read.length - sliding.reach - 1) // sliding.stride + 1 == step.span.length


def test_a_convolution_of_three_widens_a_window_by_one_on_each_side() -> None:
    step = slide(Span(10, 20), Sliding(kernel=3, stride=1, dilation=1, before=1), 50)
    assert (step.span, step.read, step.pads) == (Span(9, 21), Span(8, 22), (2, 2))


def test_share_is_of_the_area() -> None:
    assert share((Span(1, 3), Span(0, 5)), (4, 10)) == pytest.approx(0.25)


def test_a_union_holds_both() -> None:
    assert Span(3, 5).union(Span(1, 4)) == Span(1, 5)
