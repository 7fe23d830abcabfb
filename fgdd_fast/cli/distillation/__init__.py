"""Commands that make distilled data sets, and look at them."""

__all__ = ["demo", "distill", "label", "measure", "pack", "report", "sheet", "stream"]
