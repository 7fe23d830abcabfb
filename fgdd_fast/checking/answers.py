"""Checks of what models say: names that a teacher does not know, labels that it doubts, nothing found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgdd_fast.checking.asking import Answers
from fgdd_fast.checking.findings import counted, some
from fgdd_fast.checking.registry import Found, check
from fgdd_fast.checking.seen import Seen
from fgdd_fast.class_names import match_by_spelling

_NO_ORDER = 1e-3  # nats: a loss that half precision and small changes of the image move as much
_SHOWN = 3  # images of a class


@check("teacher-names", "error", needs="names", about="a teacher that calls the classes otherwise")
def teacher_names(seen: Seen) -> Iterator[Found]:
    """Class folders that the teacher does not know by name."""
    teacher = None if seen.models is None else seen.models.teacher
    if teacher is None or teacher.classes is None:
        return
    missing = [name for name in seen.data.classes if name not in teacher.classes]
    if not missing:
        return
    matches = match_by_spelling(teacher.classes, seen.data.classes)
    said = "" if matches is None else ", ".join(f"{matches[name]!r} for {name!r}" for name in missing[:5])
    yield Found(
        f"The teacher {teacher.name} says {said}"
        if said
        else f"The teacher {teacher.name} does not know {some(missing)}; it says {some(teacher.classes)}",
        f"Have its classes named as the folders are: fgdd-fast teacher rename {teacher.onnx} "
        f"--from {seen.data.given} -o RENAMED",
        tuple(missing),
    )


@check(
    "wrong-label",
    "warning",
    needs="models",
    about="images that a teacher confidently takes for another class",
)
def wrong_labels(seen: Seen) -> Iterator[Found]:
    """Labels that are likely wrong, the surest of each class first; none is ever dropped for it."""
    answers = None if seen.models is None else seen.models.answers
    if answers is None or answers.probabilities is None:
        return
    doubted = _doubted(answers)
    how = "a classifier fitted on the others" if answers.cross_validated else "the teacher"
    for label, name in enumerate(answers.classes):
        places = [place for place in doubted if answers.labels[place] == label]
        if not places:
            continue
        named = "; ".join(
            f"{answers.images[i].source} as {answers.classes[doubted[i]]!r}" for i in places[:_SHOWN]
        )
        more = f"; and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
        yield Found(
            f"{counted(len(places), 'image')} of {name!r} {'is' if len(places) == 1 else 'are'} confidently "
            f"taken for another class by {how}: {named}{more}",
            "Look at them. Low losses keep most wrong labels out of mosaics, but not out of coresets and "
            "thresholds.",
            tuple(answers.images[place].source for place in places),
        )


def _doubted(answers: Answers) -> dict[int, int]:
    """Images of likely wrong labels and the class that each seems to be, by descending confidence.

    An image counts if the class that is most likely, among those that are at least as likely as they are on
    average for images labelled so, is another than its own: confident learning (Northcutt, Jiang and Chuang,
    "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021).
    """
    shares, labels = answers.probabilities, answers.labels
    assert shares is not None
    present = np.bincount(labels, minlength=shares.shape[1]) > 0
    usual = np.array(
        [shares[labels == label, label].mean() if present[label] else np.inf for label in range(len(present))]
    )
    likely = np.where(shares >= usual, shares, -1.0)
    taken = likely.argmax(axis=1)
    doubted = np.flatnonzero((likely.max(axis=1) >= 0) & (taken != labels))
    margin = shares[doubted, taken[doubted]] - shares[doubted, labels[doubted]]
    order = doubted[np.argsort(-margin, kind="stable")]
    return {int(place): int(taken[place]) for place in order}


@check(
    "too-easy", "note", needs="models", about="images whose losses are so small that their order says nothing"
)
def too_easy(seen: Seen) -> Iterator[Found]:
    """Classes in which the teacher is sure of most images."""
    answers = None if seen.models is None else seen.models.answers
    if answers is None or answers.losses is None:
        return
    for label, name in enumerate(answers.classes):
        losses = answers.losses[answers.labels == label]
        easy = int((losses < _NO_ORDER).sum())
        if easy * 2 > len(losses):
            yield Found(
                f"The teacher's loss on whole images of {name!r} is below {_NO_ORDER:g} for {easy} of "
                f"{len(losses)}: their order by loss says little",
                "Rank by something else besides, for example: --ranking stratified",
                (name,),
            )


@check(
    "nothing-found",
    "warning",
    needs="models",
    about="classes in whose images the foreground model finds nothing",
)
def nothing_found(seen: Seen) -> Iterator[Found]:
    """Classes in which the foreground model finds nothing in some, in most or in all images."""
    occupancies = {} if seen.models is None else seen.models.occupancies
    for name, found in occupancies.items():
        nothing = sum(occupancy == 0 for occupancy in found)
        if nothing:
            most = 2 * nothing > len(found)
            yield Found(
                f"A foreground was found in {len(found) - nothing or 'none'} of "
                f"{counted(len(found), 'image')} of {name!r}",
                "If it is there, say with --prompts FILE what to look for, or try another --foreground."
                if seen.asked_by_class
                else "If it is there, try another --foreground.",
                (name,),
                severity="error" if nothing == len(found) else "warning" if most else "note",
            )
