"""Cost of a depth search in full fine-tunings: the exhaustive search and --quick, with a breakdown of the time.

    python benchmarks/search_price.py [--blocks 12] [--hidden 768] [--limit 480] [--epochs 3] [--output FILE]

The model is a BERT of the given shape with random weights; the task is the embedded demo. Full fine-tuning runs
before, between and after the searches, and is evaluated after each epoch as the trials are. A figure is the
wall-clock time of the whole search (warm-up, training, evaluation, storage, test split) over the mean wall-clock time
of full fine-tuning. No baselines are run. The scores are meaningless with random weights; they only determine which
depths --quick tries.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import transformers
from machine import describe

from adaptivefreeze import BottomUp, Nothing
from adaptivefreeze.comparison import ProgressListener, RunResult, StudyFolder
from adaptivefreeze.comparison.records import starting_model
from adaptivefreeze.comparison.run import run_scenario, warm_up
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import Task, load_task
from adaptivefreeze.search import SearchOptions, search
from adaptivefreeze.search.objective import TaskObjective
from adaptivefreeze.search.space import budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--limit", type=int, default=480)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = make_task(folder / "model", options.blocks, options.hidden, options.limit)
        settings = StudySettings(epochs=options.epochs, batch_size=options.batch_size, cache=True)
        warm_up(task, settings)
        full, spent = [full_fine_tuning(task, settings)], {}
        for title, quick in (("every depth", False), ("--quick", True)):
            began = time.perf_counter()
            found = search(
                task,
                SearchOptions(quick=quick, baselines=()),
                settings=settings,
                output=folder / title,
                progress=Progress(),
            )
            spent[title] = (time.perf_counter() - began, len(found.outcomes))
            full.append(full_fine_tuning(task, settings))
        lines = [
            f"BERT of {options.blocks} blocks × {options.hidden}, {task.train_examples} training examples, "
            f"{len(task.validation)} validation, {options.epochs:g} epochs, one seed, batch {options.batch_size}. "
            f"{describe()}. Full fine-tuning: {statistics.mean(full):.1f} s ({min(full):.1f} to {max(full):.1f}).",
            "",
            "| search | trials | s | full fine-tunings | of these: training | evaluation | other |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for title, (seconds, trials) in spent.items():
            lines.append(row(title, trials, seconds, statistics.mean(full), folder / title))
        bench = TaskObjective(task, settings, folder / "none", SearchOptions(), ProgressListener())
        naive = bench.depth + 1
        uncached = StudySettings(epochs=options.epochs, batch_size=options.batch_size)
        bare = TaskObjective(task, uncached, folder / "none", SearchOptions(), ProgressListener())
        whole = sum(bare.cost(BottomUp(depth)) for depth in range(naive))
        lines += [
            "",
            f"Without freezing: {naive} full fine-tunings; without the cache, by the cost model: {whole:.1f}. "
            f"--quick starts no training that would raise its predicted cost above {budget(naive):.1f}.",
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# Cost of a depth search\n\n" + text)


class Progress(ProgressListener):
    """Prints one line per finished training."""

    def run_ended(self, run: object) -> None:
        if isinstance(run, RunResult):
            print(
                f"{run.scenario}: {run.train_seconds:.1f} s of training, {run.eval_seconds:.1f} s of evaluation",
                flush=True,
            )


def make_task(folder: Path, blocks: int, hidden: int, limit: int) -> Task:
    """Return the demo task with a randomly initialised BERT of this shape and the demo's tokenizer."""
    demo = load_task("demo", model="demo")
    config = transformers.BertConfig(
        vocab_size=len(demo.tokenizer),
        hidden_size=hidden,
        num_hidden_layers=blocks,
        num_attention_heads=max(1, hidden // 64),
        intermediate_size=4 * hidden,
        pad_token_id=demo.tokenizer.pad_token_id,
    )
    transformers.set_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    demo.tokenizer.save_pretrained(folder)
    return load_task("demo", model=str(folder), limit=limit)


def full_fine_tuning(task: Task, settings: StudySettings) -> float:
    """Return the wall-clock seconds of one full fine-tuning, from loading the model to the last evaluation."""
    _, record = starting_model(task)
    began = time.perf_counter()
    run_scenario(task, Nothing(), 0, settings, model=record, test=False)
    return time.perf_counter() - began


def row(title: str, trials: int, seconds: float, full: float, folder: Path) -> str:
    """Return one row of the table."""
    runs = [run for run in StudyFolder(folder).runs() if isinstance(run, RunResult)]
    training, evaluation = sum(run.train_seconds for run in runs), sum(run.eval_seconds for run in runs)
    shares = (seconds, training, evaluation, seconds - training - evaluation)
    total, *parts = (f"{value / full:.2f}" for value in shares)
    return f"| {title} | {trials} | {seconds:.1f} | **{total}** | {' | '.join(parts)} |"


if __name__ == "__main__":
    main()
