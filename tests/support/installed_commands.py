"""A script that asks every command of `fgdd-fast` for its help."""

from __future__ import annotations

EVERY_HELP = """
import click
from click.testing import CliRunner
from fgdd_fast.cli import main

def walk(command, words):
    found = CliRunner().invoke(main, [*words, "--help"])
    assert found.exit_code == 0, (words, found.output, found.exception)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            walk(command.get_command(context, name), [*words, name])

walk(main, [])
"""
