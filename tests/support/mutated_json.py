"""JSON documents in which a few places hold something else, as damage or malice would have it."""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any

from hypothesis import strategies as st

DEEP = "(deep)"  # replaced by lists within lists once the text is written
NUMBERS = (0, -1, 1, 2, 10**6, 2**31, 2**63, 10**400, -0.5, 0.5, 1e308, math.inf, math.nan)
TEXTS = ("", "x", "\0", "\ud800", "../..", "/", "a/b", "x" * 5000, "0" * 64, "é", "\n", "<script>", "fp16")
HOLDERS: tuple[Any, ...] = ([], [[]], [1, 2, 3], ["a", "b"], [None], {}, {"": {}}, {"a": 1}, DEEP)
ODD: tuple[Any, ...] = (None, True, False, *NUMBERS, *TEXTS, *HOLDERS)


def mutated(document: Any) -> st.SearchStrategy[str]:
    """Texts of the document with one to three places replaced, removed, or taken from another place."""
    return st.randoms(use_true_random=False).map(lambda random: mutate(document, random))


def mutate(document: Any, random: Random) -> str:
    """One of these texts."""
    places = _places(document)
    changed = {"": copy.deepcopy(document)}  # so that the document itself has a place too
    for _ in range(random.randint(1, 3)):
        place = ("", *random.choice(places))
        odd = random.choice(ODD) if random.random() < 0.5 else _at(document, random.choice(places))
        _change(changed, place, copy.deepcopy(odd), remove=random.randrange(5) == 0)
    text = json.dumps(changed.get(""))
    return text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)


def _places(value: Any) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, each in inner for rest in _places(each))]


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _change(document: Any, place: tuple[Any, ...], value: Any, *, remove: bool) -> None:
    *above, last = place
    try:
        holder = _at(document, tuple(above))
        if remove:
            del holder[last]
        else:
            holder[last] = value
    except (KeyError, IndexError, TypeError):
        return  # an earlier change took the place away
