"""How sure the threshold is of a class that was looked at quickly, and how sure closer looks are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fgdd_fast.selection.thresholds import Rule, threshold_of

_TRIALS = 32


def threshold_doubt(
    rule: Rule, known: Sequence[float], quick: Sequence[float], errors: Sequence[float], seed: int
) -> float:
    """Return the share of a class's images that would change sides with the threshold of closer looks.

    Args:
        rule: sets the threshold.
        known: occupancies by closer looks.
        quick: occupancies by quick looks alone.
        errors: of a sample, the closer look's occupancy less the quick one's; at least one. They are tried on
            the quick looks, drawn by lot.
        seed: of the lot.
    """
    seen, values = np.array(quick, np.float64), np.array([*known, *quick], np.float64)
    whole = values >= threshold_of(rule, values.tolist())
    generator = np.random.Generator(np.random.PCG64(seed))
    doubt = 0.0
    for _ in range(_TRIALS):
        closer = (seen + generator.choice(np.array(errors), len(seen))).clip(0, 1)
        threshold = threshold_of(rule, [*known, *closer.tolist()])
        doubt += float(((values >= threshold) != whole).mean())
    return doubt / _TRIALS


def own_doubt(distances: Sequence[float], errors: Sequence[float]) -> float:
    """Return the share of images that would change sides, were they looked at once more.

    Each error is tried on each image, so that a small sample of errors goes a long way.

    Args:
        distances: of the images' occupancies from the threshold, below 0 where they fall short of it.
        errors: of a sample, another look's occupancy less the first one's; at least one.
    """
    values, ordered = np.array(distances, np.float64), np.sort(np.array(errors, np.float64))
    below = np.searchsorted(ordered, -values, side="left")  # how many errors bring each below the threshold
    changed = np.where(values >= 0, below, len(ordered) - below)
    return float(changed.mean() / len(ordered))
