"""Foregrounds from annotations of objects, whatever the file in which they stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from fgdd_fast.class_names import plain_name
from fgdd_fast.errors import ImageError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.foreground import Pixels
from fgdd_fast.models.given.given import GivenForeground, Mask
from fgdd_fast.models.given.regions import Region, digest_of, draw


@dataclass(frozen=True)
class Annotated:
    """What is annotated of one image.

    Attributes:
        regions: its objects; polygons are in pixels of `size`, or else shares of the width and the height.
        size: height and width of the image that was annotated.
    """

    regions: Sequence[Region]
    size: tuple[int, int] | None = None


class AnnotatedForeground(GivenForeground):
    """A `GivenForeground` to which objects that were annotated are an image's foreground.

    Those count that are named as the image's class is, apart from case, blanks, hyphens and underscores;
    where no object of the annotations is, all count. The annotations of an image are those whose path ends
    as its own does, in as many parts as possible, its name at least, if no others share as many. An
    image that was annotated, and has no object that counts, has occupancy 0.

    Args:
        name: of the model, such as `coco`.
        annotated: by path, with `/` between its parts.
        names: of all objects that there can be; empty where they have none.
        sha256: of the annotations as a whole.
        classes: those of the images.
        streams: see `ForegroundModel`.
        suffixes: whether paths have the suffixes of images.
    """

    def __init__(
        self,
        name: str,
        annotated: Mapping[str, Annotated],
        names: Collection[str],
        sha256: str,
        classes: Sequence[str],
        streams: int,
        *,
        suffixes: bool,
    ) -> None:
        self.name, self.sha256, self.streams = name, sha256, streams
        self.description = f"{name} annotations"
        self._annotated = annotated
        self._suffixes = suffixes
        self._by_name: dict[str, list[tuple[str, ...]]] = {}
        for path in annotated:
            parts = tuple(path.split("/"))
            self._by_name.setdefault(parts[-1], []).append(parts)
        plain = {plain_name(each) for each in names}
        self.unnamed = tuple(each for each in classes if plain_name(each) not in plain) if names else ()
        self._unnamed = set(classes if not names else self.unnamed)
        self._classes = set(classes)

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """See `ForegroundModel.fingerprint`."""
        return {self.name: self.sha256, "class": class_name}

    def image_fingerprint(self, image: SourceImage) -> Mapping[str, str]:
        """See `FingerprintsImages.image_fingerprint`: the image's own objects that count."""
        try:
            found = self._annotated[self.path_of(image)]
        except ImageError as error:
            return {self.name: error.problem}
        return {self.name: digest_of(self._counting(found, image), found.size)}

    def path_of(self, image: SourceImage) -> str:
        """Return the path among the annotations under which an image's are.

        Raises:
            ImageError: it is not among them, or may be several of them.
        """
        source = PurePosixPath(image.source)
        parts = (source if self._suffixes else source.with_suffix("")).parts
        best: list[str] = []
        most = 0
        for path in self._by_name.get(parts[-1], ()):
            shared = _shared_end(path, parts)
            if shared == 1 and self._classes.intersection(path[:-1]) - {image.class_name}:
                continue  # of another class's image of the same name
            if shared > most:
                best, most = [], shared
            if shared == most:
                best.append("/".join(path))
        if not best:
            raise ImageError("is not among the annotations")
        if len(best) > 1:
            raise ImageError("may be several of the annotated images, which lie in other folders")
        return best[0]

    def read(self, pixels: Pixels, image: SourceImage) -> Mask:
        """See `GivenForeground.read`."""
        found = self._annotated[self.path_of(image)]
        height, width = found.size or pixels.shape[:2]
        try:
            return draw(self._counting(found, image), height, width, scale=found.size is None)
        except ImageError as error:
            raise ImageError(f"its annotations cannot be used: {error.problem}") from error

    def _counting(self, found: Annotated, image: SourceImage) -> list[Region]:
        if image.class_name in self._unnamed:
            return list(found.regions)
        wanted = plain_name(image.class_name)
        return [region for region in found.regions if plain_name(region.name) == wanted]


def _shared_end(path: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths have in common, from their ends on."""
    count = 0
    for one, two in zip(reversed(path), reversed(other), strict=False):
        if one != two:
            break
        count += 1
    return count
