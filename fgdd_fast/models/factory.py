"""The registry of foreground families: what a user names is found, checked early, and opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import PluginError
from fgdd_engines.plugins import FOREGROUNDS, Plugin, find_plugins
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.catalogue.catalogue import find_bundle, load_catalogue
from fgdd_fast.models.class_activation import CLASS_ACTIVATION
from fgdd_fast.models.foreground import (
    FingerprintsImages,
    Foreground,
    ForegroundChoice,
    ForegroundFamily,
    ForegroundModel,
    Inputs,
    Pixels,
    Prompts,
    Source,
)
from fgdd_fast.models.given.alpha import ALPHA
from fgdd_fast.models.given.coco import COCO
from fgdd_fast.models.given.masks import MASKS, STORED_MASKS
from fgdd_fast.models.given.yolo import YOLO
from fgdd_fast.models.grounded_sam2 import GROUNDED
from fgdd_fast.models.network import Runtime
from fgdd_fast.models.no_foreground import NONE
from fgdd_fast.models.saliency import SALIENCY

FAMILIES: Mapping[str, ForegroundFamily] = {
    family.name: family
    for family in (SALIENCY, GROUNDED, CLASS_ACTIVATION, MASKS, STORED_MASKS, ALPHA, COCO, YOLO, NONE)
}
OWN = (SALIENCY.name, GROUNDED.name, CLASS_ACTIVATION.name)  # whose network is a bundle of that name
SPELLINGS = ", ".join(family.spelling for family in FAMILIES.values())


def choose_foreground(
    name: str,
    classes: Sequence[str],
    *,
    prompts: Prompts | None = None,
    box_threshold: float | None = None,
) -> ForegroundChoice:
    """Find the foreground model that a user names, and settle how it is asked for each class.

    Args:
        name: a family (`saliency`, `grounded-sam2`, `cam`, `masks:FOLDER`, `coco:FILE`, `alpha`, `none`, or
            one of a plug-in), a name of the catalogue, or the path of a bundle.
        classes: those of the data set.
        prompts: phrases by class; a class that is not among them is asked for by its name.
        box_threshold: score above which a box is taken; the bundle's own by default.

    Raises:
        BundleError: there is no such bundle, or it is damaged or of another role.
        SettingsError: an option does not apply to this model, or a class's name is nothing to look for.
        PluginError: the plug-in that the name belongs to cannot be loaded.
    """
    family, plugin, source = _resolve(name)
    choice = family.choose(source, classes, prompts=prompts, box_threshold=box_threshold)
    return replace(choice, family=family, plugin=plugin)


def find_family(name: str) -> ForegroundFamily:
    """Return the family of the foreground model that a user names; see `choose_foreground`."""
    return _resolve(name)[0]


def choose_quick(choice: ForegroundChoice) -> ForegroundChoice:
    """Return the quicker model of a foreground model's family, asked alike; see `ForegroundFamily.quick`.

    Raises:
        SettingsError: there is none.
        BundleError: it is not here yet.
    """
    source = None if choice.family is None else choice.family.quick(choice.source)
    if source is None:
        raise SettingsError(
            f"There is no quicker look than that of the foreground model {choice.name}",
            "Leave --foreground-effort out, or name a saliency model of the catalogue with --foreground.",
        )
    return replace(choice, source=source)


def choose_as_exported(bundle: Bundle, classes: Sequence[str]) -> ForegroundChoice:
    """Settle how a foreground bundle is asked where the user says nothing; see `choose_foreground`."""
    family, plugin = _family_of_bundle(bundle)
    choice = family.choose(bundle, classes, prompts=None, box_threshold=None)
    return replace(choice, family=family, plugin=plugin)


def find_network(name: str) -> Bundle:
    """Return the bundle that a user names, whatever its role.

    Args:
        name: `saliency`, `grounded-sam2`, `cam`, a name of the catalogue, or the path of a bundle.

    Raises:
        BundleError: there is no such bundle, or it is damaged.
    """
    found = FAMILIES[name].find("") if name in OWN else find_bundle(name)
    assert isinstance(found, Bundle)
    return found


def asked_by_class(bundle: Bundle) -> bool:
    """Return whether a bundle, or the model that it is a network of, is asked for classes by their names."""
    return bundle.prompting is not None and _family_of_bundle(bundle)[0].asked_by_class


def open_foreground(
    choice: ForegroundChoice,
    *,
    runtime: Callable[[Bundle], Runtime],
    batch: int,
    resize: ResizeMethod,
    threads: int,
) -> ForegroundModel:
    """Open a foreground model.

    Args:
        choice: which one.
        runtime: how a bundle's engine is to be opened.
        batch: images an inference.
        resize: how images are brought to a model's size.
        threads: masks that may be read at the same time, where masks are given.

    Raises:
        FgddError: the masks, the prompts or the runtime cannot be used.
    """
    family, plugin = choice.family, choice.plugin
    if family is None:
        bundle = choice.source if isinstance(choice.source, Bundle) else None
        family, plugin = (MASKS, None) if bundle is None else _family_of_bundle(bundle)
    model = family.open(choice, runtime=runtime, batch=batch, resize=resize, threads=threads)
    if plugin is None:
        return model
    if isinstance(model, FingerprintsImages):
        return _OfPluginByImage(model, plugin, model.image_fingerprint)
    return _OfPlugin(model, plugin)


@dataclass(frozen=True)
class FamilyState:
    """A family of foreground models that can be named.

    Attributes:
        spelling: how, such as `masks:FOLDER`.
        asked_by_class: whether it looks for what an image's class names.
        origin: the package that offers it, with its version; empty for a family of this project.
        problem: why it cannot be used; empty where it can.
    """

    spelling: str
    asked_by_class: bool
    origin: str = ""
    problem: str = ""


def list_families() -> tuple[FamilyState, ...]:
    """Return all families of foreground models, those of plug-ins last; they are imported for that."""
    found = [FamilyState(each.spelling, each.asked_by_class) for each in FAMILIES.values()]
    for name, plugin in _plugins().items():
        try:
            family = _load(plugin)
            found.append(FamilyState(family.spelling, family.asked_by_class, str(plugin)))
        except PluginError as error:
            found.append(FamilyState(name, False, str(plugin), error.problem))
    return tuple(found)


def _resolve(name: str) -> tuple[ForegroundFamily, Plugin | None, Source]:
    kind, colon, argument = name.partition(":")
    if (built_in := FAMILIES.get(kind)) is not None and bool(colon) == (":" in built_in.spelling):
        return built_in, None, built_in.find(argument)
    if "/" not in kind and (plugin := _plugins().get(kind)) is not None:
        family = _load(plugin)
        return family, plugin, family.find(argument)
    bundle = find_bundle(name, "foreground")
    return *_family_of_bundle(bundle), bundle


def _load(plugin: Plugin) -> ForegroundFamily:
    return plugin.load(ForegroundFamily)  # type: ignore[type-abstract]  # only asks whether it is one


def _plugins() -> Mapping[str, Plugin]:
    return find_plugins(FOREGROUNDS, (*FAMILIES, *(entry.name for entry in load_catalogue())))


def _family_of_bundle(bundle: Bundle) -> tuple[ForegroundFamily, Plugin | None]:
    """The family that a bundle names; sidecars written before families were named are of Grounded SAM 2."""
    if bundle.prompting is None:
        return SALIENCY, None
    name = str(bundle.prompting.get("family", GROUNDED.name))
    if name in FAMILIES:
        return FAMILIES[name], None
    plugin = _plugins().get(name)
    if plugin is None:
        raise BundleError(
            f"The bundle {bundle.onnx} is of the family '{name}', which is not installed",
            "Install the package that offers it.",
        )
    return _load(plugin), plugin


class _OfPlugin:
    """A plug-in's model, whose results depend on the version of the plug-in as well."""

    def __init__(self, model: ForegroundModel, plugin: Plugin) -> None:
        self._model = model
        self._plugin = str(plugin)
        self.name, self.sha256 = model.name, model.sha256
        self.description, self.streams = model.description, model.streams

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """See `ForegroundModel.fingerprint`."""
        return {**self._model.fingerprint(class_name), "plug-in": self._plugin}

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        """See `ForegroundModel.prepare`."""
        return self._model.prepare(pixels, image)

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        """See `ForegroundModel.find`."""
        return self._model.find(prepared, masks=masks)

    def close(self) -> None:
        """Free what the model holds."""
        self._model.close()


class _OfPluginByImage(_OfPlugin):
    """A plug-in's model whose result for an image depends on more than its bytes and its class."""

    def __init__(
        self, model: ForegroundModel, plugin: Plugin, by_image: Callable[[SourceImage], Mapping[str, str]]
    ) -> None:
        super().__init__(model, plugin)
        self._by_image = by_image

    def image_fingerprint(self, image: SourceImage) -> Mapping[str, str]:
        """See `FingerprintsImages.image_fingerprint`."""
        return {**self._by_image(image), "plug-in": self._plugin}
