"""Checks for the same picture more than once: within a class, in two classes, and in validation images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fgdd_fast.checking.findings import counted
from fgdd_fast.checking.registry import Found, check
from fgdd_fast.checking.seen import Seen
from fgdd_fast.images.near_duplicates import near_groups

_NAMED = 3  # pairs in a message


@check("same-image", "note", needs="files", about="the same file several times within a class")
def same_image(seen: Seen) -> Iterator[Found]:
    """Files of the same bytes within a class, of which the first is taken."""
    yield from _within(
        _same(seen), "the same as another of its class", "Of files of the same bytes one is taken."
    )


@check("two-classes", "error", needs="files", about="the same file in two classes")
def two_classes(seen: Seen) -> Iterator[Found]:
    """Files of the same bytes in several classes: one of the labels is wrong, or the image shows both."""
    yield from _across(_same(seen), "The same image lies")


@check("leak", "warning", needs="files", about="the same file in DATA and in the validation images")
def leak(seen: Seen) -> Iterator[Found]:
    """Files of the same bytes that are learned from and judged on."""
    yield from _leaks(seen, _same(seen), "also in DATA")


@check("near-image", "warning", needs="pixels", about="nearly the same images within a class")
def near_image(seen: Seen) -> Iterator[Found]:
    """Copies of another size or quality, or frames of a burst, within a class."""
    yield from _within(
        _near(seen),
        "nearly the same as another of its class",
        f"Several may be taken. To keep one of each: --near-duplicates {seen.near}",
    )


@check("near-two-classes", "warning", needs="pixels", about="nearly the same image in two classes")
def near_two_classes(seen: Seen) -> Iterator[Found]:
    """Copies of another size or quality in several classes."""
    yield from _across(_near(seen), "Nearly the same image lies", severe=False)


@check(
    "near-leak",
    "warning",
    needs="pixels",
    about="nearly the same images in DATA and in the validation images",
)
def near_leak(seen: Seen) -> Iterator[Found]:
    """Copies of another size or quality that are learned from and judged on."""
    yield from _leaks(seen, _near(seen), "nearly the same as one in DATA")


Group = tuple[tuple[str, str], ...]
"""Images that are alike: class and name in messages of each. Validation images have the class ''."""


def _same(seen: Seen) -> list[Group]:
    held = {id(image) for image in (seen.validation.images if seen.validation else ())}
    return [
        tuple(("" if id(file.image) in held else file.image.class_name, file.name) for file in group)
        for group in seen.same_bytes
    ]


def _near(seen: Seen) -> list[Group]:
    """Groups of near-duplicates, without files of which the bytes are the same: these are told apart."""
    copies = {file.name for group in seen.same_bytes for file in group[1:]}
    own = {image.source for image in seen.images}
    names = [name for name in seen.looks if name not in copies]
    groups = near_groups([seen.looks[name].perceptual_hash for name in names], seen.near)
    return [
        tuple((seen.looks[names[i]].class_name if names[i] in own else "", names[i]) for i in group)
        for group in groups
    ]


def _within(groups: Sequence[Group], what: str, advice: str) -> Iterator[Found]:
    found: list[tuple[str, ...]] = []
    for group in groups:
        for name in dict.fromkeys(name for name, _ in group if name):
            members = tuple(source for other, source in group if other == name)
            if len(members) > 1:
                found.append(members)
    if found:
        count = sum(map(len, found)) - len(found)
        yield Found(
            f"{counted(count, 'image is', 'images are')} {what}: {_shown(found)}", advice, groups=tuple(found)
        )


def _across(groups: Sequence[Group], what: str, *, severe: bool = True) -> Iterator[Found]:
    found: list[tuple[str, ...]] = []
    for group in groups:
        own = [(name, source) for name, source in group if name]
        if len({name for name, _ in own}) > 1:
            found.append(tuple(source for _, source in own))
    if found:
        yield Found(
            f"{what} in two classes, {counted(len(found), 'time')}: {_shown(found)}",
            "Take each out of the class to which it does not belong." if severe else "Look at them.",
            groups=tuple(found),
        )


def _leaks(seen: Seen, groups: Sequence[Group], what: str) -> Iterator[Found]:
    if seen.validation is None:
        return
    found = [group for group in groups if len({bool(name) for name, _ in group}) == 2]
    held = sum(not name for group in found for name, _ in group)
    if held:
        named = tuple(tuple(source for _, source in group) for group in found)
        total = len(seen.validation.images)
        yield Found(
            f"{held} of {counted(total, 'validation image')} {'is' if held == 1 else 'are'} {what}: "
            f"{_shown(named)}",
            "Accuracy on them is flattering. To leave such images out of DATA: --exclude-leaks",
            groups=named,
        )


def _shown(groups: Sequence[Sequence[str]]) -> str:
    shown = "; ".join(" = ".join(group[:_NAMED]) for group in groups[:_NAMED])
    return shown + (f"; and {len(groups) - _NAMED} more" if len(groups) > _NAMED else "")
