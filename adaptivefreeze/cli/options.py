"""What every command shares: answers in one sentence, options that take several values, and the options themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import RequestError, StudyFailed


class Answers(TyperGroup):
    """Ends in one sentence: a wrong request with status 2, a study without a result with 1, Ctrl-C with 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RequestError as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error
        except StudyFailed as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "Interrupted.", err=True)
            raise typer.Exit(130) from error


class Command(TyperCommand):
    """A command whose list options take several values at once, as in `--seeds 0 1 2`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        lists = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        return super().parse_args(ctx, repeat_names(args, lists))


def repeat_names(words: Sequence[str], lists: set[str]) -> list[str]:
    """`words` with the name of a list option before each of its values, which end where the next option begins.

    >>> repeat_names(["--seeds", "0", "1", "--force"], {"--seeds"})
    ['--seeds', '0', '--seeds', '1', '--force']
    """
    repeated: list[str] = []
    current, named = "", False  # the list option that values belong to, and whether its name stands there already
    for position, word in enumerate(words):
        if word == "--":
            return [*repeated, *words[position:]]
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            current, named = (name if name in lists else ""), not equals
        elif current:
            repeated += [] if named else [current]
            named = False
        repeated.append(word)
    return repeated


def _configure(ctx: typer.Context, path: Path | None) -> Path | None:
    """Take from the file what the command line does not say."""
    if path is not None:
        from .config import read_config

        lists = {param.name for param in ctx.command.params if getattr(param, "multiple", False)}
        known = {param.name for param in ctx.command.params if param.name not in (None, "config", "help")}
        options = read_config(path, known)
        ctx.default_map = {k: [v] if k in lists and not isinstance(v, list) else v for k, v in options.items()}
    return path


def load_plugins(modules: Sequence[str] | None) -> None:
    """Import the modules given with `--plugins`; those in the current folder can be imported too.

    Raises:
        RequestError: When a module cannot be imported.
    """
    if not modules:
        return
    from ..policies import load_plugins as import_modules

    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    import_modules(modules)


# The options that mean the same everywhere. A command declares those it takes; Request picks them up by name.
Model = Annotated[str, typer.Option(help="A hub name, a folder, or demo.")]
Dataset = Annotated[str, typer.Option(help="A hub name, a folder, or demo.")]
Kind = Annotated[str | None, typer.Option(help="ner or classification; guessed from the data set where it can be.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the training examples (3).")]
BatchSize = Annotated[int | None, typer.Option(help="Examples a step (16).")]
LearningRate = Annotated[float | None, typer.Option(help="The highest learning rate (5e-5).")]
MaxLength = Annotated[int | None, typer.Option(help="Longest example in pieces (128); the rest is cut and counted.")]
Pad = Annotated[bool, typer.Option("--pad-to-max-length", help="Pad every example to --max-length.")]
Limit = Annotated[int | None, typer.Option(help="Use the first N training examples.")]
Revision = Annotated[str | None, typer.Option(help="Revision of a data set on the hub.")]
TextColumn = Annotated[str | None, typer.Option(help="Column of the words or the text; found where it can be.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the tags or the label; found where it can be.")]
EvalSteps = Annotated[int | None, typer.Option(help="Evaluate validation every N steps, besides after each epoch.")]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="Skip the frozen prefix for examples seen before.")]
Fields = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE...", help="Fields of TrainingArguments.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default the best there is.")]
Output = Annotated[Path | None, typer.Option(help="Folder for the results; by default one below ./runs.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option(metavar="MODULE...", help="Python modules that register policies; may be in the current folder."),
]
Config = Annotated[
    Path | None,
    typer.Option(callback=_configure, is_eager=True, help="TOML file of these options; the command line goes first."),
]
