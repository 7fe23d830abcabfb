"""What all commands share: help, how much they say, JSON, files of settings, and completion in a shell."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from tiny_distillation import arguments, assert_refused

from fgdd_fast.cli import main, renamed
from fgdd_fast.cli.command import short_help
from fgdd_fast.cli.sections import COMMANDS
from fgdd_fast.output.manifest_reading import read_manifest


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by the words that name it."""

    def walk(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield words, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from walk(f"{words} {name}".strip(), found)

    yield from list(walk("", main))[1:]


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_each_command_has_an_example_and_says_in_a_whole_sentence_what_it_does() -> None:
    for words, command in commands():
        sentence = short_help(command)
        assert sentence[0].isupper(), words
        assert "..." not in sentence, words
        assert len(sentence) <= 66, words  # which fits beside its name on a line of 80
        assert words not in COMMANDS or COMMANDS[words][1] == sentence
        if not isinstance(command, click.Group):
            spellings = {spelling for option in command.params for spelling in option.opts}
            assert spellings >= {"--quiet", "--verbose", "--config"}, words
            assert f"fgdd-fast {words}" in (command.help or ""), words


@pytest.mark.parametrize(
    ("words", "command"), [each for each in commands() if "Example:" in str(each[1].help)]
)
def test_examples_are_commands_that_work(words: str, command: click.Command) -> None:
    example = str(command.help).split("Example: fgdd-fast ")[1].split()
    assert example[: len(words.split())] == words.split()
    command.make_context(words, example[len(words.split()) :])


def test_commands_are_listed_by_task_without_importing_them() -> None:
    script = "import sys\nfrom fgdd_fast.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    sections = ["Distil:", "Look and trust:", "Train students:", "Networks:", "This machine:"]
    assert [line for line in ran.stdout.splitlines() if line in sections] == sections
    assert ran.stdout.count("...") == 1  # [ARGS]...
    assert not {"numpy", "cv2"} & {*ran.stdout.splitlines()[-1].split()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with an image that cannot be read, its models, and the store of one distillation."""
    folder = tmp_path_factory.mktemp("command")
    tiny.write_squares(folder / "data", 8)
    (folder / "data" / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    tiny.foreground_bundle(folder)
    tiny.teacher_bundle(folder)
    assert run(*arguments(folder, "first")).exit_code == 0
    return folder


def test_quiet_shows_warnings_alone_and_verbose_where_lines_arise(folder: Path) -> None:
    plain, quiet, verbose = (
        run(*arguments(folder, f"loud{flag}"), *[flag] * bool(flag)) for flag in ("", "-q", "-v")
    )
    assert plain.exit_code == quiet.exit_code == verbose.exit_code == 0
    for line in ("Distilled", "whole tiles", f"3 mosaics in {folder / 'loud'}", "Next: fgdd-fast label"):
        assert line in plain.output
        assert line not in quiet.output
    assert quiet.stdout == ""
    assert "broken.png" in quiet.stderr
    assert "fgdd_fast.runtime.choose: tiny-teacher" in verbose.stderr
    refused = run(*arguments(folder, "loud"), "-v")
    assert refused.exit_code == 1
    assert "Traceback" in refused.stderr
    assert "Traceback" not in run(*arguments(folder, "loud")).stderr
    assert_refused(run(*arguments(folder, "none"), "-q", "-v"), "either")


def test_json_is_all_of_standard_output_and_may_stand_before_arguments(folder: Path) -> None:
    first, *rest = arguments(folder, "as-json")
    result = run(first, "--json", *rest)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    tiles = told["whole_tiles"] + told["crop_tiles"]
    assert (told["classes"], told["mosaics"], tiles, told["skipped"]) == (3, 3, 12, 1)
    assert {"measuring", "writing"} <= set(told["seconds"])
    assert "3 mosaics in" in result.stderr
    file = folder / "told.json"
    assert run("verify", str(folder / "as-json"), "--json", str(file)).stdout == ""
    assert json.loads(file.read_bytes())["images"] == 3
    told = json.loads(run("report", "--json", str(folder / "as-json")).stdout)
    assert told == {"report": str(folder / "as-json" / "report.html")}
    assert_refused(run("verify", "--json"), "Missing argument 'OUT'")


def test_settings_of_a_file_are_kept_as_if_they_had_been_given(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        '[distill]\npreset = "paper"\nipc = 2\nrule = "mean"\npool = 6\nreport = false\nignore = ["no*"]\n'
        "[teacher.fit]\nhold-out = 0.5\n"
    )
    given = arguments(folder, "given", ipc=2, rule="mean", pool=6, preset="paper")
    filed = arguments(folder, "filed", ipc=None)
    assert run(*given).exit_code == 0
    result = run(*filed, "--config", str(file))
    assert result.exit_code == 0, result.output
    assert read_manifest(folder / "filed").settings == read_manifest(folder / "given").settings
    flags = run(*arguments(folder, "flags", rule="median", ipc=1), "--config", str(file))
    assert flags.exit_code == 0, flags.output
    settings = read_manifest(folder / "flags").settings
    assert (settings["rule"], settings["ipc"], settings["pool"]) == ("median", 1, 6)


def test_a_file_in_the_folder_changes_nothing_unless_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fgdd-fast.toml").write_text("[distill]\nipc = 2\n")
    assert run(*arguments(folder, "alone", ipc=None), "--pool", "1").exit_code == 1  # 10 mosaics of one image
    assert run(*arguments(folder, "named", ipc=None), "--config", "fgdd-fast.toml").exit_code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[distil]\nipc = 1", ("'distil' is no command", "Did you mean distill?")),
        ("[distill]\nrules = 'mean'", ("'rules' is no option of 'distill'", "Did you mean rule?")),
        ("[distill]\nout = 'x'", ("'out' is no option of 'distill'",)),
        ("ipc = 1", ("'ipc' is no command",)),
        ("distill = 1", ("'distill' stands in no table", "[distill]")),
        ("[distill]\nipc = 1.5", ("Invalid value for '--ipc'", "1.5")),
        ("[distill]\nipc = true", ("'ipc' is True", "a text or a number")),
        ("[distill]\noverwrite = 'yes'", ("'overwrite' is 'yes'", "true or false")),
        ("[distill]\nipc = [1]", ("'ipc' is [1]",)),
        ("[distill\nipc = 1", ("is no TOML",)),
        (f"[distill]\nipc = {'9' * 5000}", ("is no TOML",)),
        ("[distill.x]\nipc = 1", ("'x' is no option of 'distill'",)),
    ],
)
def test_what_a_file_says_wrong_is_refused(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    result = run("distill", str(tmp_path), str(tmp_path / "out"), "--config", str(file))
    assert_refused(result, *words)
    assert_refused(run("doctor", "--config", str(tmp_path / "none.toml")), "none.toml cannot be read")


def test_a_file_serves_commands_within_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[cache.list]\njson = 'listed.json'\n[engine]\n")
    monkeypatch.chdir(tmp_path)
    assert run("cache", "list", "--config", str(file)).exit_code == 0
    assert "items" in json.loads(Path("listed.json").read_bytes())
    file.write_text("[cache]\nlist = 3\n")
    assert_refused(run("cache", "list", "--config", str(file)), "'list' has to be a table", "[cache.list]")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("fgdd-fast di", {"distill"}),
        ("fgdd-fast models p", {"pull"}),
        ("fgdd-fast models pull imagenet", {"imagenet-efficientnet-lite0"}),
        ("fgdd-fast distill --foreground sal", {"saliency", "saliency-u2netp", "saliency-u2netp-192"}),
        ("fgdd-fast distill --rule q", {"quantile:0.3"}),
        ("fgdd-fast distill --preset p", {"paper"}),
        ("fgdd-fast teacher fit --backbone i", {"imagenet-efficientnet-lite0"}),
    ],
)
def test_a_shell_is_offered_commands_and_names(words: str, offered: set[str]) -> None:
    count = str(len(words.split()) - 1)
    environment = {"_FGDD_FAST_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
    result = CliRunner().invoke(main, [], prog_name="fgdd-fast", env=environment)
    found = {line.partition(",")[2] for line in result.output.splitlines()}
    assert offered <= found
    assert all(name.startswith(words.rsplit(maxsplit=1)[-1]) for name in found)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_names_the_program(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_FGDD_FAST_COMPLETE" in result.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=result.stdout, text=True, check=True, env=dict(os.environ))


def test_old_spellings_are_those_of_commands_that_exist() -> None:
    known = dict(commands())
    for name, spellings in renamed.RENAMED.items():
        found = [command for words, command in known.items() if words.split()[0] == name]
        options = {spelling for command in found for option in command.params for spelling in option.opts}
        assert set(spellings.values()) <= options


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), ("/tmp/x: No space left", "free some")),
        (OSError(errno.EMFILE, "Too many open files"), ("Error: Too many open files",)),
        (MemoryError(), ("memory is used up", "--threads")),
    ],
)
def test_what_the_system_refuses_where_nothing_foresaw_it_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: tuple[str, ...]
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr("fgdd_fast.cli.checks.cache.list_cached", refuse)
    assert_refused(run("cache", "list"), *words)
