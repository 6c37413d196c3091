"""The commands: each parses its options and calls the packages that do the work."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    BatchSize,
    Cache,
    Clock,
    Command,
    CommandGroup,
    Config,
    Dataset,
    Device,
    Epochs,
    EvalLimit,
    EvalSteps,
    Fields,
    Figures,
    Kind,
    LabelColumn,
    LearningRate,
    Limit,
    MaxLength,
    Model,
    Output,
    Pad,
    PerClass,
    Plugins,
    Revision,
    TestLimit,
    TextColumn,
    load_plugins,
)
from .quiet import silence_libraries

if TYPE_CHECKING:
    from ..report.progress import ProgressBar

app = typer.Typer(
    name="adaptivefreeze",
    cls=CommandGroup,
    help="Freeze blocks of a transformer during fine-tuning, and measure the effect on time and quality.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command(cls=Command)
def compare(
    ctx: typer.Context,
    model: Model = "demo",
    dataset: Dataset = "demo",
    task: Kind = None,
    scenarios: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC...",
            help="Policies, or sets: paper (default, but not of the demo), depths, static, adaptive, all.",
        ),
    ] = None,
    seeds: Annotated[
        list[str] | None, typer.Option(metavar="N...", help="Seeds of each scenario (0; demo: 0 1 2).")
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_length: MaxLength = None,
    pad_to_max_length: Pad = False,
    limit: Limit = None,
    per_class: PerClass = None,
    eval_limit: EvalLimit = None,
    test_limit: TestLimit = None,
    revision: Revision = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    eval_steps: EvalSteps = None,
    match: Annotated[
        str, typer.Option(help="steps: equal epochs; time: as many epochs as fit into the time of full fine-tuning.")
    ] = "steps",
    cache: Annotated[
        bool | None,
        typer.Option("--cache/--no-cache", help="Cache the outputs of frozen leading blocks; the demo does."),
    ] = None,
    set: Fields = None,
    device: Device = None,
    clock: Clock = "wall",
    plugins: Plugins = None,
    output: Output = None,
    figures: Figures = False,
    force: Annotated[bool, typer.Option("--force", help="Repeat runs that are stored already.")] = False,
    short_full: Annotated[
        bool,
        typer.Option("--short-full", help="Also run full fine-tuning with shorter schedules."),
    ] = False,
    config: Config = None,
) -> None:
    """Compare scenarios on one task: a table and an HTML page. Without options: the embedded demo."""
    from ..comparison import compare as run_all
    from ..report.load import load_runs
    from ..report.progress import ProgressBar
    from ..report.publish import publish
    from ..report.terminal import show_report
    from .request import Request, with_demo_comparison

    silence_libraries()
    request = Request.of(with_demo_comparison(ctx.params))
    with ProgressBar() as progress:
        comparison = run_all(
            request.load_task(),
            scenarios=request.scenarios,
            seeds=request.seeds,
            settings=request.settings,
            output=request.folder,
            force=force,
            short_full=short_full,
            progress=progress,
        )
    summaries = load_runs([comparison.folder])
    show_report(summaries, publish(summaries, comparison.folder, figures=figures))
    raise typer.Exit(1 if comparison.failures else 0)


@app.command(cls=Command)
def train(
    ctx: typer.Context,
    policy: Annotated[str, typer.Option(metavar="SPEC", help="The policy, such as bottom-up:6.")],
    model: Model = "demo",
    dataset: Dataset = "demo",
    task: Kind = None,
    seed: Annotated[int, typer.Option(help="Seed of the head, of dropout and of the order of the data.")] = 0,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_length: MaxLength = None,
    pad_to_max_length: Pad = False,
    limit: Limit = None,
    per_class: PerClass = None,
    eval_limit: EvalLimit = None,
    test_limit: TestLimit = None,
    revision: Revision = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    eval_steps: EvalSteps = None,
    cache: Cache = False,
    set: Fields = None,
    device: Device = None,
    clock: Clock = "wall",
    plugins: Plugins = None,
    output: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Write to a folder that is not empty.")] = False,
    config: Config = None,
) -> None:
    """Fine-tune under one policy, and save the model, the tokenizer and the result."""
    from ..comparison import train as run_one
    from ..policies import parse_policy
    from ..report.progress import ProgressBar
    from ..report.terminal import show_training
    from .request import Request

    silence_libraries()
    load_plugins(plugins)
    chosen = parse_policy(policy)
    request = Request.of({**ctx.params, "seeds": [str(seed)], "suffix": str(chosen)})
    with ProgressBar() as progress:
        run = run_one(
            request.load_task(),
            chosen,
            seed,
            settings=request.settings,
            output=request.folder,
            force=force,
            progress=progress,
        )
    show_training(run, request.folder)
    raise typer.Exit(0 if run.status == "done" else 1)


@app.command(cls=Command)
def search(
    ctx: typer.Context,
    model: Model = "demo",
    dataset: Dataset = "demo",
    task: Kind = None,
    depths: Annotated[
        list[str] | None, typer.Option(metavar="K...", help="Depths, or ranges such as 0-6; all by default.")
    ] = None,
    side: Annotated[str, typer.Option(help="End from which blocks are frozen: bottom or top.")] = "bottom",
    seeds: Annotated[list[str] | None, typer.Option(metavar="N...", help="Seeds (0); each trains every depth.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Cross-validate on N folds of the training split instead."),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="Validation metric: macro_f1, entity_f1, weighted_f1, accuracy, or loss, which is minimized."
        ),
    ] = "macro_f1",
    tolerance: Annotated[float, typer.Option(help="Accepted loss of k_fast in points below the best score.")] = 0.5,
    quick: Annotated[bool, typer.Option("--quick", help="Coarse grid of depths, then refine.")] = False,
    prune: Annotated[bool, typer.Option("--prune/--no-prune", help="Stop depths that are clearly worse.")] = True,
    trials: Annotated[
        int | None,
        typer.Option(help="Instead, sample N trials of depth, side, policy, learning rate."),
    ] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="With --trials: optimize score and time together.")] = False,
    space: Annotated[
        str, typer.Option(help="With --trials: policies, or rates for a learning rate per block by evolution.")
    ] = "policies",
    baselines: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC...", help="Scenarios to compare with (paper), or none."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL, journal:FILE or grpc://HOST:PORT; SQLite by default.")
    ] = None,
    study_name: Annotated[str | None, typer.Option(help="Name of the Optuna study.")] = None,
    workers: Annotated[int, typer.Option(help="Local processes; one per GPU if there are several.")] = 1,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_length: MaxLength = None,
    pad_to_max_length: Pad = False,
    limit: Limit = None,
    per_class: PerClass = None,
    eval_limit: EvalLimit = None,
    test_limit: TestLimit = None,
    revision: Revision = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    eval_steps: EvalSteps = None,
    cache: Cache = True,
    set: Fields = None,
    device: Device = None,
    clock: Clock = "wall",
    plugins: Plugins = None,
    output: Output = None,
    figures: Figures = False,
    config: Config = None,
) -> None:
    """Find k*, the depth with the best validation score, in an Optuna study. Without options: the embedded demo."""
    from ..report.load import summarize_search
    from ..report.progress import ProgressBar
    from ..report.publish import publish
    from ..report.terminal import show_report
    from ..search import search as find
    from .request import Request, search_options

    silence_libraries()
    request = Request.of({**ctx.params, "suffix": "search"})
    options = search_options({**ctx.params, "seeds": request.seeds})
    with ProgressBar(score=options.metric) as progress:
        found = find(
            request.load_task(),
            options,
            settings=request.settings,
            output=request.folder,
            progress=progress,
            load=request.load_task,
            worker_progress=partial(_worker_progress, options.metric),
        )
    summaries = (summarize_search(found),)
    show_report(summaries, publish(summaries, request.folder, figures=figures))
    raise typer.Exit(1 if found.failures else 0)


def _worker_progress(metric: str) -> ProgressBar:
    """Progress output of a further worker process, in which the libraries must be silenced again."""
    from ..report.progress import ProgressBar

    silence_libraries()
    return ProgressBar(score=metric, bar=False)


@app.command(cls=Command)
def inspect(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Model: a hub name, a folder, or demo.")],
    dataset: Annotated[str | None, typer.Option(help="Data set: tokenizer coverage, and predicted runs.")] = None,
    task: Kind = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    pad_to_max_length: Pad = False,
    limit: Limit = None,
    per_class: PerClass = None,
    eval_limit: EvalLimit = None,
    test_limit: TestLimit = None,
    revision: Revision = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    set: Fields = None,
    device: Device = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="With --dataset: train a few steps to predict whole runs.")
    ] = True,
    tower: Annotated[str | None, typer.Option(help="Tower of a model with several, such as encoder.")] = None,
    config: Config = None,
) -> None:
    """Show the units of a model and the predicted cost of each depth; with a data set, also that of whole runs."""
    from ..comparison import inspect_model, inspect_task
    from ..report.terminal import show_inspection
    from .request import Request

    silence_libraries()
    request = Request.of({**ctx.params, "dataset": dataset or ""})
    if dataset is None:
        found = inspect_model(model, tower=tower, batch_size=request.settings.batch_size, tokens=request.max_length)
    else:
        found = inspect_task(request.load_task(), request.settings, measure=measure)
    show_inspection(found)


@app.command(cls=Command)
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Output folders of compare or search.")],
    output: Annotated[Path | None, typer.Option(help="Folder for the report; DIR itself if only one is given.")] = None,
    figures: Figures = False,
    published: Annotated[
        Path | None, typer.Option(help="CSV file with published figures: columns scenario and macro_f1.")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Write tables and pages from stored runs and searches, without training; several studies side by side."""
    load_plugins(plugins)
    from ..report.publish import publish_folders
    from ..report.published import read_published
    from ..report.terminal import show_report

    scores = read_published(published) if published else None
    for summaries, written in publish_folders(folders, output, figures=figures, published=scores):
        show_report(summaries, written)
