"""Checks of names: of classes, of what they are asked by, of validation classes, of frames of one scene."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from fgdd_fast.checking.findings import counted, some
from fgdd_fast.checking.registry import Found, check
from fgdd_fast.checking.seen import Seen
from fgdd_fast.class_names import natural_order, plain_name
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.groups import RECORDING, recordings
from fgdd_fast.models.prompts import phrases_of

_WORDS = 3  # of a phrase that detectors take as one thing


@check(
    "class-order", "note", needs="names", about="class folders numbered 1, 2, 10, which are read as 1, 10, 2"
)
def class_order(seen: Seen) -> Iterator[Found]:
    """Numbered classes, whose order as strings another program may not share."""
    classes = seen.data.classes
    natural = natural_order(classes)
    if natural != list(classes):
        place = next(i for i, (one, other) in enumerate(zip(classes, natural, strict=True)) if one != other)
        yield Found(
            f"The classes are in the order of strings: {some(classes[max(place - 1, 0) : place + 3])}, not "
            f"{some(natural[max(place - 1, 0) : place + 3])}",
            "A teacher that was trained elsewhere may have them in the other order, which shows as chance "
            "accuracy: fgdd-fast teacher check BUNDLE DATA",
        )


@check(
    "names-alike", "warning", needs="names", about="class names that differ in case, marks or Unicode form"
)
def names_alike(seen: Seen) -> Iterator[Found]:
    """Classes that people, and some file systems, take for the same."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in seen.data.classes:
        alike[plain_name(name)].append(name)
    for names in alike.values():
        if len(names) > 1:
            yield Found(
                f"Classes of nearly the same name: {some(names)}",
                "If they are one class, put their images into one folder.",
                tuple(names),
            )


@check("prompts", "warning", needs="names", about="class names that a model asked by name may not understand")
def prompts(seen: Seen) -> Iterator[Found]:
    """What the foreground model is asked for, where that is the names of folders."""
    if not seen.asked_by_class:
        return
    asked = [name for name in seen.data.classes if name not in seen.prompts]
    advice = "Say with --prompts FILE what to look for, a line a class: NAME phrase, other phrase"
    odd: defaultdict[str, list[str]] = defaultdict(list)
    words: dict[str, str] = {}
    for name in asked:
        try:
            (phrase,) = phrases_of(name, {})
        except SettingsError as error:
            yield Found(error.problem, advice, (name,), severity="error")
            continue
        words[name] = f" {phrase} ".lower()
        if "-" in phrase:
            odd["with a hyphen, which is a token of its own"].append(name)
        if len(phrase.split()) > _WORDS:
            odd[f"of more than {_WORDS} words, of which detectors take some"].append(name)
        if re.search(r"[a-z][A-Z]", phrase):
            odd["written together, which are no words"].append(name)
        if re.search(r"\d", phrase):
            odd["with a number, which says nothing to a detector"].append(name)
    for what, names in odd.items():
        yield Found(f"Asked for by {counted(len(names), 'name')} {what}: {some(names)}", advice, tuple(names))
    for name, phrase in words.items():
        longer = [other for other in words if other != name and words[other].startswith(phrase)]
        if longer:
            yield Found(
                f"The name {name!r} begins those of other classes: {some(longer)}",
                "Asked for it, the foreground model finds those as well, where an image shows both. "
                + advice,
                (name, *longer),
                severity="note",
            )


@check("validation-classes", "warning", needs="names", about="a validation folder that lacks classes")
def validation_classes(seen: Seen) -> Iterator[Found]:
    """Classes of one folder that the other lacks."""
    if seen.validation is None:
        return
    own, held = set(seen.data.classes), set(seen.validation.classes)
    if lacking := sorted(own - held):
        yield Found(
            f"{seen.validation.given} lacks {counted(len(lacking), 'class', 'classes')}: {some(lacking)}",
            "Accuracy is that of the classes that are there.",
            tuple(lacking),
        )
    if unknown := sorted(held - own):
        yield Found(
            f"{seen.validation.given} has {counted(len(unknown), 'class', 'classes')} that DATA lacks: "
            f"{some(unknown)}",
            "Both folders need the same names; a folder that is no class is left out with --ignore.",
            tuple(unknown),
            severity="error",
        )


@check("recordings", "warning", needs="names", about="numbered frames of one scene on both sides of a split")
def frames_on_both_sides(seen: Seen) -> Iterator[Found]:
    """Frames of recordings, told by their names, where images are or will be held out."""
    found = recordings(image.source for image in seen.images)
    frames = sum(map(len, found.values()))
    if seen.validation is not None:
        known = set(found)
        common = re.compile(RECORDING)
        both = tuple(
            image.source
            for image in seen.validation.images
            if (match := common.match(image.source)) is not None and match[1] in known
        )
        if both:
            share = len(both) / len(seen.validation.images)
            yield Found(
                f"{counted(len(both), 'validation image is', 'validation images are')} ({share:.0%}) of "
                "recordings of which other frames are in DATA",
                "Accuracy on them is flattering: hold whole recordings out.",
                tuple(map(seen.validation_name, both)),
            )
    elif frames:
        yield Found(
            f"{frames} of {len(seen.images)} images are numbered frames of "
            f"{counted(len(found), 'recording')}: held out at random, frames of one scene lie on both sides",
            f"Hold whole recordings out: --group '{RECORDING}'",
            groups=tuple(found.values()),
            severity=None if seen.held_out else "note",
        )
