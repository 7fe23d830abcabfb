"""A foreground model that is part of a teacher: where in an image its class's logit comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import BundleError, TeacherError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.catalogue.catalogue import own_bundle_path
from fgdd_fast.models.foreground import ForegroundChoice, Inputs, Pixels, Prompts, Source
from fgdd_fast.models.network import Runtime, check_classes
from fgdd_fast.models.saliency import SaliencyFamily, SaliencyModel

THRESHOLD = 0.4  # of a map's maximum


class ClassActivationModel(SaliencyModel):
    """A `ForegroundModel` that gives the occupancy and mask of an image's class.

    Args:
        bundle: names its classes; takes `images` uint8 [batch, height, width, 3] in RGB and `labels` int32
            [batch]; gives `occupancy` and `mask` as a saliency model does.
        runtime, batch, resize: see `SaliencyModel`.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, *, batch: int, resize: ResizeMethod) -> None:
        super().__init__(bundle, runtime, batch=batch, resize=resize)
        labels = {name: np.asarray(label, np.int32) for label, name in enumerate(bundle.classes or ())}
        self._labels = ByClassName(labels)

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """See `ForegroundModel.fingerprint`."""
        return {**super().fingerprint(class_name), "label": str(self._labels[class_name])}

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        """See `ForegroundModel.prepare`."""
        return {**super().prepare(pixels, image), "labels": self._labels[image.class_name]}


class _ClassActivation(SaliencyFamily):
    model = ClassActivationModel
    name = spelling = "cam"  # the bundle that 'fgdd-fast export cam' writes by itself

    def find(self, argument: str) -> Bundle:  # noqa: ARG002 - there is one
        onnx = own_bundle_path(self.name)
        if not onnx.with_suffix(".json").exists():
            raise BundleError(
                "No teacher's class activation map has been exported yet",
                "Run: fgdd-fast export cam TEACHER   Or name a bundle by its path.",
            )
        return load_bundle(onnx, "foreground")

    def choose(
        self, source: Source, classes: Sequence[str], *, prompts: Prompts | None, box_threshold: float | None
    ) -> ForegroundChoice:
        choice = super().choose(source, classes, prompts=prompts, box_threshold=box_threshold)
        assert isinstance(source, Bundle)
        try:
            check_classes(source, classes)
        except TeacherError as error:
            raise TeacherError(
                error.problem, "Export the map of the teacher of these classes: fgdd-fast export cam TEACHER"
            ) from error
        return choice


CLASS_ACTIVATION = _ClassActivation()
