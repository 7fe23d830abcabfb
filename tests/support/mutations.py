"""Files with damage in them: of their bytes, and of what their bytes mean."""

from __future__ import annotations

import json
import re
import sqlite3
import struct
import zlib
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from random import Random

from mutated_json import NUMBERS, TEXTS, mutate

HEAD = 160  # bytes at the beginning, which half of the changes hit
_PNG = b"\x89PNG\r\n\x1a\n"
_INTEGERS = (0, 1, 2, 127, 255, 256, 4096, 16_383, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def mutate_bytes(content: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Change one to a dozen places; parts may come from others of its kind."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 12))):
        _change(data, random, others)
    if data.startswith(_PNG) and random.random() < 0.5:
        _mend_png(data)  # else decoders look no further than the check sums
    return bytes(data)


def _change(data: bytearray, random: Random, others: Sequence[bytes]) -> None:
    size = len(data)
    at = random.randrange(min(size, HEAD) if random.random() < 0.5 else size) if size else 0
    length = min(random.choice((1, 1, 2, 4, 8, 64, 1024)), size - at)
    match random.randrange(8 if others else 7):
        case 0 if size:
            data[at] ^= 1 << random.randrange(8)
        case 1 if size:
            data[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
        case 2:
            layout = random.choice(("<H", ">H", "<I", ">I"))
            number = random.choice(_INTEGERS) % 256 ** struct.calcsize(layout)
            data[at : at + struct.calcsize(layout)] = struct.pack(layout, number)
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = data[at : at + length]
        case 5:
            data[at:at] = random.randbytes(max(1, length))
        case 6 if random.random() < 0.3:
            del data[at:]
        case 7:
            other = random.choice(others)
            start = random.randrange(len(other))
            data[at : at + length] = other[start : start + length]


def _mend_png(data: bytearray) -> None:
    at = len(_PNG)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if at + 12 + size > len(data):
            return
        struct.pack_into(">I", data, at + 8 + size, zlib.crc32(data[at + 4 : at + 8 + size]))
        at += 12 + size


def mutate_file(path: Path, pristine: bytes, random: Random) -> None:
    """Write a file with damage: of its bytes, or of what it says, as its kind has it."""
    meaning = random.random() < 0.7
    if meaning and path.suffix == ".json":
        path.write_text(mutate(json.loads(pristine), random))
    elif meaning and pristine.startswith(b"SQLite"):
        path.write_bytes(pristine)
        _mutate_database(path, random)
    elif meaning and path.suffix in (".toml", ".csv", ".txt", ".yaml", ".lst"):
        path.write_bytes(_mutate_words(pristine, random))
    else:
        path.write_bytes(mutate_bytes(pristine, random))


def _mutate_database(path: Path, random: Random) -> None:
    """Put something odd into some rows, or let a table, or what a version says, be another."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = random.choice([name for name in tables if not name.startswith("sqlite_")])
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        column = random.choice(columns)
        kind = random.randrange(12)
        if kind == 0:
            database.execute(f"DROP TABLE {table}")
        elif kind == 1:
            database.execute(f"PRAGMA user_version = {random.choice((0, 1, 2, 3, 99, -1))}")
        elif kind == 2:
            database.execute(f"DELETE FROM {table} WHERE random() % 2")
        else:
            where = "" if kind < 5 else f'WHERE "{column}" = (SELECT "{column}" FROM {table} LIMIT 1)'
            with suppress(sqlite3.IntegrityError):  # a key takes whole numbers alone
                database.execute(f'UPDATE OR IGNORE {table} SET "{column}" = ? {where}', [_odd(random)])


def _odd(random: Random) -> object:
    numbers = [value for value in NUMBERS if abs(value) < 2**63 or isinstance(value, float)]
    texts = [text.encode("utf-8", "surrogatepass") for text in TEXTS]
    blobs: list[object] = [b"\0" * 8, b"\x01" * 9, random.randbytes(20), *texts]
    return random.choice([None, *numbers, *blobs, *(text for text in TEXTS if text.isprintable())])


def _mutate_words(pristine: bytes, random: Random) -> bytes:
    """Exchange some words and signs of a text."""
    words = re.split(rb"([\s,:=\[\]\"]+)", pristine)
    for _ in range(random.randint(1, 3)):
        odd = random.choice([*map(str, NUMBERS), *TEXTS, "'", '"', "[", "9" * 5000, "\r", ",", "-1", "x y"])
        word = odd.encode("utf-8", "surrogatepass")
        words[random.randrange(len(words))] = random.choice([word, random.choice(words)])
    return b"".join(words)
