"""From what a page shows to its HTML: the template with its style and script, and data that stays data."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fgdd_engines.bundle.files import write_file
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.output.folder import writing

EXTRA = "report"
# Within <script>: nothing there can end the element, or begin markup.
_ESCAPES = {
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def check_jinja() -> None:
    """Refuse, before any work, where Jinja is not installed.

    Raises:
        MissingExtraError: it is not; the message is the install line.
    """
    import_optional("jinja2", EXTRA)


def embedded(data: Any) -> str:
    """Return JSON that may stand in a `<script type="application/json">` whatever texts it holds."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPES)


def render(template: str, script: str, view: Mapping[str, Any]) -> str:
    """Fill in a template of this folder.

    Args:
        template: its name.
        script: name of its script. The page allows no other, and no request to anywhere.
        view: what the template shows; texts are escaped.

    Raises:
        MissingExtraError: Jinja is not installed.
    """
    jinja2 = import_optional("jinja2", EXTRA)
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_file),
    )
    code = "\n".join((_file("figures.js"), _file(script)))
    digest = base64.b64encode(hashlib.sha256(f"\n{code}\n".encode()).digest()).decode("ascii")
    environment.globals |= {
        "style": _file("page.css"),
        "code": code,
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{digest}'",
    }
    return str(environment.get_template(template).render(view))


def write_page(path: Path, text: str) -> None:
    """Write a page, which replaces an older one whole.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.encode("utf-8"))


def _file(name: str) -> str:
    return resources.files("fgdd_fast.report_page").joinpath(name).read_text(encoding="utf-8")
