"""`fgdd-fast completion`, and what a shell offers for the values of options."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem, get_completion_class

from fgdd_fast.cli.command import Command

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
PROGRAM = "fgdd-fast"
SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script by which a shell completes commands.

    It also completes options, and the names of models, presets and rules.

    \b
    bash:  fgdd-fast completion bash > ~/.local/share/bash-completion/completions/fgdd-fast
    zsh:   fgdd-fast completion zsh > FOLDER/_fgdd-fast    (a folder of your $fpath)
    fish:  fgdd-fast completion fish > ~/.config/fish/completions/fgdd-fast.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # they are click's own
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, PROGRAM, "_FGDD_FAST_COMPLETE").source())


def offer(names: Callable[[], Sequence[str]]) -> Completer:
    """Offer these names; files where none begins so."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]

    return complete


def models(*others: str, role: str | None = None) -> Completer:
    """Offer the models of the catalogue that have a role, and other names."""

    def names() -> list[str]:
        from fgdd_fast.models.catalogue.catalogue import load_catalogue  # noqa: PLC0415 - once it is wanted

        return [*others, *(entry.name for entry in load_catalogue() if role in (None, entry.role))]

    return offer(names)
