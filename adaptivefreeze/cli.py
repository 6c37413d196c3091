"""The command line: words to calls. What the calls do lies in `studies` and `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .errors import RequestError


class _Answers(TyperGroup):
    """Ends a wrong request in one sentence and status 2, and Ctrl-C in one sentence and status 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RequestError as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "Interrupted.", err=True)
            raise typer.Exit(130) from error


class _Command(TyperCommand):
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
        from .studies.config import read_config

        lists = {param.name for param in ctx.command.params if getattr(param, "multiple", False)}
        known = {param.name for param in ctx.command.params if param.name not in (None, "config", "help")}
        options = read_config(path, known)
        ctx.default_map = {k: [v] if k in lists and not isinstance(v, list) else v for k, v in options.items()}
    return path


app = typer.Typer(
    name="adaptivefreeze",
    cls=_Answers,
    help="Freeze the blocks of a transformer that have stopped learning, and see what each choice costs and gives.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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
Config = Annotated[
    Path | None,
    typer.Option(callback=_configure, is_eager=True, help="TOML file of these options; the command line goes first."),
]


@app.command(cls=_Command)
def compare(
    ctx: typer.Context,
    model: Model = "demo",
    dataset: Dataset = "demo",
    task: Kind = None,
    scenarios: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC...", help="Policies, or sets: paper (by default) depths static adaptive all."),
    ] = None,
    seeds: Annotated[
        list[str] | None, typer.Option(metavar="N...", help="Seeds (0); each runs every scenario.")
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_length: MaxLength = None,
    pad_to_max_length: Pad = False,
    limit: Limit = None,
    revision: Revision = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    eval_steps: EvalSteps = None,
    match: Annotated[
        str, typer.Option(help="steps: as many epochs for each; time: as many as full fine-tuning's seconds pay for.")
    ] = "steps",
    cache: Cache = False,
    set: Fields = None,
    device: Device = None,
    output: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Run again what is stored already.")] = False,
    config: Config = None,
) -> None:
    """Compare scenarios on one task: a table, plots, a page. Without any option: the embedded demo."""
    from .report.progress import ProgressBar
    from .report.publish import publish
    from .report.stored import load
    from .report.terminal import quieten_libraries, show_study
    from .studies import Request
    from .studies import compare as run_all

    quieten_libraries()
    request = Request.of(ctx.params)
    with ProgressBar() as watch:
        comparison = run_all(
            request.load_task(),
            scenarios=request.scenarios,
            seeds=request.seeds,
            settings=request.settings,
            output=request.folder,
            force=force,
            watch=watch,
        )
    summary = load([comparison.folder])
    show_study(summary, publish(summary, comparison.folder))
    raise typer.Exit(1 if comparison.failures else 0)


@app.command(cls=_Command)
def train(
    ctx: typer.Context,
    policy: Annotated[str, typer.Option(metavar="SPEC", help="What is frozen when, such as bottom-up:6.")],
    model: Model = "demo",
    dataset: Dataset = "demo",
    task: Kind = None,
    seed: Annotated[int, typer.Option(help="Decides head, dropout and data order.")] = 0,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_length: MaxLength = None,
    pad_to_max_length: Pad = False,
    limit: Limit = None,
    revision: Revision = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    eval_steps: EvalSteps = None,
    cache: Cache = False,
    set: Fields = None,
    device: Device = None,
    output: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    config: Config = None,
) -> None:
    """Fine-tune under one policy; saves model, tokenizer and result."""
    from .report.progress import ProgressBar
    from .report.terminal import quieten_libraries, show_training
    from .studies import Request
    from .studies import train as run_one

    quieten_libraries()
    request = Request.of({**ctx.params, "scenarios": [policy], "seeds": [str(seed)]})
    with ProgressBar() as watch:
        run = run_one(
            request.load_task(),
            policy,
            seed,
            settings=request.settings,
            output=request.folder,
            force=force,
            watch=watch,
        )
    show_training(run, request.folder)
    raise typer.Exit(0 if run.status == "done" else 1)


@app.command(cls=_Command)
def inspect(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A hub name, a folder, or demo.")],
    dataset: Annotated[str | None, typer.Option(help="Show how the tokenizer copes with this data set.")] = None,
    task: Kind = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    pad_to_max_length: Pad = False,
    limit: Limit = None,
    revision: Revision = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    tower: Annotated[str | None, typer.Option(help="Which tower, of a model with several.")] = None,
    config: Config = None,
) -> None:
    """Show a model's units, their parameters and the predicted cost of each depth."""
    from .report.terminal import quieten_libraries, show_inspection
    from .studies import Request, inspect_model, inspect_task

    quieten_libraries()
    request = Request.of({**ctx.params, "dataset": dataset or ""})
    if dataset is None:
        found = inspect_model(model, tower=tower, batch_size=request.settings.batch_size, tokens=request.max_length)
    else:
        found = inspect_task(request.load_task(), request.settings)
    show_inspection(found)


@app.command(cls=_Command)
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that compare has written.")],
    output: Annotated[Path | None, typer.Option(help="Folder for the report; DIR itself if there is one.")] = None,
) -> None:
    """Make tables, plots and page again from stored runs, training nothing."""
    from .report.publish import choose_folder, publish
    from .report.stored import load
    from .report.terminal import show_study

    summary = load(folders)
    show_study(summary, publish(summary, choose_folder(folders, output)))


def main() -> None:
    """The `adaptivefreeze` command."""
    app()
