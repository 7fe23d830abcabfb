"""Logits and views as they are kept: what comes back of them, and that nothing else is read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fgdd_fast.errors import SettingsError, TeacherError
from fgdd_fast.labels.compression import Compression, KeptLogits, costs, mean_cost, parse_compression
from fgdd_fast.labels.tensors import pack, pack_views, smallest_unsigned, unpack, unpack_views
from fgdd_fast.labels.training_views import ViewRecipe, draw_epoch

LOGITS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(4, 12)), elements=st.floats(-60, 60, width=32)
)


def packed(tensors: Mapping[str, np.ndarray]) -> bytes:
    return b"".join(pack(tensors))


def kept(logits: np.ndarray, how: str) -> np.ndarray:
    compression = parse_compression(how)
    return compression.unpack(compression.pack(logits), logits.shape[1])


def probabilities(logits: np.ndarray, temperature: float = 20.0) -> np.ndarray:
    scores = np.exp(logits.astype(np.float64) / temperature)
    return scores / scores.sum(axis=1, keepdims=True)


@given(logits=LOGITS)
def test_float16_rounds(logits: np.ndarray) -> None:
    assert np.array_equal(kept(logits, "float16"), logits.astype(np.float16).astype(np.float32))


@given(logits=LOGITS)
def test_int8_is_off_by_half_a_step(logits: np.ndarray) -> None:
    ranges = np.ptp(logits, axis=1, keepdims=True)
    rounding = np.abs(logits).max() * 2.0**-11 + 2.0**-24  # of the lowest logit, and of the step
    assert (np.abs(kept(logits, "int8") - logits) <= ranges / 255 * 0.63 + rounding + 255 * 2.0**-25).all()


@given(logits=LOGITS, count=st.integers(1, 3))
def test_the_greatest_keep_their_probabilities(logits: np.ndarray, count: int) -> None:
    found = kept(logits, f"top:{count}")
    best = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    wanted, got = probabilities(logits), probabilities(found)
    np.testing.assert_allclose(
        np.take_along_axis(got, best, axis=1), np.take_along_axis(wanted, best, axis=1), rtol=3e-3
    )
    for row, order in zip(found, best, strict=True):
        assert len(set(np.delete(row, order).tolist())) == 1, "the others are alike"


def test_a_known_cost() -> None:
    teacher = np.array([[0.0, 0.0], [20.0 * np.log(3), 0.0]], np.float32)
    same, uniform = (mean_cost(costs(teacher, kept)) for kept in (teacher, np.zeros_like(teacher)))
    assert same.divergence == 0
    assert same.agreement == 1
    # The second row's probabilities at T = 20 are 3/4 and 1/4; the first row's are uniform.
    expected = (0.75 * np.log(1.5) + 0.25 * np.log(0.5)) / 2
    assert uniform.divergence == pytest.approx(expected, rel=1e-6)
    assert uniform.information == pytest.approx(expected, rel=1e-6)
    assert mean_cost(costs(teacher, teacher[:, ::-1].copy())).agreement == 0.5


@given(logits=LOGITS, rows=st.integers(1, 3), text=st.sampled_from(["float16", "int8", "top:2"]))
def test_rows_that_are_kept_some_at_a_time_are_those_kept_at_once(
    logits: np.ndarray, rows: int, text: str
) -> None:
    compression = parse_compression(text)
    gathered = KeptLogits(compression, len(logits))
    for start in range(0, len(logits), rows):
        gathered.add(logits[start : start + rows])
    whole = compression.pack(logits)
    assert packed(gathered.arrays) == packed(whole)
    cost = mean_cost(costs(logits, compression.unpack(whole, logits.shape[1])))
    assert mean_cost(gathered.costs) == cost
    assert gathered.predicted.tolist() == logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 70000.0])
@pytest.mark.parametrize("how", ["float16", "int8", "top:1"])
def test_logits_that_cannot_be_kept_are_refused(value: float, how: str) -> None:
    with pytest.raises(TeacherError, match="not finite"):
        parse_compression(how).pack(np.array([[0, 1, value]], np.float32))


@pytest.mark.parametrize("how", ["", "fp16", "top", "top:", "top:0", "top:-1", "top:x", "int8:3", "TOP:3"])
def test_other_names_are_refused(how: str) -> None:
    with pytest.raises(SettingsError, match="no compression"):
        parse_compression(how)


def test_a_compression_that_leaves_nothing_out_is_refused() -> None:
    Compression("top", 9).check(10)
    with pytest.raises(SettingsError, match="keeps all logits of 10"):
        Compression("top", 10).check(10)


@pytest.mark.parametrize("how", ["float16", "int8", "top:2"])
def test_arrays_for_other_classes_are_refused(how: str) -> None:
    compression = parse_compression(how)
    arrays = compression.pack(np.array([[0, 1, 2, 3, 9]], np.float32))
    with pytest.raises((ValueError, IndexError)):
        compression.unpack(arrays, 3)
    with pytest.raises(KeyError):
        compression.unpack({}, 5)


ARRAYS = st.dictionaries(
    st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=8).filter(
        lambda name: name != "__metadata__"
    ),
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.float16, np.float32]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=1, min_side=0, max_side=4))
    ),
    max_size=5,
)


@given(tensors=ARRAYS)
def test_what_is_packed_comes_back(tensors: dict[str, np.ndarray]) -> None:
    content = packed(tensors)
    found = unpack(content)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    assert content == packed(dict(reversed(list(tensors.items()))))


@given(tensors=ARRAYS)
def test_the_formats_own_library_reads_it(tensors: dict[str, np.ndarray]) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    found = safetensors.load(packed(tensors))
    assert found.keys() == tensors.keys()
    assert all(found[name].tobytes() == array.tobytes() for name, array in tensors.items())


def test_arrays_in_any_memory_order_and_byte_order() -> None:
    array = np.arange(12, dtype=">u2").reshape(3, 4).T
    assert np.array_equal(unpack(packed({"a": array}))["a"], array)


@given(content=st.binary(max_size=60), cut=st.integers(1, 90))
def test_anything_else_is_refused(content: bytes, cut: int) -> None:
    whole = packed({"a": np.arange(6, dtype=np.uint16)})
    for other in (content, whole[:-cut]):
        with pytest.raises(ValueError, match=r".+"):
            unpack(other)


@pytest.mark.parametrize(("greatest", "dtype"), [(0, "u1"), (255, "u1"), (256, "u2"), (65536, "u4")])
def test_the_narrowest_integers(greatest: int, dtype: str) -> None:
    array = smallest_unsigned(np.array([0, greatest]), greatest)
    assert array.dtype == dtype
    assert array.tolist() == [0, greatest]


@given(
    size=st.integers(1, 600),
    factor=st.integers(1, 3),
    tile=st.integers(1, 200),
    batch=st.integers(1, 12),
    images=st.integers(1, 30),
    cutmix=st.booleans(),
)
def test_views_come_back(size: int, factor: int, tile: int, batch: int, images: int, cutmix: bool) -> None:
    recipe = ViewRecipe(size=size, factor=factor, batch=batch, seed=1, cutmix=cutmix)
    views = draw_epoch(recipe, images, tile * factor, 2)
    arrays = unpack(packed(pack_views(views, recipe, tile * factor)))
    found = unpack_views(arrays, recipe, images)
    for name in views.__annotations__:
        assert np.array_equal(getattr(found, name), getattr(views, name)), name
        assert getattr(found, name).dtype == getattr(views, name).dtype, name


def test_views_of_another_number_of_images_are_refused() -> None:
    recipe = ViewRecipe(size=8, factor=2, batch=5, seed=0)
    arrays = pack_views(draw_epoch(recipe, 10, 16, 0), recipe, 16)
    with pytest.raises(ValueError, match="shape"):
        unpack_views(arrays, recipe, 11)
    with pytest.raises(KeyError):
        unpack_views({}, recipe, 10)
