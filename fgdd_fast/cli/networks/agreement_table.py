"""How decisions compare, as a table."""

from __future__ import annotations

from rich.table import Table

from fgdd_fast.runtime.tolerances import TOLERANCES, Agreement


def agreement_table(agreement: Agreement) -> Table:
    """How decisions compare, and what is accepted."""
    table = Table("figure", "value", "accepted")
    for name, value in agreement.figures.items():
        bar = TOLERANCES[agreement.strictness].get(name)
        table.add_row(name.replace("_", " "), f"{value:.4g}", "" if bar is None else str(bar))
    return table
