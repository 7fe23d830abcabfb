"""What the sidecar of a bundle may hold; what each field means stands at `bundle.Bundle`."""

from __future__ import annotations

from collections.abc import Sequence

from fgdd_engines.bundle.schema import (
    SHA256,
    Check,
    array,
    either,
    free,
    one_of,
    or_null,
    record,
    string,
    table,
    whole,
)

LARGEST_SIDE = 8192  # pixels of a network's input; memory is asked for by it
_LONGEST_AXIS = 1 << 31
_NAME = string(r"[^/\\:\0]+", what="the name of a file beside it", longest=255)
_HASHES = table(SHA256, _NAME)
_TENSOR = record(
    {
        "name": string(longest=1000),
        "dtype": string(r"[a-z0-9]+", what="a type", longest=16),
        "shape": array(either(string(longest=1000), whole(0, _LONGEST_AXIS)), longest=16),
    }
)


def sidecar(roles: Sequence[str], variants: Sequence[str]) -> Check:
    """Return the schema, for these roles and variants."""
    side = whole(0, LARGEST_SIDE)
    preprocessing = {
        "height": side,
        "width": side,
        "description": string(),
        "pad_value": or_null(array(whole(0, 255), shortest=3, longest=3)),
    }
    reports = table(free)
    return record(
        {
            "name": string(),
            "role": one_of(*roles),
            "sha256": SHA256,
            "inputs": array(_TENSOR, shortest=1),
            "outputs": array(_TENSOR, shortest=1),
            "preprocessing": record(preprocessing),
            "classes": or_null(array(string())),
            "source": reports,
            "licence": string(),
            "parity": reports,
            "accuracy": reports,
        },
        {
            "prompting": or_null(reports),
            "parts": _HASHES,
            "files": _HASHES,
            "variant": one_of(None, *variants),
            "variant_of": or_null(SHA256),
            "tile_of": or_null(SHA256),
        },
    )
