"""From a class's name to tokens."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_grounded as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdd_fast.errors import BundleError, MissingExtraError, SettingsError
from fgdd_fast.models.prompts import PromptTokenizer, phrase_masks, phrases_of, prompt_text, read_prompts

SPECIAL = tiny.PROMPTING.special_tokens
FIRST, LAST, STOP, QUESTION = SPECIAL


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tiny.tokenizer_json())
    return PromptTokenizer(path, tiny.PROMPTING)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "prompts"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        '{"n01440764": "tench", "my dog": ["English springer", "a  springer\\nspaniel."]}',
        '\ufeff{\n"n01440764": ["tench"], "my dog": ["English springer", "a springer spaniel"]}',
        "n01440764 tench\n\nmy dog\tEnglish springer, a springer spaniel\n",
        "n01440764\ttench\r\nmy dog \t English springer ,a springer spaniel?",
    ],
)
def test_both_forms_of_a_file_are_read(tmp_path: Path, text: str) -> None:
    expected = {"n01440764": ("tench",), "my dog": ("English springer", "a springer spaniel")}
    assert read_prompts(write(tmp_path, text)) == expected


def test_a_folder_whose_name_is_no_utf_8_can_be_mapped(tmp_path: Path) -> None:
    prompts = read_prompts(write(tmp_path, b"caf\xe9\tcoffee house\n"))
    assert phrases_of("caf\udce9", prompts) == ("coffee house",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("{}", "is empty"),
        ("cat\n", "line 1: the folder 'cat' has no phrase"),
        ("cat cat\ndog\tred, ,blue", "line 2: the phrase ' ' of 'dog' is empty"),
        ("cat cat\ndog dog\ncat tabby", "line 3: the folder 'cat' comes a second time"),
        (b"cat caf\xe9", r"line 1: the phrase ' ?caf\\udce9' of 'cat' is no UTF-8"),
        ("cat !?\n", "line 1: the phrase '!\\?' of 'cat' has no letter or digit"),
        ('{"cat": "cat",\n "dog" "dog"}', "line 2: no JSON"),
        ('{"cat": "cat", "cat": "tabby"}', "the folder 'cat' comes a second time"),
        ('{"cat": 3}', "'cat' has neither a phrase nor a list of phrases"),
        ('{"cat": {"a": "b"}}', "'cat' has neither a phrase nor a list of phrases"),
        ('{"cat": ["cat", null]}', "'cat' has neither a phrase nor a list of phrases"),
        ('{"cat": []}', "the folder 'cat' has no phrase"),
        ('["cat"]', "line 1: a list, not an object"),
        ('{"a":' + "[" * 100_000, "no JSON"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str | bytes, problem: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError, match=problem) as caught:
        read_prompts(path)
    assert str(path) in caught.value.problem
    assert caught.value.advice


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("cat", "cat"),
        ("long_sleeve", "long sleeve"),
        ("__T-shirt__", "T-shirt"),
        ("Mr. Smith?", "Mr Smith"),
        ("vol.2.final", "vol 2 final"),
        ("a\tb\x07c\u200bd", "a b c d"),
        ("猫", "猫"),
        ("7", "7"),
        ("n0144076", "n0144076"),
    ],
)
def test_a_class_without_a_prompt_is_asked_for_by_its_name(name: str, phrase: str) -> None:
    assert phrases_of(name, {}) == (phrase,)


@pytest.mark.parametrize("name", ["", " ", "_", "...", "!?", "\x00\x07", "caf\udce9", "\udcff", "n01440764"])
def test_a_name_that_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        phrases_of(name, {"other": ("cat",)})
    assert repr(name) in caught.value.problem
    assert "--prompts FILE" in caught.value.advice
    caught.value.problem.encode()  # can be printed


def test_phrases_follow_each_other_in_lower_case() -> None:
    assert prompt_text(["Cat"], "a {}.") == "a cat."
    assert prompt_text(["cat", "Tabby Kitten"], "a {}.") == "a cat. a tabby kitten."
    assert prompt_text(["{cat}"], "{}.") == "{cat}."


@settings(max_examples=25)
@given(
    st.lists(st.text(min_size=1, max_size=20).filter(lambda text: any(c.isalnum() for c in text)), min_size=1)
)
def test_a_phrase_never_splits(names: list[str]) -> None:
    phrases = [phrase for name in names for phrase in phrases_of(f"x{name}", {})]
    prompt = prompt_text(phrases, "a {}.")
    assert prompt.count(".") == len(names)
    assert "?" not in prompt
    assert prompt.isprintable()


def test_tokens_are_those_of_the_vocabulary(tokenizer: PromptTokenizer) -> None:
    prompt = tokenizer.encode("a red. a not blue.")
    a, no, red, blue = (tiny.VOCABULARY[word] for word in ("a", "not", "red", "blue"))
    ids = [FIRST, a, red, STOP, a, no, blue, STOP, LAST, 0, 0, 0]
    assert prompt.input_ids.tolist() == ids
    assert prompt.position_ids.tolist() == [0, 0, 1, 2, 0, 1, 2, 3, 0, 0, 0, 0]
    assert prompt.mask.tolist() == [1] * 9 + [0] * 3
    blocks = np.zeros((12, 12))
    for start, end in ((0, 1), (1, 4), (4, 8), (8, 9), (9, 10), (10, 11), (11, 12)):
        blocks[start:end, start:end] = 1
    assert prompt.self_mask.tolist() == blocks.tolist()
    dtypes = (prompt.input_ids, prompt.position_ids, prompt.mask, prompt.self_mask)
    assert [array.dtype.name for array in dtypes] == ["int32", "int32", "float32", "float32"]


def test_a_name_cannot_bring_special_tokens(tokenizer: PromptTokenizer) -> None:
    prompt = tokenizer.encode(prompt_text(phrases_of("red [SEP] [PAD]", {}), "a {}."))
    ids = prompt.input_ids[prompt.mask > 0].tolist()
    assert ids.count(LAST) == 1
    assert 0 not in ids


def test_a_prompt_that_just_fits_is_taken_and_a_longer_one_refused(tokenizer: PromptTokenizer) -> None:
    words = tiny.TEXT_LENGTH - 4  # beside the first, "a", the full stop and the last
    full = tokenizer.encode(f"a {'red ' * words}.")
    assert full.mask.tolist() == [1] * tiny.TEXT_LENGTH
    with pytest.raises(SettingsError, match="has 13 tokens, and the bundle takes 12") as caught:
        tokenizer.encode(f"a {'red ' * (words + 1)}.")
    assert "--text-length" in caught.value.advice


@pytest.mark.parametrize("words", ["xylophone", "xylophone. a quartz"])
def test_a_prompt_of_unknown_words_is_refused(tokenizer: PromptTokenizer, words: str) -> None:
    with pytest.raises(SettingsError, match=f"knows no word of the prompt 'a {words}.'") as caught:
        tokenizer.encode(f"a {words}.")
    assert "--prompts FILE" in caught.value.advice


@pytest.mark.parametrize("words", ["red xylophone", "xylophone. a red", "a", "reds"])
def test_one_known_word_is_enough(tokenizer: PromptTokenizer, words: str) -> None:
    assert tokenizer.encode(f"a {words}.").mask.sum() >= 5


@pytest.mark.parametrize("content", [b"", b'{"version": "1.0"}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"The tokenizer .*tokenizer\.json cannot be read"):
        PromptTokenizer(tmp_path / "tokenizer.json", tiny.PROMPTING)


def test_without_its_package_the_install_line_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError) as caught:
        PromptTokenizer(tmp_path / "tokenizer.json", tiny.PROMPTING)
    assert "fgdd-fast[prompts]" in caught.value.advice


_words = st.lists(st.integers(1037, 1041), max_size=5)
_phrases = st.builds(lambda words, end: [*words, end], _words, st.sampled_from([STOP, QUESTION]))
prompts_of_ids = st.lists(_phrases, min_size=1, max_size=5).map(
    lambda phrases: [FIRST, *(token for phrase in phrases for token in phrase), LAST]
)


@given(prompts_of_ids, st.integers(0, 6))
def test_masks_are_those_of_grounding_dino(ids: list[int], padding: int) -> None:
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino")
    padded = np.array([*ids, *[0] * padding], np.int32)
    sees, places = phrase_masks(padded, SPECIAL)
    for row, length in ((padded, len(padded)), (padded[: len(ids)], len(ids))):  # in a batch, and alone
        expected, positions = reference.generate_masks_with_special_tokens_and_transfer_map(
            torch.from_numpy(row[None].astype(np.int64)), torch.tensor(SPECIAL)
        )
        assert (sees[:length, :length] == expected[0].numpy()).all()
        assert (places[:length] == positions[0].numpy()).all()
