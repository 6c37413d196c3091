"""The commands and options that the pages name exist."""

import re
import shlex

import pytest
import typer
from docs.pages import GUIDES, ROOT, blocks, name_of

from adaptivefreeze.cli.main import app

COMMANDS = {
    name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for name, command in typer.main.get_command(app).commands.items()
}
OPTIONS = {"--help", *(option for options in COMMANDS.values() for option in options)}
OTHER_TOOLS = {"--smoke", "--nproc_per_node"}
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
PAGES = [*GUIDES, ROOT / "CONTRIBUTING.md"]


def lines(page):
    """The shell lines of a page, continuation lines joined, comments removed."""
    for block in blocks(page):
        if block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_shell_blocks(page):
    for words in lines(page):
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        if words[0] == "adaptivefreeze":
            assert words[1] in COMMANDS, words
            assert options <= COMMANDS[words[1]], words
        elif words[0] == "make":
            assert set(words[1:]) <= set(TARGETS), words
        elif words[0] == "python" and words[1] != "-m":
            script = (ROOT / words[1]).read_text()
            assert all(f'"{option}"' in script for option in options), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_inline_commands_and_options(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    code = re.findall(r"`([^`]+)`", text)
    named = {option for snippet in code for option in re.findall(r"(?<!\S)(--[\w-]+)", snippet)}
    assert named <= OPTIONS | OTHER_TOOLS
    called = {match[1] for snippet in code if (match := re.match(r"adaptivefreeze (\w+)", snippet))}
    assert called <= set(COMMANDS)


def test_every_command_is_documented():
    text = (ROOT / "docs" / "comparing.md").read_text()
    assert all(f"`adaptivefreeze {name}`" in text for name in COMMANDS)
