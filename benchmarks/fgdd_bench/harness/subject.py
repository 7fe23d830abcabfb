"""What a benchmark is about: the models, the classes and the mosaics, the same for every way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.network import Runtime, check_classes
from fgdd_fast.planning import MosaicSettings, Plan


@dataclass(frozen=True)
class Composition:
    """Mosaics to compose.

    Attributes:
        plan: their tiles.
        settings: what they are.
    """

    plan: Plan
    settings: MosaicSettings


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What every way of a benchmark works on; what its path does not need may be left out.

    Attributes:
        classes: of the images.
        runtime: how the product opens a bundle's engine.
        foreground: a saliency model, in fp32; the references rebuild its graph with the same weights.
        teacher: likewise.
        composition: the mosaics.
        resize: how the product and the fair reference resize; the published style interpolates tensors.
        batch: images that the product puts into one inference.
    """

    classes: tuple[str, ...]
    runtime: Callable[[Bundle], Runtime]
    foreground: Bundle | None = None
    teacher: Bundle | None = None
    composition: Composition | None = None
    resize: ResizeMethod = "area"
    batch: int = 1


def saliency_of(subject: Subject) -> Bundle:
    """The saliency model.

    Raises:
        SettingsError: there is none, or the foreground model is another.
    """
    if subject.foreground is None:
        raise _missing("a foreground model")
    if subject.foreground.prompting is not None:
        raise SettingsError(f"The foreground model {subject.foreground.name} is no saliency model")
    return subject.foreground


def teacher_of(subject: Subject) -> tuple[Bundle, tuple[str, ...]]:
    """The teacher, and its classes in the order of its logits.

    Raises:
        SettingsError: there is none.
        TeacherError: it does not know the images' classes.
    """
    if subject.teacher is None:
        raise _missing("a teacher")
    check_classes(subject.teacher, subject.classes)
    return subject.teacher, subject.teacher.classes or ()


def composition_of(subject: Subject) -> Composition:
    """The mosaics.

    Raises:
        SettingsError: there are none.
    """
    if subject.composition is None:
        raise _missing("mosaics to compose")
    return subject.composition


def _missing(what: str) -> SettingsError:
    return SettingsError(f"This path of the benchmark needs {what}, and none is given")
