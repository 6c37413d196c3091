"""Shared by all commands: errors as one sentence, options with several values, and the common options."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import RequestError, StudyFailed


class CommandGroup(TyperGroup):
    """Reports an error in one sentence and by the exit status.

    The status is 2 for an invalid request, 1 for a study that failed or an error of the file system, such as a full
    disk, and 130 for Ctrl-C.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RequestError as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error
        except StudyFailed as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # handled by the main function of the command line
                raise
            place = f" ({error.filename})" if error.filename else ""
            typer.echo(f"Error: {error.strerror or error}{place}.", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "Interrupted.", err=True)
            raise typer.Exit(130) from error


class Command(TyperCommand):
    """A command whose list options accept several values at once, as in `--seeds 0 1 2`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        lists = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        return super().parse_args(ctx, repeat_names(args, lists))


def repeat_names(words: Sequence[str], lists: set[str]) -> list[str]:
    """Repeat the name of a list option before each of its values, as click requires.

    Args:
        words: The arguments of a command.
        lists: The names of the list options; their values end at the next option.

    Example:
        >>> repeat_names(["--seeds", "0", "1", "--force"], {"--seeds"})
        ['--seeds', '0', '--seeds', '1', '--force']
    """
    repeated: list[str] = []
    current, named = "", False  # the list option of the next value, and whether its name precedes it already
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
    """Use the options of the file as defaults of the command line."""
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


Figures = Annotated[bool, typer.Option("--figures", help="Also write every figure as SVG and PNG.")]

# Options with the same meaning in all commands. A command declares those that it accepts; Request reads them by name.
Model = Annotated[str, typer.Option(help="Model: a hub name, a folder, or demo.")]
Dataset = Annotated[str, typer.Option(help="Data set: a hub name, a folder, or demo.")]
Kind = Annotated[str | None, typer.Option(help="ner or classification; inferred from the data set by default.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the training examples (3).")]
BatchSize = Annotated[int | None, typer.Option(help="Examples per step (16).")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate (5e-5).")]
MaxLength = Annotated[int | None, typer.Option(help="Length to truncate examples to, in tokens (128).")]
Pad = Annotated[bool, typer.Option("--pad-to-max-length", help="Pad every example to --max-length.")]
Limit = Annotated[int | None, typer.Option(help="Use the first N training examples.")]
PerClass = Annotated[int | None, typer.Option(help="Instead, use the first N training examples of each class.")]
EvalLimit = Annotated[int | None, typer.Option(help="Draw N validation and N test examples with a fixed seed.")]
TestLimit = Annotated[int | None, typer.Option(help="Draw N test examples instead.")]
Revision = Annotated[str | None, typer.Option(help="Revision of a data set on the hub.")]
TextColumn = Annotated[str | None, typer.Option(help="Column of the words or texts; found by its type by default.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the tags or labels; found by its type by default.")]
EvalSteps = Annotated[int | None, typer.Option(help="Also evaluate on the validation split every N steps.")]
Cache = Annotated[
    bool,
    typer.Option("--cache/--no-cache", help="Cache the outputs of frozen leading blocks."),
]
Fields = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE...", help="Fields of TrainingArguments.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the best available device by default.")]
Clock = Annotated[
    str, typer.Option(help="wall, or processor: processor time of the training steps, for a busy machine.")
]
Output = Annotated[Path | None, typer.Option(help="Folder for the results; a folder in ./runs by default.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option(metavar="MODULE...", help="Python modules that register policies; may be in the current folder."),
]
Config = Annotated[
    Path | None,
    typer.Option(callback=_configure, is_eager=True, help="TOML file of options; the command line takes precedence."),
]
