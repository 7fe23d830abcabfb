"""Foreground models: masks that are given, whatever their form, and saliency models."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
from hypothesis import given
from hypothesis import strategies as st
from image_files import encode, exif, picture
from PIL import Image

from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import decode_image
from fgdd_fast.images.resize import RESIZE_METHODS, ResizeMethod, resize, resize_arithmetic
from fgdd_fast.models.foreground import Foreground, ForegroundModel
from fgdd_fast.models.given.given import check_aspect
from fgdd_fast.models.given.masks import GivenMasks, StoredMasks
from fgdd_fast.models.network import BatchedNetwork, Runtime
from fgdd_fast.models.saliency import SaliencyModel

HEIGHT, WIDTH = 20, 30
TRUTH = np.zeros((HEIGHT, WIDTH), bool)
TRUTH[5:15, 6:18] = True
OCCUPANCY = 10 * 12 / (20 * 30)


def source(name: str = "1.jpg", class_name: str = "cat") -> SourceImage:
    return SourceImage(f"{class_name}/{name}", class_name, Path("data"))


def write(folder: Path, content: bytes, name: str = "cat/1.png") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def png(mask: np.ndarray) -> bytes:
    return encode(Image.fromarray(mask), "PNG")


def white(mask: np.ndarray = TRUTH) -> np.ndarray:
    return mask.astype(np.uint8) * 255


def found(folder: Path, image: SourceImage | None = None, pixels: np.ndarray | None = None) -> Foreground:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8) if pixels is None else pixels
    model = GivenMasks(folder, streams=2)
    return model.find([model.prepare(pixels, image or source())], masks=True)[0]


COLOUR = np.zeros((HEIGHT, WIDTH, 3), np.uint8) + np.array([200, 10, 30], np.uint8)
FORMS = {
    "8 bits": white(),
    "16 bits": TRUTH.astype(np.uint16) * 65535,
    "1 bit": TRUTH,
    "zeros and ones": TRUTH.astype(np.uint8),
    "zeros and ones in 16 bits": TRUTH.astype(np.uint16),
    "grey levels, above half and below": np.where(TRUTH, 128, 127).astype(np.uint8),
    "16-bit levels, above half and below": np.where(TRUTH, 32768, 32767).astype(np.uint16),
    "grey in three channels": np.repeat(white()[..., None], 3, axis=2),
    "alpha of a cut-out": np.dstack([COLOUR, white()]),
    "alpha of a black picture": np.dstack([COLOUR * 0, white()]),
    "grey in an opaque picture": np.dstack([np.repeat(white()[..., None], 3, axis=2), white() * 0 + 255]),
    "twice as large": np.kron(white(), np.ones((2, 2), np.uint8)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_is_read_in_every_form(tmp_path: Path, form: str) -> None:
    write(tmp_path, png(FORMS[form]))
    foreground = found(tmp_path)
    assert foreground.occupancy == OCCUPANCY
    assert foreground.boxes == ()
    assert foreground.mask is not None
    repeat = len(FORMS[form]) // HEIGHT
    assert (foreground.mask[::repeat, ::repeat] == white()).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_occupancy_is_the_share_of_the_mask(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), png(white(mask)))
        foreground = found(Path(folder), pixels=np.zeros((height, width, 3), np.uint8))
    assert foreground.occupancy == pytest.approx(mask.sum() / mask.size)


def test_the_name_with_the_images_suffix_comes_first(tmp_path: Path) -> None:
    write(tmp_path, png(white()), "cat/1.png")
    write(tmp_path, png(white(~TRUTH)), "cat/1.jpg.png")
    assert found(tmp_path, source("1.png")).occupancy == OCCUPANCY
    assert found(tmp_path, source("1.jpg")).occupancy == pytest.approx(1 - OCCUPANCY)


def test_folders_within_a_class_and_odd_names_are_followed(tmp_path: Path) -> None:
    for name in ("deep/er/1", "v1.2 final", "caf\udce9"):
        write(tmp_path, png(white()), f"cat/{name}.png")
        assert found(tmp_path, source(f"{name}.jpg")).occupancy == OCCUPANCY


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_masks_of_images_as_stored_are_turned_with_them(
    tmp_path: Path, orientation: int, image_format: str
) -> None:
    stored = np.repeat(white()[..., None], 3, axis=2)
    image = source(f"1.{image_format.lower()}")
    image = replace(image, root=tmp_path / "data")
    content = encode(Image.fromarray(stored), image_format, exif=exif(orientation))
    write(tmp_path / "data", content, image.source)
    write(tmp_path / "masks", png(white()))
    pixels = decode_image(content)
    model = StoredMasks(tmp_path / "masks", streams=2)
    foreground = model.find([model.prepare(pixels, image)], masks=True)[0]
    assert foreground.mask is not None
    assert ((foreground.mask > 127) == (pixels[..., 0] > 127)).mean() > 0.98  # a JPEG's edges are not sharp
    plain = GivenMasks(tmp_path / "masks", streams=2)
    assert model.fingerprint("cat") != plain.fingerprint("cat")
    assert model.image_fingerprint(image) != plain.image_fingerprint(image)


def test_masks_are_given_only_where_wanted(tmp_path: Path) -> None:
    write(tmp_path, png(white()))
    model = GivenMasks(tmp_path, streams=2)
    prepared = [model.prepare(np.zeros((HEIGHT, WIDTH, 3), np.uint8), source())] * 3
    assert [foreground.mask for foreground in model.find(prepared)] == [None] * 3
    assert model.find([]) == []


def test_occupancy_is_of_the_whole_mask_and_the_mask_given_is_reduced(tmp_path: Path) -> None:
    mask = np.zeros((900, 1500), np.uint8)
    mask[1::2] = 255  # every second row: half of the whole, and grey when reduced
    write(tmp_path, png(mask))
    foreground = found(tmp_path, pixels=np.zeros((900, 1500, 3), np.uint8))
    assert foreground.occupancy == 0.5
    assert foreground.mask is not None
    assert foreground.mask.shape == (307, 512)
    assert foreground.mask.mean() == pytest.approx(127.5, abs=1)


def test_a_mask_is_of_the_upright_image(tmp_path: Path) -> None:
    content = encode(picture(WIDTH, HEIGHT), "JPEG", exif=exif(6))
    upright = decode_image(content)
    write(tmp_path, png(np.rot90(white(), -1)))
    assert found(tmp_path, pixels=upright).occupancy == OCCUPANCY
    write(tmp_path, png(white()))
    with pytest.raises(ImageError, match=r"its mask has 30 x 20 pixels, .* upright image's 20 x 30"):
        found(tmp_path, pixels=upright)


@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(0.02, 3))
def test_a_mask_may_have_been_resized(height: int, width: int, scale: float) -> None:
    for rounded in (round, int):
        mask = (max(1, rounded(height * scale)), max(1, rounded(width * scale)))
        if min(height, width) * scale >= 1:
            check_aspect(mask, (height, width))


@pytest.mark.parametrize("size", [(200, 302), (100, 200), (300, 200), (1, 300), (200, 1)])
def test_a_mask_of_another_aspect_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path, png(np.zeros(size, np.uint8)))
    with pytest.raises(ImageError, match=f"its mask has {size[1]} x {size[0]} pixels"):
        found(tmp_path, pixels=np.zeros((200, 300, 3), np.uint8))


def test_an_image_without_a_mask_is_told(tmp_path: Path) -> None:
    write(tmp_path, png(white()), "cat/2.png")
    (tmp_path / "cat" / "3.png").mkdir()
    for name in ("1.jpg", "3.jpg"):
        with pytest.raises(ImageError, match="has no mask"):
            found(tmp_path, source(name))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty file"),
        (b"text", "not an image"),
        (png(white())[:-30], "truncated PNG"),
        (encode(picture(WIDTH, HEIGHT), "JPEG"), "JPEG instead of PNG"),
        (encode(picture(WIDTH, HEIGHT), "PNG"), "in colour"),
        (png(np.dstack([COLOUR, white() * 0 + 255])), "in colour"),
        (png(white()).replace(b"IDAT", b"IDOT"), "damaged PNG"),
        (png(white())[:16] + b"\0\0\xff\xff\0\0\xff\xff" + png(white())[24:], "too large: 65535 x 65535"),
    ],
)
def test_a_mask_that_cannot_be_used_is_told(tmp_path: Path, content: bytes, problem: str) -> None:
    write(tmp_path, content)
    with pytest.raises(ImageError, match=f"its mask cannot be used: .*{problem}"):
        found(tmp_path)


def test_the_hash_names_the_masks(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for name in ("cat/1.png", "cat/sub/2.png", "dog/1.jpg.png"):
            write(tmp_path / folder, png(white()), name)
    os.utime(tmp_path / "one" / "cat" / "1.png", (1, 1))  # a copy may have other times
    one, two = (GivenMasks(tmp_path / folder, streams=1) for folder in ("one", "two"))
    assert one.sha256 == two.sha256
    assert one.name == two.name == "masks"
    assert one.fingerprint("cat") == two.fingerprint("cat")
    assert one.fingerprint("cat") != one.fingerprint("dog")
    for name in ("cat/._1.png", ".cache/1.png", "cat/notes.txt", "cat/1.jpg"):
        write(tmp_path / "two", b"else", name)
    (tmp_path / "two" / "cat" / "lost.png").symlink_to("nowhere")
    assert GivenMasks(tmp_path / "two", streams=1).sha256 == one.sha256  # other files do not matter


@pytest.mark.parametrize("change", ["content", "name", "another", "gone"])
def test_every_change_of_the_masks_changes_the_hash(tmp_path: Path, change: str) -> None:
    path = write(tmp_path, png(white()))
    second = write(tmp_path, png(white()), "dog/1.png")
    before = GivenMasks(tmp_path, streams=1)
    if change == "content":
        status = path.stat()
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "name":
        path.rename(path.with_name("2.png"))
    elif change == "another":
        write(tmp_path, png(white()), "cat/3.png")
    else:
        second.unlink()
    after = GivenMasks(tmp_path, streams=1)
    assert after.sha256 != before.sha256
    assert after.fingerprint("cat") != before.fingerprint("cat")


def test_links_are_followed_and_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", png(white()), "1.png")
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(masks)
    assert found(masks).occupancy == OCCUPANCY


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder of masks") as caught:
        GivenMasks(tmp_path / "nowhere", streams=1)
    assert "MASKS/cat/1.png" in caught.value.advice
    with pytest.raises(DataError, match="is a file"):
        GivenMasks(write(tmp_path, b"", "file"), streams=1)
    write(tmp_path, encode(picture(), "JPEG"), "cat/1.jpg")
    with pytest.raises(DataError, match="holds no masks") as caught:
        GivenMasks(tmp_path, streams=1)
    assert "MASKS/cat/1.png" in caught.value.advice


# A saliency model, and networks in batches


IMAGE = SourceImage("red/00.png", "red", Path("data"))


@pytest.fixture
def model(tmp_path: Path) -> Iterator[ForegroundModel]:
    model = SaliencyModel(tiny.foreground_bundle(tmp_path), Runtime("cpu", "fp32", 2), batch=4, resize="area")
    yield model
    model.close()


def test_occupancies_and_masks_are_those_of_each_image(model: ForegroundModel) -> None:
    pictures = [tiny.square("red", share) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    prepared = [model.prepare(pixels, IMAGE) for pixels in pictures]
    for pixels, inputs, found in zip(pictures, prepared, model.find(prepared, masks=True), strict=True):
        coloured = np.ptp(pixels.astype(int), axis=2) > 60
        assert found.occupancy == pytest.approx(coloured.mean(), abs=0.08)  # seen at 16 x 16
        assert found.mask is not None
        assert (found.mask > 127).mean() == pytest.approx(found.occupancy, abs=1e-6)
        assert found.boxes == ()
        alone = model.find([inputs])[0]
        assert (alone.occupancy, alone.mask) == (found.occupancy, None)
    assert model.find([], masks=True) == []


@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_images_are_resized_as_asked_and_the_fingerprint_says_so(
    tmp_path: Path, method: ResizeMethod
) -> None:
    bundle = tiny.foreground_bundle(tmp_path)
    model = SaliencyModel(bundle, Runtime("cpu", "fp32", 1), batch=1, resize=method)
    pixels = tiny.square("green", 0.4)
    expected = resize(pixels, (tiny.SIDE, tiny.SIDE), method)
    assert np.array_equal(model.prepare(pixels, IMAGE)["images"], expected)
    assert model.fingerprint("red") == model.fingerprint("green")
    assert model.fingerprint("red")["resize"] == resize_arithmetic(method)
    assert (model.name, model.sha256) == ("tiny-foreground", bundle.sha256)
    model.close()


def test_a_graph_without_a_variant_stays_as_it_is_beside_others_that_have_one(tmp_path: Path) -> None:
    bundle, other = tiny.teacher_bundle(tmp_path), tiny.foreground_bundle(tmp_path)
    runtime = Runtime("cpu", "int8", 1, {bundle.sha256: replace(bundle, variant="int8-u8")})
    with closing(BatchedNetwork(bundle, runtime, batch=1)) as network:
        assert network.engine.arithmetic.endswith("int8")
    with closing(BatchedNetwork(other, runtime, batch=1)) as network:
        assert network.engine.arithmetic.endswith("fp32")
