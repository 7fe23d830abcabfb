"""From a class's name to the tokens by which a foreground model is asked for it.

A prompt holds one phrase for each name of the class, such as "a cat. a kitten."; the tokens of one phrase see
each other and no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Bundle, Role
from fgdd_engines.bundle.schema import Check, SchemaError, array, number, one_of, record, string, whole
from fgdd_engines.bundle.sidecar import LARGEST_SIDE
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import BundleError, SettingsError

_WORDNET_ID = re.compile(r"n\d{8}")
_SEPARATORS = ".?"  # each ends a phrase, as a token of its own
_FORMS = (
    'Give a JSON object, as in {"n02123045": ["tabby cat", "tabby"]}, or a text with a line for each folder, '
    "as in: n02123045 tabby cat, tabby"
)
_PROMPTING_FIELDS: Mapping[str, Check] = {
    "form": string(r"(?s).*\{\}.*", what="a text with {} in it", longest=1000),
    "text_length": whole(1, 4096),
    "special_tokens": array(whole(0, 2**31 - 1), longest=4096),
    "threshold": number(0, 1),
    "boxes": whole(1, 100_000),
    "fit": one_of("letterbox", "squash"),
    "shortest_edge": whole(1, LARGEST_SIDE),
}
_PROMPTING = record(_PROMPTING_FIELDS)


@dataclass(frozen=True)
class Prompting:
    """How a foreground model is asked for a class by its name.

    Attributes:
        form: one phrase of a prompt with `{}` for the name, such as `a {}.`; phrases follow each other.
        text_length: tokens of a prompt, with the first and the last, which are special; at most these many
            are taken.
        special_tokens: ids of the tokens that separate phrases, the first and the last token among them.
        threshold: score in [0, 1] above which a box is taken, unless the user names another.
        boxes: boxes taken of an image, at most.
        fit: how an image is brought to the detector's canvas: `letterbox` keeps its aspect and leaves the
            rest of the canvas empty, `squash` fills the canvas.
        shortest_edge: pixels to which a letterbox brings an image's shorter side, where the canvas has room
            for that: the size at which the detector was trained.
    """

    form: str
    text_length: int
    special_tokens: tuple[int, ...]
    threshold: float
    boxes: int
    fit: Literal["letterbox", "squash"]
    shortest_edge: int

    @classmethod
    def of(cls, bundle: Bundle, role: Role | None = None) -> Prompting:
        """Return how a bundle is asked, as its sidecar says it.

        Raises:
            BundleError: it is of another role, says nothing of it, or lacks or garbles a field.
        """
        data = bundle.prompting
        if data is None or role not in (None, bundle.role):
            raise BundleError(f"The bundle {bundle.onnx} cannot be asked for a class by its name")
        try:
            _PROMPTING(dict(data), "prompting")
        except SchemaError as error:
            raise BundleError(f"The sidecar {bundle.sidecar} lacks or garbles a field: {error}") from error
        known = {name: data[name] for name in _PROMPTING_FIELDS}
        return cls(**{**known, "special_tokens": tuple(data["special_tokens"])})

    def as_json(self) -> dict[str, Any]:
        """Return what a sidecar says of it, for `Bundle.prompting`."""
        return {**asdict(self), "special_tokens": list(self.special_tokens)}


def read_prompts(path: Path) -> dict[str, tuple[str, ...]]:
    """Read what to ask for instead of the names of class folders.

    The file is a JSON object from a folder's name to a phrase or a list of phrases, or a text with one class
    a line: the folder's name, a tab or else the first blank, then phrases with commas between them, which is
    the form of ImageNet's `LOC_synset_mapping.txt`. Bytes that are no UTF-8 are kept by surrogateescape, as
    in names of folders.

    Returns:
        One or several phrases for each folder's name.

    Raises:
        SettingsError: the file cannot be read or has another form, a name comes twice, or a phrase is nothing
            to look for; the message says where.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise SettingsError(f"The file of prompts {path} cannot be read: {error.strerror}") from error
    rows = _read_json(path, text) if text.lstrip().startswith(("{", "[")) else _read_lines(path, text)
    prompts: dict[str, tuple[str, ...]] = {}
    for place, name, texts in rows:
        if name in prompts:
            raise SettingsError(f"{place}: the folder {name!r} comes a second time", "Join the two.")
        if not texts:
            raise SettingsError(f"{place}: the folder {name!r} has no phrase", _FORMS)
        for phrase in texts:
            if (fault := _fault(phrase)) is not None:
                raise SettingsError(f"{place}: the phrase {phrase!r} of {name!r} {fault}", _FORMS)
        prompts[name] = tuple(_cleaned(phrase) for phrase in texts)
    if not prompts:
        raise SettingsError(f"The file of prompts {path} is empty", _FORMS)
    return prompts


_Row = tuple[str, str, list[str]]  # where it stands, the folder's name, its phrases


def _read_json(path: Path, text: str) -> list[_Row]:
    try:
        # Pairs instead of a dictionary, which would silently keep the last of two equal names.
        pairs = json.loads(text, object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}, line {error.lineno}: no JSON: {error.msg}", _FORMS) from error
    except (ValueError, RecursionError) as error:  # a number of too many digits; too many lists
        raise SettingsError(f"{path} is no JSON object of phrases", _FORMS) from error
    if not isinstance(pairs, tuple):
        raise SettingsError(f"{path}, line 1: a list, not an object", _FORMS)
    rows: list[_Row] = []
    for name, value in pairs:
        phrases = [value] if isinstance(value, str) else value
        if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
            raise SettingsError(f"{path}: {name!r} has neither a phrase nor a list of phrases", _FORMS)
        rows.append((str(path), name, phrases))
    return rows


def _read_lines(path: Path, text: str) -> list[_Row]:
    rows: list[_Row] = []
    for place, line in enumerate(map(str.strip, text.split("\n")), start=1):
        if line:
            name, _, phrases = line.partition("\t" if "\t" in line else " ")
            rows.append((f"{path}, line {place}", name.strip(), phrases.split(",") if phrases else []))
    return rows


def phrases_of(class_name: str, prompts: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What to look for in images of a class: what `prompts` says, or else its name, underscores as blanks.

    Raises:
        SettingsError: the name is nothing to look for, and `prompts` has no other.
    """
    given = ByClassName(prompts)
    if class_name in given:
        return given[class_name]
    if _WORDNET_ID.fullmatch(class_name):
        fault: str | None = "is a WordNet id"
    else:
        fault = _fault(class_name.replace("_", " "))
    if fault is not None:
        raise SettingsError(
            f"The class {class_name!r} cannot be looked for by its name, which {fault}",
            "Say with --prompts FILE what to look for.",
        )
    return (_cleaned(class_name.replace("_", " ")),)


def _fault(phrase: str) -> str | None:
    """Why a phrase cannot be looked for, if it cannot."""
    if not phrase.strip():
        return "is empty"
    if any("\ud800" <= character <= "\udfff" for character in phrase):
        return "is no UTF-8"
    if not any(character.isalnum() for character in phrase):
        return "has no letter or digit"
    return None


def _cleaned(phrase: str) -> str:
    """The phrase without what would split it and without control characters, with single blanks."""
    kept = (c if c.isprintable() and c not in _SEPARATORS else " " for c in phrase)
    return " ".join("".join(kept).split())


def prompt_text(phrases: Sequence[str], form: str) -> str:
    """The prompt for a class in lower case, such as "a cat. a kitten.".

    Args:
        phrases: as `phrases_of` gives them.
        form: one phrase of a prompt with `{}` for what to look for, such as `a {}.`.
    """
    return " ".join(form.replace("{}", phrase) for phrase in phrases).lower()


@dataclass(frozen=True)
class TokenisedPrompt:
    """A prompt as the networks take it, of T tokens, the last of which may be padding.

    Attributes:
        input_ids: int32 [T], the tokens' ids.
        position_ids: int32 [T], each token's place in its phrase.
        mask: float32 [T], 1 for the prompt's own tokens, 0 for padding.
        self_mask: float32 [T, T], 1 where the token of the row sees that of the column; each sees itself.
    """

    input_ids: NDArray[np.int32]
    position_ids: NDArray[np.int32]
    mask: NDArray[np.float32]
    self_mask: NDArray[np.float32]


class PromptTokenizer:
    """Turns prompts into tokens with the tokenizer that belongs to a text encoder.

    Args:
        tokenizer_json: the tokenizer, in the format of the package `tokenizers`.
        prompting: how many tokens are taken, and which of them separate phrases.

    Raises:
        MissingExtraError: the package `tokenizers` is not installed.
        BundleError: the file is no such tokenizer.
    """

    def __init__(self, tokenizer_json: Path, prompting: Prompting) -> None:
        tokenizers = import_optional("tokenizers", "prompts")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_json))
        except Exception as error:  # the package raises this very class
            raise BundleError(f"The tokenizer {tokenizer_json} cannot be read: {error}") from error
        # A file may bring settings of its own; here a prompt is filled up or refused, never cut.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._prompting = prompting
        self._form_ids = set(self._ids(prompting.form.replace("{}", " ")))
        self._unknown = self._tokenizer.token_to_id("[UNK]")

    def encode(self, prompt: str) -> TokenisedPrompt:
        """The tokens of a prompt, filled up to the length that the networks take.

        Raises:
            SettingsError: the prompt is too long, or the tokenizer knows none of its words.
        """
        ids = self._ids(prompt)
        length = self._prompting.text_length
        if len(ids) > length:
            raise SettingsError(
                f"The prompt {prompt!r} has {len(ids)} tokens, and the bundle takes {length}",
                "Use fewer or shorter phrases, or export with a larger --text-length.",
            )
        words = set(ids) - self._form_ids
        if words == {self._unknown}:
            raise SettingsError(
                f"The foreground model knows no word of the prompt {prompt!r}",
                "Say it in other words with --prompts FILE.",
            )
        input_ids = np.zeros(length, np.int32)  # no other token sees what stands in the padding
        input_ids[: len(ids)] = ids
        self_mask, position_ids = phrase_masks(input_ids, self._prompting.special_tokens)
        mask = (np.arange(length) < len(ids)).astype(np.float32)
        return TokenisedPrompt(input_ids, position_ids, mask, self_mask)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)


def phrase_masks(
    input_ids: NDArray[np.int32], special_tokens: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Which tokens see each other, and the place of each in its phrase, as Grounding DINO has them.

    A phrase ends with a special token. The first token, the last, and what follows the last special token
    see themselves alone, at place 0. The same as `generate_masks_with_special_tokens_and_transfer_map` in
    https://github.com/huggingface/transformers (src/transformers/models/grounding_dino), for one prompt.

    Args:
        input_ids: int32 [T].
        special_tokens: ids of the tokens that separate phrases.

    Returns:
        1 where the token of the row sees that of the column, float32 [T, T]; and places, int32 [T].
    """
    special = np.isin(input_ids, special_tokens)
    phrase: NDArray[np.intp] = (
        np.cumsum(special) - special
    )  # special tokens before each token: the same throughout a phrase
    first = np.searchsorted(phrase, phrase, side="left")
    last = np.searchsorted(phrase, phrase, side="right") - 1
    shared = last < len(input_ids) - 1
    sees = (phrase[:, None] == phrase) & shared | np.eye(len(input_ids), dtype=bool)
    places = np.where(shared, np.arange(len(input_ids)) - first, 0)
    return sees.astype(np.float32), places.astype(np.int32)
