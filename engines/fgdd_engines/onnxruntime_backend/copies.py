"""Copies of tensors between GPU and CPU that ONNX Runtime puts into a graph whose nodes lie on both.

A session tells where its nodes were placed, but nothing of copies, which are put in afterwards: they stand in
the graph as the session saves it. Each waits for the GPU, and none can be part of a CUDA graph.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError
from fgdd_engines.onnxruntime_backend.session import save_optimised

# A few copies move numbers of which shapes are computed. Many go back and forth around an operator that the
# provider does not have: those of a Grounding DINO around its 48 GridSample would be 96 and more.
MOST_COPIES = 16
# Field 4 of an ONNX node, its operator, as it is serialised: the tag, the length, the name.
_COPIES = (b"\x22\x0eMemcpyFromHost", b"\x22\x0cMemcpyToHost")
_log = logging.getLogger(__name__)


@contextmanager
def watching_copies(options: Any, bundle: Bundle, provider: str) -> Iterator[None]:
    """Within the block, let a session be opened with these options; then see what it copies in each call.

    The graph is saved in the system's folder for temporary files, if there is room, and removed again.

    Raises:
        EngineError: it copies more tensors than any model does that fits the provider.
    """
    files = (bundle.onnx, *map(bundle.beside, bundle.files))  # some of which may hold weights
    size = sum(file.stat().st_size for file in files if file.exists())
    if shutil.disk_usage(gettempdir()).free < 2 * size:
        yield
        return
    with TemporaryDirectory(prefix="fgdd-") as folder:
        saved = save_optimised(options, Path(folder))
        yield
        copies = count_copies(saved)
    if copies > MOST_COPIES:
        raise EngineError(
            f"{provider} moves {copies} tensors of '{bundle.name}' between the GPU and the CPU in each call",
            "Use another device or precision.",
        )
    if copies:
        _log.warning("%s: %d tensors go between the GPU and the CPU in each call", bundle.name, copies)


def count_copies(graph: Path) -> int:
    """Return how many nodes of a saved graph copy a tensor between GPU and CPU; 0 where it was not saved."""
    content = graph.read_bytes() if graph.exists() else b""
    return sum(content.count(copy) for copy in _COPIES)
