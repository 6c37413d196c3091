"""English first, Kazakh second: what does freezing for the second task keep of the first?

    python experiments/transfer/transfer.py --model MODEL --english FOLDER --kazakh FOLDER [--seeds 0 1 2]
        [--depths 0 3 6 9 12] [--english-limit 1500] [--kazakh-limit 500] [--rows FILE] [--work FOLDER]
        [--clock processor]

MODEL is trained on English with full fine-tuning, then, with its head, on Kazakh with the embeddings and the first k
blocks frozen. Both are reduced to the classes that they share: person (PER), place (LOC) and organisation (ORG). The
rows are the English model before it saw Kazakh (its score there is zero-shot), after Kazakh at each depth, and MODEL
trained on Kazakh alone at each depth. Each has its scores on the Kazakh and on the English test split. Every finished
row is stored in --rows (rows.jsonl beside this file) and not repeated; with all rows stored, only the table is printed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from adaptivefreeze import BottomUp
from adaptivefreeze.comparison import StudySettings, run_scenario
from adaptivefreeze.comparison.records import starting_model
from adaptivefreeze.comparison.result import Metrics, RunResult
from adaptivefreeze.comparison.run import score_saved, warm_up
from adaptivefreeze.data import load_task

SHARED = {
    "PER": "PER", "PERSON": "PER",
    "LOC": "LOC", "LOCATION": "LOC", "GPE": "LOC",
    "ORG": "ORG", "ORGANISATION": "ORG",
}  # fmt: skip
"""Classes of both data sets, and what they are called here. All others become O."""

SPLITS = {"train": ("train",), "valid": ("valid", "validation", "dev"), "test": ("test",)}
SCORES = ("macro_f1", "entity_f1")
ZERO_SHOT, AFTER, ALONE = "English alone", "English, then Kazakh", "Kazakh alone"
Key = tuple[str, int, int]
"""What a row was trained on, its seed and its depth."""


def reduce_classes(source: Path, target: Path) -> Path:
    """Write the CoNLL files of `source` to `target` with the shared classes alone."""
    target.mkdir(parents=True, exist_ok=True)
    for split, names in SPLITS.items():
        file = next(path for name in names if (path := source / f"{name}.txt").is_file())
        lines = (_reduced(line) for line in file.read_text(encoding="utf-8").split("\n"))
        (target / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    return target


def _reduced(line: str) -> str:
    fields = line.split()
    if len(fields) < 2:
        return ""
    prefix, _, name = fields[-1].partition("-")
    return f"{fields[0]} {f'{prefix}-{SHARED[name]}' if name in SHARED else 'O'}"


class Rows:
    """Finished rows in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.rows: dict[Key, dict[str, Any]] = {}
        for row in map(json.loads, lines):
            self.rows[row["trained"], row["seed"], row["depth"]] = row

    def add(self, key: Key, kazakh: Metrics | None, english: Metrics, *, seconds: float) -> None:
        """Store a row."""
        trained, seed, depth = key
        row = {"trained": trained, "seed": seed, "depth": depth, "kazakh": _scores(kazakh), "english": _scores(english)}
        self.rows[key] = {**row, "seconds": seconds}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(self.rows[key]) + "\n")
        print(self.rows[key], flush=True)


def _scores(metrics: Metrics | None) -> dict[str, float]:
    return {name: getattr(metrics, name) for name in SCORES}


def wanted(seeds: Sequence[int], depths: Sequence[int]) -> Iterator[Key]:
    """Yield the rows of all seeds in the order in which they are made."""
    for seed in seeds:
        yield ZERO_SHOT, seed, 0
        for trained in (AFTER, ALONE):
            for depth in depths:
                yield trained, seed, depth


def run_all(rows: Rows, keys: Sequence[Key], options: argparse.Namespace) -> None:
    """Make the rows of `keys` that are missing."""
    english_data = reduce_classes(options.english, options.work / "english")
    kazakh_data = reduce_classes(options.kazakh, options.work / "kazakh")
    limits = {name: getattr(options, name) for name in ("eval_limit", "test_limit", "max_length")}
    settings = StudySettings(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        cache=True,
        clock=options.clock,
        training_arguments={"bf16": options.bf16},
    )
    english = load_task(str(english_data), model=options.model, limit=options.english_limit, **limits)

    def kazakh(model: str) -> Any:
        return load_task(str(kazakh_data), model=model, limit=options.kazakh_limit, **limits)

    if english.labels != kazakh(options.model).labels:
        raise SystemExit("The two data sets do not have the same shared classes, so the head cannot be kept.")
    warm_up(english, settings)

    def train(task: Any, depth: int, seed: int, folder: Path) -> RunResult:
        return run_scenario(task, BottomUp(depth), seed, settings, model=starting_model(task)[1], save_to=folder)

    for key in keys:
        if key in rows.rows:
            continue
        trained, seed, depth = key
        first = options.work / f"english-s{seed}"
        if trained != ALONE and not first.is_dir():
            part = first.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            train(english, 0, seed, part)
            part.rename(first)
        arguments = settings.arguments("unused", seed)
        if trained == ZERO_SHOT:
            zero_shot, before = (score_saved(first, task, arguments) for task in (kazakh(str(first)), english))
            rows.add(key, zero_shot, before, seconds=0.0)
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = train(kazakh(str(first) if trained == AFTER else options.model), depth, seed, Path(folder))
            rows.add(key, run.metrics, score_saved(Path(folder), english, arguments), seconds=run.train_seconds)


def table(rows: Mapping[Key, Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table, mean ± standard deviation over seeds in points."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for (trained, _, depth), row in rows.items():
        groups.setdefault((trained, depth), []).append(row)
    heads = ["trained on", "frozen blocks", "seeds", "train s"]
    heads += [f"{test} {name.replace('_f1', ' F1')}" for test in ("Kazakh", "English") for name in SCORES]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for (trained, depth), same in groups.items():
        cells = [trained, "–" if trained == ZERO_SHOT else str(depth), str(len(same))]
        cells.append("–" if trained == ZERO_SHOT else f"{fmean(row['seconds'] for row in same):.0f}")
        cells += [spread([row[test][name] for row in same]) for test in ("kazakh", "english") for name in SCORES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def spread(scores: Sequence[float]) -> str:
    return f"{100 * fmean(scores):.1f}" + (f" ± {100 * stdev(scores):.1f}" if len(scores) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--english", type=Path, required=True)
    parser.add_argument("--kazakh", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 3, 6, 9, 12])
    parser.add_argument("--english-limit", type=int, default=1500)
    parser.add_argument("--kazakh-limit", type=int, default=1000)
    parser.add_argument("--eval-limit", type=int, default=100, help="validation examples; the curve is not used")
    parser.add_argument("--test-limit", type=int, default=1000)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 mixed precision")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--rows", type=Path, default=Path(__file__).with_name("rows.jsonl"))
    parser.add_argument("--work", type=Path, default=Path("runs/transfer"))
    options = parser.parse_args(arguments)
    rows, keys = Rows(options.rows), list(wanted(options.seeds, options.depths))
    if any(key not in rows.rows for key in keys):
        run_all(rows, keys, options)
    print(table({key: rows.rows[key] for key in keys}), end="")


if __name__ == "__main__":
    main()
