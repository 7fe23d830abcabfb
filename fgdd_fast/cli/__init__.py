"""The command line. Each command lives in its own module, and loads what it needs when it runs."""

from fgdd_fast.cli.main import main

__all__ = ["main", "options", "terminal"]
