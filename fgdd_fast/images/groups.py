"""Images that belong together, such as the frames of one film: they must not lie on both sides of a split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.seeding import seeded_hash

RECORDING = r"(.*\D)\d+\.\w+$"
"""What the frames of a recording have in common: all of their path but the number at the end."""

_FRAMES = 3  # at least, in a recording
_REGULAR = 0.5  # of the steps between frames that are the same, at least

GroupOf = Callable[[str], str]


def grouping(pattern: str) -> GroupOf:
    """Return what names an image's group: the text that a regular expression finds in its source.

    Args:
        pattern: searched for in the source, such as `cat/film2/017.jpg`; its first group names the image's
            group, or all that matches where it has none. An image without a match is a group of its own.

    Raises:
        SettingsError: it is no regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingsError(
            f"{pattern!r} is no regular expression: {error}",
            f"Write one whose first group is what images of one scene have in common, such as {RECORDING!r}",
        ) from error

    def group_of(source: str) -> str:
        found = compiled.search(source)
        if found is None:
            return source
        return found[1] or "" if compiled.groups else found[0]

    return group_of


def hold_out_groups(
    images: Sequence[SourceImage], share: float, seed: int, group_of: GroupOf
) -> tuple[tuple[SourceImage, ...], tuple[SourceImage, ...]]:
    """Split images class by class into a part to fit on and a part held out, with no group on both sides.

    A group is within a class. The split depends on (seed, groups) alone. A class of at least two groups has
    one in each part; one of a single group has none held out.

    Args:
        images: to split.
        share: of each class that is held out, in (0, 1); groups are held out until it is reached.
        seed: of the choice.
        group_of: names an image's group.

    Returns:
        (to fit on, held out), each in the order of `images`.
    """
    groups: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        groups[image.class_name][group_of(image.source)] += 1
    held: set[tuple[str, str]] = set()
    for name, sizes in groups.items():
        wanted, count = share * sum(sizes.values()), 0
        names = sorted(sizes, key=lambda group: seeded_hash("fgdd hold out", seed, group).digest())
        for group in names[:-1]:
            if count >= wanted:
                break
            held.add((name, group))
            count += sizes[group]
    inside = [(image.class_name, group_of(image.source)) in held for image in images]
    return (
        tuple(image for image, is_held in zip(images, inside, strict=True) if not is_held),
        tuple(image for image, is_held in zip(images, inside, strict=True) if is_held),
    )


def recordings(sources: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Find frames of recordings by their names alone: `film2_017.jpg`, or `film2/017.jpg`.

    Of a recording at least three frames are numbered in regular steps, and its class has others: that all
    images of a class are numbered says nothing.

    Args:
        sources: paths of images within their data set, whose first part is the class.

    Returns:
        The sources of each recording, by what they have in common, in the order given.
    """
    pattern = re.compile(RECORDING)
    numbered: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for source in sources:
        if (found := pattern.match(source)) is not None:
            numbered[source.split("/")[0]][found[1]].append(source)
    return {
        common: tuple(frames)
        for of_class in numbered.values()
        if len(of_class) > 1
        for common, frames in of_class.items()
        if _is_regular([int(source[len(common) :].partition(".")[0]) for source in frames])
    }


def _is_regular(numbers: Sequence[int]) -> bool:
    if len(numbers) < _FRAMES:
        return False
    ordered = sorted(numbers)
    steps = Counter(b - a for a, b in pairwise(ordered))
    return steps.most_common(1)[0][1] >= _REGULAR * (len(ordered) - 1)
