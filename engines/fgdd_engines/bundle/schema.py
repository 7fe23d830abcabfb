"""What a JSON file may hold, declared once and checked whole where the file is read.

    SIDECAR = record({"role": one_of("teacher"), "height": whole(1, 8192), "classes": array(string())})
    data = read_json(content, SIDECAR)

Types, ranges, finite numbers and the depth of what is free are checked. Fields that a schema does not name
are free, so that files of later versions can be read.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]
"""Raises `SchemaError` for a value that stands at a place."""

DEEPEST = 32  # values within values, where a schema leaves them free
MOST = 2**53  # the greatest whole number that every reader of JSON holds exactly


class SchemaError(ValueError):
    """A JSON file does not hold what it should; the message names the place."""


def read_json(content: bytes | str, check: Check) -> Any:
    """Parse JSON and check it whole.

    Raises:
        SchemaError: it is no JSON, nested too deep, or not what the schema says.
    """
    try:
        data = json.loads(content)
    except RecursionError as error:
        raise SchemaError("it is nested too deep") from error
    except ValueError as error:
        raise SchemaError(f"it is no JSON: {error}") from error
    check(data, "")
    return data


def string(pattern: str = r"(?s).*", *, what: str = "a text", longest: int = 1 << 20) -> Check:
    """A text that matches a pattern as a whole."""
    compiled = re.compile(pattern)

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or len(value) > longest or not compiled.fullmatch(value):
            raise _unfit(where, what, value)

    return check


SHA256 = string(r"[0-9a-f]{64}", what="a SHA-256")


def whole(least: int = 0, most: int = MOST) -> Check:
    """A whole number; neither true nor false is one."""

    def check(value: Any, where: str) -> None:
        if type(value) is not int or not least <= value <= most:
            raise _unfit(where, f"a whole number from {least} to {most}", value)

    return check


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """A finite number."""
    bounds = "a finite number" if least == -math.inf else f"a number from {least:g} to {most:g}"

    def check(value: Any, where: str) -> None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # Not so for NaN, nor for integers beyond any float.
        if not is_number or not abs(value) <= sys.float_info.max or not least <= value <= most:
            raise _unfit(where, bounds, value)

    return check


def flag(value: Any, where: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _unfit(where, "true or false", value)


def one_of(*values: object) -> Check:
    """One of these texts, numbers, or null."""

    def check(value: Any, where: str) -> None:
        if not any(type(value) is type(each) and value == each for each in values):
            raise _unfit(where, "one of " + ", ".join(map(repr, values)), value)

    return check


def either(*checks: Check) -> Check:
    """What one of these takes; the last says what is wrong."""

    def check(value: Any, where: str) -> None:
        for each in checks[:-1]:
            try:
                return each(value, where)
            except SchemaError:
                continue
        return checks[-1](value, where)

    return check


def or_null(check: Check) -> Check:
    """Null, or what `check` takes."""
    return lambda value, where: None if value is None else check(value, where)


def array(item: Check, *, shortest: int = 0, longest: int = MOST) -> Check:
    """A list of items."""
    length = f"{shortest}" if shortest == longest else f"at least {shortest}"

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            raise _unfit(where, "a list", value)
        if not shortest <= len(value) <= longest:
            raise SchemaError(f"{_named(where)} must have {length} items, not {len(value)}")
        for place, each in enumerate(value):
            item(each, f"{where}[{place}]")

    return check


def table(value_check: Check, name: Check | None = None) -> Check:
    """An object of any names, with a value of the same kind for each."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _unfit(where, "an object", value)
        for key, each in value.items():
            if name is not None:
                name(key, f"a name in {_named(where)}")
            value_check(each, _within(where, key))

    return check


def record(
    required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, *, rest: Check | None = None
) -> Check:
    """An object of given names, of which the optional ones may be missing; others are free, or as `rest`."""
    known = {**required, **(optional or {})}
    other = free if rest is None else rest

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _unfit(where, "an object", value)
        for key in required:
            if key not in value:
                raise SchemaError(f"{_named(where)} lacks '{key}'")
        for key, each in value.items():
            known.get(key, other)(each, _within(where, key))

    return check


def free(value: Any, where: str) -> None:
    """Anything that is not nested too deep."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise SchemaError(f"{_named(where)} is nested more than {DEEPEST} deep")
        inner: list[Any] = []
        for each in level:
            inner += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        level, depth = inner, depth + 1


def _within(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _named(where: str) -> str:
    return where or "it"


def _unfit(where: str, wanted: str, value: Any) -> SchemaError:
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    return SchemaError(f"{_named(where)} must be {wanted}, not {shown[:80]}")
