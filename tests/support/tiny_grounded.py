"""A Grounded SAM 2 small enough to see through, as an ONNX bundle in the joint and in the split form.

An object is what is red, green or blue; the prompt says which of these are asked for. The detector finds one
box for each colour, around all that has it, and scores it by the purest pixel; the segmenter takes the
coloured pixels in the boxes. "a not red." asks for nothing, and only tokens after the first of a phrase
count: so a prompt is understood only with the right masks and positions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tiny_bundles import make_model, write

from fgdd_engines.base import Array, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, Role
from fgdd_engines.bundle.files import file_sha256, write_file
from fgdd_fast.models.prompts import Prompting

CANVAS = (24, 32)  # height and width: not a square, so that a mix-up shows
SIDE = 16  # of the segmenter's input and of its mask
TEXT_LENGTH = 12
COLOURS = ("red", "green", "blue")
BOXES = len(COLOURS)
DIM = len(COLOURS)
COLOURED = 0.25  # a pixel's strongest channel exceeds the others by this share of 255
PROMPTING = Prompting(
    form="a {}.",
    text_length=TEXT_LENGTH,
    special_tokens=(101, 102, 1012, 1029),
    threshold=0.4,
    boxes=BOXES,
    fit="letterbox",
    shortest_edge=1000,
)
_WORDS = ("a", "not", "patch", "##s", *COLOURS)
_FIRST_WORD = 1037
VOCABULARY = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    ".": 1012,
    "?": 1029,
    **{word: _FIRST_WORD + index for index, word in enumerate(_WORDS)},
}

CANVAS_SPEC = TensorSpec("canvas", "uint8", ("batch", *CANVAS, 3))
VALID = TensorSpec("valid", "int32", ("batch", 2))
IMAGES = TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3))
FEATURES = TensorSpec("text_features", "float32", ("batch", TEXT_LENGTH, DIM))
POSITIONS = TensorSpec("text_positions", "float32", ("batch", TEXT_LENGTH, DIM))
TEXT_MASK = TensorSpec("text_mask", "float32", ("batch", TEXT_LENGTH))
TEXT_SELF_MASK = TensorSpec("text_self_mask", "float32", ("batch", TEXT_LENGTH, TEXT_LENGTH))
THRESHOLD = TensorSpec("threshold", "float32", ("batch",))
OCCUPANCY = TensorSpec("occupancy", "float32", ("batch",))
BOXES_SPEC = TensorSpec("boxes", "float32", ("batch", BOXES, 4))
SCORES = TensorSpec("scores", "float32", ("batch", BOXES))
MASK = TensorSpec("mask", "uint8", ("batch", SIDE, SIDE))
DETECTOR_INPUTS = (CANVAS_SPEC, VALID, FEATURES, POSITIONS, TEXT_MASK, TEXT_SELF_MASK, THRESHOLD)
TEXT_INPUTS = (
    TensorSpec("input_ids", "int32", ("batch", TEXT_LENGTH)),
    TensorSpec("self_mask", "float32", ("batch", TEXT_LENGTH, TEXT_LENGTH)),
    TensorSpec("position_ids", "int32", ("batch", TEXT_LENGTH)),
)
TEXT = (TEXT_INPUTS, (FEATURES, POSITIONS))
_Constants = dict[str, Array]
_Graph = tuple[list[onnx.NodeProto], _Constants]
Specs = tuple[TensorSpec, ...]


def scene(size: tuple[int, int], **patches: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A grey picture uint8 [height, width, 3] of some height and width, with patches of colour.

    A patch is its left, top, right and bottom edge in pixels, as in `red=(0, 0, 8, 8)`.
    """
    pixels = np.full((*size, 3), 127, np.uint8)
    for name, (left, top, right, bottom) in patches.items():
        pixels[top:bottom, left:right] = [250 if colour == name else 30 for colour in COLOURS]
    return pixels


def random_scene(seed: int) -> NDArray[np.uint8]:
    """A scene of any aspect with one to three colours."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(10, 80, 2)
    patches = {}
    for colour in rng.permutation(COLOURS)[: rng.integers(1, 4)]:
        left, top = rng.integers(0, width - 5), rng.integers(0, height - 5)
        right, bottom = rng.integers(left + 4, width), rng.integers(top + 4, height)
        patches[str(colour)] = (int(left), int(top), int(right), int(bottom))
    return scene((int(height), int(width)), **patches)


def write_grounded_bundle(folder: Path, *, split: bool = False) -> Bundle:
    """Write the bundle with its parts and its tokenizer into a folder."""
    path = folder / ("tiny-grounded-split.onnx" if split else "tiny-grounded.onnx")
    parts = {"text": _write(path, "text", "text-encoder", _text_encoder(), *TEXT)}
    graph, segmenter = _detector(), _segmenter()
    inputs, outputs = DETECTOR_INPUTS, (BOXES_SPEC, SCORES)
    if split:
        specs = (IMAGES, BOXES_SPEC, SCORES), (OCCUPANCY, MASK)
        parts["segmenter"] = _write(path, "segmenter", "segmenter", segmenter, *specs)
    else:
        inputs, outputs = (*inputs, IMAGES), (OCCUPANCY, *outputs, MASK)
        graph = graph[0] + segmenter[0], graph[1] | segmenter[1]
    tokenizer = path.with_name(f"{path.stem}.tokenizer.json")
    write_file(tokenizer, tokenizer_json().encode())
    more = {
        "prompting": PROMPTING.as_json(),
        "parts": {name: part.sha256 for name, part in parts.items()},
        "files": {"tokenizer.json": file_sha256(tokenizer)},
    }
    return _write(path, "", "foreground", graph, inputs, outputs, **more)


def tokenizer_json() -> str:
    """A tokenizer with BERT's rules and special tokens and few words, in the format of `tokenizers`."""
    words = {index: word for word, index in VOCABULARY.items()}
    vocabulary = {words.get(index, f"[unused{index}]"): index for index in range(max(words) + 1)}
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    first, last = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    added = [{"id": VOCABULARY[name], "content": name, **flags, "special": True} for name in special]
    ends = {name: {"id": name, "ids": [VOCABULARY[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    normalizer = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    pair = [first, sequence, last, {"Sequence": {"id": "B", "type_id": 1}}, last]
    processor = {"single": [first, sequence, last], "pair": pair, "special_tokens": ends}
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": vocabulary,
    }
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", **normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", **processor},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": model,
    }
    return json.dumps(data)


def _text_encoder() -> _Graph:
    """The feature of a token is the colour that its word names; its position is its place in the phrase."""
    embeddings = np.zeros((max(VOCABULARY.values()) + 1, DIM), np.float32)
    for channel, colour in enumerate(COLOURS):
        embeddings[VOCABULARY[colour], channel] = 1
    embeddings[VOCABULARY["not"]] = -1
    nodes = [
        helper.make_node("Gather", ["embeddings", "input_ids"], ["words"], axis=0),
        helper.make_node("MatMul", ["self_mask", "words"], ["phrases"]),
        helper.make_node("Clip", ["phrases", "none", "whole"], ["text_features"]),
        helper.make_node("Cast", ["position_ids"], ["places"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["places", "last"], ["place"]),
        helper.make_node("Expand", ["place", "channels"], ["text_positions"]),
    ]
    constants = {"embeddings": embeddings, "none": np.float32(0), "whole": np.float32(1)}
    constants |= {"last": np.array([2]), "channels": np.array([1, 1, DIM])}
    return nodes, constants


def _detector() -> _Graph:
    """Boxes and scores: of each colour asked for, all that has it."""
    node = helper.make_node
    nodes = [
        # Which colours are asked for, [batch, 1, 1, colours].
        node("MatMul", ["text_self_mask", "text_features"], ["seen"]),
        node("Greater", ["text_positions", "zero"], ["after_first"]),
        node("Cast", ["after_first"], ["after_first_float"], to=TensorProto.FLOAT),
        node("Mul", ["seen", "after_first_float"], ["seen_after_first"]),
        node("Unsqueeze", ["text_mask", "axis_2"], ["text_mask_column"]),
        node("Mul", ["seen_after_first", "text_mask_column"], ["seen_of_prompt"]),
        node("ReduceMax", ["seen_of_prompt"], ["named"], axes=[1], keepdims=0),
        node("Clip", ["named", "zero", "one"], ["named_once"]),
        node("Unsqueeze", ["named_once", "axes_12"], ["asked"]),
        # How much each channel exceeds the others, where the image is, [batch, rows, columns, colours].
        node("Cast", ["canvas"], ["canvas_float"], to=TensorProto.FLOAT),
        node("Div", ["canvas_float", "white"], ["canvas_share"]),
        node("Gather", ["canvas_share", "next"], ["second"], axis=3),
        node("Gather", ["canvas_share", "after_next"], ["third"], axis=3),
        node("Max", ["second", "third"], ["rival"]),
        node("Sub", ["canvas_share", "rival"], ["excess"]),
        node("Cast", ["valid"], ["valid_float"], to=TensorProto.FLOAT),
        node("Split", ["valid_float", "ones"], ["valid_rows", "valid_columns"], axis=1),
        node("Unsqueeze", ["valid_rows", "axes_23"], ["rows_end"]),
        node("Unsqueeze", ["valid_columns", "axes_23"], ["columns_end"]),
        node("Less", ["rows", "rows_end"], ["in_rows"]),
        node("Less", ["columns", "columns_end"], ["in_columns"]),
        node("And", ["in_rows", "in_columns"], ["inside"]),
        node("Cast", ["inside"], ["inside_float"], to=TensorProto.FLOAT),
        node("Mul", ["excess", "asked"], ["excess_asked"]),
        node("Mul", ["excess_asked", "inside_float"], ["strength"]),
        # A box around each colour, and its score.
        node("ReduceMax", ["strength"], ["purest"], axes=[1, 2], keepdims=0),
        node("Greater", ["strength", "coloured"], ["hit"]),
        *_edges("rows", "valid_rows", "top", "bottom"),
        *_edges("columns", "valid_columns", "left", "right"),
        node("Concat", ["left", "top", "right", "bottom"], ["found"], axis=2),
        # The best first; nothing below the threshold.
        node("Unsqueeze", ["threshold", "axis_1"], ["threshold_column"]),
        node("Greater", ["purest", "threshold_column"], ["above"]),
        node("Where", ["above", "purest", "zero"], ["taken"]),
        node("TopK", ["taken", "count"], ["scores", "order"], axis=1),
        node("Unsqueeze", ["order", "axis_2"], ["order_column"]),
        node("Expand", ["order_column", "edges"], ["order_of_edges"]),
        node("GatherElements", ["found", "order_of_edges"], ["found_in_order"], axis=1),
        node("Greater", ["scores", "zero"], ["is_box"]),
        node("Unsqueeze", ["is_box", "axis_2"], ["is_box_column"]),
        node("Where", ["is_box_column", "found_in_order", "zero"], ["boxes"]),
    ]
    return nodes, _detector_constants()


def _detector_constants() -> _Constants:
    return {
        "zero": np.float32(0),
        "one": np.float32(1),
        "white": np.float32(255),
        "coloured": np.float32(COLOURED),
        "far": np.float32(1e6),
        "axis_1": np.array([1]),
        "axis_2": np.array([2]),
        "axes_12": np.array([1, 2]),
        "axes_23": np.array([2, 3]),
        "ones": np.array([1, 1]),
        "next": np.array([1, 2, 0]),
        "after_next": np.array([2, 0, 1]),
        "rows": np.arange(CANVAS[0], dtype=np.float32).reshape(1, -1, 1, 1),
        "columns": np.arange(CANVAS[1], dtype=np.float32).reshape(1, 1, -1, 1),
        "count": np.array([BOXES]),
        "edges": np.array([1, 1, 4]),
    }


def _edges(index: str, length: str, low: str, high: str) -> list[onnx.NodeProto]:
    """Both edges of each colour's box along one axis, [batch, colours, 1], as shares of the image."""
    node = helper.make_node
    return [
        node("Where", ["hit", index, "far"], [f"{low}_of_hits"]),
        node("ReduceMin", [f"{low}_of_hits"], [f"{low}_pixel"], axes=[1, 2], keepdims=0),
        node("Add", [index, "one"], [f"{index}_after"]),
        node("Where", ["hit", f"{index}_after", "zero"], [f"{high}_of_hits"]),
        node("ReduceMax", [f"{high}_of_hits"], [f"{high}_pixel"], axes=[1, 2], keepdims=0),
        node("Div", [f"{low}_pixel", length], [f"{low}_share"]),
        node("Div", [f"{high}_pixel", length], [f"{high}_share"]),
        node("Unsqueeze", [f"{low}_share", "axis_2"], [low]),
        node("Unsqueeze", [f"{high}_share", "axis_2"], [high]),
    ]


def _segmenter() -> _Graph:
    """The mask: coloured pixels whose centre lies in a box."""
    node = helper.make_node
    sides = {"box_left": 0, "box_top": 1, "box_right": 2, "box_bottom": 3}
    nodes = [
        node("Cast", ["images"], ["image_float"], to=TensorProto.FLOAT),
        node("ReduceMax", ["image_float"], ["highest"], axes=[3], keepdims=0),
        node("ReduceMin", ["image_float"], ["lowest"], axes=[3], keepdims=0),
        node("Sub", ["highest", "lowest"], ["range"]),
        node("Greater", ["range", "coloured_range"], ["coloured_pixel"]),
        node("Unsqueeze", ["coloured_pixel", "mask_axis_1"], ["coloured_pixels"]),
        *(node("Gather", ["boxes", name], [f"{name}_edge"], axis=2) for name in sides),
        *(node("Unsqueeze", [f"{name}_edge", "mask_axis_2"], [f"{name}_share"]) for name in sides),
        node("Greater", ["across", "box_left_share"], ["after_left"]),
        node("Less", ["across", "box_right_share"], ["before_right"]),
        node("Greater", ["down", "box_top_share"], ["below_top"]),
        node("Less", ["down", "box_bottom_share"], ["above_bottom"]),
        node("Unsqueeze", ["scores", "mask_axes_23"], ["score_of_box"]),
        node("Greater", ["score_of_box", "no_score"], ["box_is_real"]),
        node("And", ["after_left", "before_right"], ["within_columns"]),
        node("And", ["below_top", "above_bottom"], ["within_rows"]),
        node("And", ["within_columns", "within_rows"], ["within"]),
        node("And", ["within", "box_is_real"], ["within_real"]),
        node("And", ["within_real", "coloured_pixels"], ["object"]),
        node("Cast", ["object"], ["object_float"], to=TensorProto.FLOAT),
        node("ReduceMax", ["object_float"], ["union"], axes=[1], keepdims=0),
        node("ReduceMean", ["union"], ["occupancy"], axes=[1, 2], keepdims=0),
        node("Mul", ["union", "brightest"], ["bright"]),
        node("Cast", ["bright"], ["mask"], to=TensorProto.UINT8),
    ]
    centres = ((np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
    constants: _Constants = {
        "coloured_range": np.float32(255 * COLOURED),
        "no_score": np.float32(0),
        "brightest": np.float32(255),
        "mask_axis_1": np.array([1]),
        "mask_axis_2": np.array([2]),
        "mask_axes_23": np.array([2, 3]),
        "across": centres.reshape(1, 1, 1, -1),
        "down": centres.reshape(1, 1, -1, 1),
        **{name: np.array([index]) for name, index in sides.items()},
    }
    return nodes, constants


def _write(
    path: Path, part: str, role: Role, graph: _Graph, inputs: Specs, outputs: Specs, **more: Any
) -> Bundle:
    path = path.with_suffix(f".{part}.onnx") if part else path
    model = make_model(path.stem, *graph, inputs, outputs)
    return write(model, path, role, Preprocessing(*CANVAS, "pixels / 255"), **more)
