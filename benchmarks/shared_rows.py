"""Several trainings on the same texts: with rows on disk, only the first one runs the model.

    python benchmarks/shared_rows.py --model PATH --dataset PATH [--limit 1000] [--epochs 3] [--output FILE]

A side network is trained for named entities at four learning rates, and then for a second task on the same sentences:
whether a sentence names a person. Each training runs with rows on disk and without. Seconds are processor seconds of
training, without evaluation. Set OMP_NUM_THREADS=1, so that they are those of one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe, keep_memory
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer

from adaptivefreeze import FreezeCallback, PrefixCache
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import load_task

RATES = (5e-5, 1e-4, 2e-4, 3e-4)


def persons(task: Any) -> Any:
    """The training sentences, labelled by whether they name a person."""
    person = {index for index, label in enumerate(task.labels) if label.endswith("-PER")}
    labels = [int(any(label in person for label in row)) for row in task.train["labels"]]
    return task.train.remove_columns("labels").add_column("labels", labels)


def train(task: Any, second: bool, rate: float, options: argparse.Namespace, disk: Path | None) -> tuple[float, int]:
    """Train once. Returns processor seconds, and the number of examples for which the model ran."""
    settings = StudySettings(epochs=options.epochs, learning_rate=rate, training_arguments={"eval_strategy": "no"})
    callback = FreezeCallback("side", cache=PrefixCache(disk=disk), quiet=True)
    model: Any = task.new_model(0)
    if second:
        model = AutoModelForSequenceClassification.from_pretrained(task.source.location, num_labels=2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=settings.arguments(folder, 0),
            train_dataset=persons(task) if second else task.train,
            data_collator=DataCollatorWithPadding(task.tokenizer) if second else task.collator(),
            processing_class=task.tokenizer,
            callbacks=[callback],
        )
        begin = time.process_time()
        trainer.train()
    assert callback.cache is not None
    if callback.cache.stats.disabled_reason is not None:
        raise RuntimeError(callback.cache.stats.disabled_reason)
    return time.process_time() - begin, callback.cache.stats.misses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    keep_memory(True)
    task = load_task(options.dataset, model=options.model, limit=options.limit)
    trainings = [*((f"entities, learning rate {rate:g}", False, rate) for rate in RATES), ("persons", True, RATES[1])]
    lines, totals, later = [], [0.0, 0.0], 0
    with tempfile.TemporaryDirectory() as rows:
        for name, second, rate in trainings:
            shared, ran = train(task, second, rate, options, Path(rows))
            alone, ran_alone = train(task, second, rate, options, None)
            totals = [totals[0] + shared, totals[1] + alone]
            later += ran if lines else 0
            lines.append(f"| {name} | {shared:.1f} | {ran} | {alone:.1f} | {ran_alone} |")
            print(lines[-1], flush=True)
        size = sum(path.stat().st_size for path in Path(rows).iterdir())
    text = "\n".join(
        [
            f"With rows on disk, {len(trainings)} trainings took {totals[0]:.0f} s instead of {totals[1]:.0f} s "
            f"({totals[1] / totals[0]:.1f} times as fast). After the first, the model ran for "
            f"{later or 'no'} examples.",
            "",
            f"`OMP_NUM_THREADS=1 python benchmarks/shared_rows.py --model PATH --dataset PATH --limit {options.limit} "
            f"--epochs {options.epochs:g}`",
            "",
            f"{Path(options.dataset).name}, {options.limit} sentences, {options.epochs:g} epochs, "
            f"{Path(options.model).name}; {size / 2**20:.0f} MiB of rows. {describe()}.",
            "",
            "| training | seconds with rows on disk | examples run | seconds without | examples run |",
            "|---|---:|---:|---:|---:|",
            *lines,
        ]
    )
    print(text)
    if options.output:
        options.output.write_text(f"# Several trainings on the same texts\n\n{text}\n")


if __name__ == "__main__":
    main()
