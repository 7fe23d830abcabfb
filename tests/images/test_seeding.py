"""Choices that depend on a seed and a name only."""

from __future__ import annotations

import itertools

from fgdd_fast.seeding import seeded_hash, source_bytes

GOLDEN = "e50b938b91e4a82bb750e23194303fcd3f21b3241f9dacf15a31206f3b87c287"


def test_hashes_are_the_same_for_ever() -> None:
    digest = seeded_hash("fgdd test", 7, "a/\udcff.jpg").hexdigest()
    assert digest == GOLDEN


def test_purpose_seed_and_source_each_change_the_hash() -> None:
    digests = {
        seeded_hash(purpose, seed, source).digest()
        for purpose, seed, source in itertools.product(("one", "two"), (-1, 0, 1, 2**70), ("a", "b", "1"))
    }
    assert len(digests) == 2 * 4 * 3


def test_a_seed_cannot_run_into_a_name() -> None:
    assert seeded_hash("x", 1, "2/a").digest() != seeded_hash("x", 12, "/a").digest()


def test_a_name_cannot_run_into_what_follows() -> None:
    one, other = seeded_hash("x", 1, "ab"), seeded_hash("x", 1, "a")
    one.update(b"c")
    other.update(b"bc")
    assert one.digest() != other.digest()


def test_names_become_the_bytes_on_disk() -> None:
    assert source_bytes("é/\udcff") == b"\xc3\xa9/\xff"
