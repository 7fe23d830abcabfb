"""Open a teacher in the form that suits the tiles."""

from __future__ import annotations

from collections.abc import Callable

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import EngineError, SettingsError
from fgdd_fast.images.views import ScoreView
from fgdd_fast.models.network import Runtime, Teacher


def open_teacher(
    bundle: Bundle,
    *,
    runtime: Callable[[Bundle], Runtime],
    view: ScoreView,
    tile_size: int,
    batch: int,
    notice: Callable[[str], None] = lambda _: None,
) -> Teacher:
    """Open a teacher: its tile form where one lies beside it for these tiles, and runs as asked.

    Args:
        bundle: the teacher.
        runtime: chooses how a bundle runs.
        view: how a tile is shown; only `pad` has tile forms.
        tile_size: side of a tile in pixels.
        batch: views an inference.
        notice: told, in one line, why a tile form is not used.

    Raises:
        FgddError: the teacher cannot run as asked, or the tile form is damaged or of another teacher.
    """
    form = bundle.find_tile_form(tile_size) if view == "pad" else None
    if form is not None:
        try:
            return Teacher(form, runtime(form), view=view, tile_size=tile_size, batch=batch)
        except (SettingsError, EngineError) as error:  # no variant, or no engine, was made of it
            notice(f"{form.onnx.stem}: not used. {error.problem}")
    return Teacher(bundle, runtime(bundle), view=view, tile_size=tile_size, batch=batch)
