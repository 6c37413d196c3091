"""Train on one task after another: what is forgotten, and what is gained, by freezing from the second task on?

    python experiments/transfer/sequence.py --model MODEL --ner FOLDER FOLDER ... [OPTION ...]
    python experiments/transfer/sequence.py --model MODEL --halves FOLDER [OPTION ...]

`--ner` takes CoNLL folders in the order of training and reduces them to the classes that they share: person, place and
organisation. `--halves` takes texts with labels and makes two tasks of them: the texts up to the median number of
words, then the longer ones. In both the head goes on from task to task.

MODEL is trained on the first task with full fine-tuning. From there it goes on in several ways:

- with one of `--policies` for every later task; `bottom-up:0` is full fine-tuning in sequence, the control;
- `selective`: before each later task, every one of `--policies` trains on `--probe` examples of it, from the model as
  it is. The one with the best mean macro F1 over the validation splits of this task and of all earlier ones is taken.

MODEL is also trained on each later task alone, with full fine-tuning. After every task the model is scored on the test
splits of all tasks.

- Forgetting: the best score on a task before the last task, minus its score after the last, as a mean over the tasks
  but the last.
- Forward transfer: the score on a task right after it, minus that of MODEL trained on it alone, as a mean over the
  tasks but the first.

Every finished row is stored in --rows and not repeated, also with further --policies; with all rows stored, only the
tables are made. They are printed, and written beside the rows.

Sources: Sorrenti et al. 2023, "Selective Freezing for Efficient Continual Learning" (ICCV workshops, DOI
10.1109/ICCVW60793.2023.00381), from its abstract, since its text and code were not available: layers to freeze are
chosen for each task by fast adaptation, for plasticity on the new task and stability on earlier ones. The candidates,
the size of the probe and the mean as the criterion are this script's. Nothing is replayed in training. Measures of
forgetting and transfer: Chaudhry et al. 2018 (arXiv 1801.10112), Díaz-Rodríguez et al. 2018 (arXiv 1810.13166).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from task_data import halves, reduce_classes

from adaptivefreeze import parse_policy
from adaptivefreeze.comparison import StudySettings, run_scenario
from adaptivefreeze.comparison.records import starting_model
from adaptivefreeze.comparison.run import score_saved, warm_up
from adaptivefreeze.data import Task, load_task
from adaptivefreeze.data.models import find_model

FULL = "bottom-up:0"
SELECTIVE = "selective"
POLICIES = (FULL, "bottom-up:3", "bottom-up:6", "bottom-up:9", "bottom-up:12", "top-down:6")
SCORES = ("macro_f1", "entity_f1")
CHOSEN_BY = "macro_f1"
RESULT_DEPENDS_ON = (
    "model", "limits", "eval_limit", "test_limit", "max_length", "epochs", "learning_rate", "batch_size", "bf16",
    "clock",
)  # fmt: skip
Chain = tuple[tuple[str, str], ...]
"""The tasks that a model was trained on, in order, each with the spec of its policy."""


class Rows:
    """Trained models and choices in a file of JSON lines, the first of which holds the settings.

    Raises:
        SystemExit: The file holds rows of other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.models: dict[tuple[int, Chain], dict[str, Any]] = {}
        self.choices: dict[tuple[int, Chain, str], dict[str, Any]] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        if not lines:
            self._write({"settings": settings})
        for row in map(json.loads, lines):
            if "settings" not in row:
                self._take(row)
            elif row["settings"] != settings:
                other = [name for name in settings if row["settings"].get(name) != settings[name]]
                raise SystemExit(
                    f"{path} has rows of other settings ({', '.join(other)}): name another file by --rows."
                )

    def add(self, row: dict[str, Any]) -> None:
        """Store a row."""
        self._take(row)
        self._write(row)
        print(row, flush=True)

    def _take(self, row: dict[str, Any]) -> None:
        key = row["seed"], tuple((task, spec) for task, spec in row["trained"])
        if "chosen" in row:
            self.choices[*key, row["next"]] = row
        else:
            self.models[key] = row

    def _write(self, row: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


class Trainings:
    """Trains, scores and keeps the models of a sequence.

    Args:
        load: Returns the tasks by name, in order, for the model that everything starts from.
        rows: The finished rows.
        settings: How each model is trained.
        probe: The training examples of a probe.
        work: The folder for the models.
    """

    def __init__(
        self, load: Callable[[], dict[str, Task]], rows: Rows, settings: StudySettings, probe: int, work: Path
    ) -> None:
        self._load, self._rows, self._settings, self._probe, self._work = load, rows, settings, probe, work

    @cached_property
    def _tasks(self) -> dict[str, Task]:
        tasks = self._load()
        if len({task.labels for task in tasks.values()}) > 1:
            raise SystemExit("The tasks do not have the same classes, so the head cannot be kept.")
        warm_up(next(iter(tasks.values())), self._settings)
        return tasks

    def train(self, seed: int, chain: Chain) -> None:
        """Make the row of `chain` if it is missing, and those that it goes on from."""
        if (seed, chain) not in self._rows.models:
            self._model(seed, chain)

    def choose(self, seed: int, chain: Chain, task: str, policies: Sequence[str]) -> str:
        """Return the policy for `task`, which is the next task of a model trained on `chain`.

        A stored choice is taken, after probing those of `policies` that it has not seen.
        """
        row = self._rows.choices.get((seed, chain, task), {"probed": {}, "seconds": 0.0})
        probed = dict(row["probed"])
        if more := set(probed) - set(policies):
            raise SystemExit(f"The stored choice for {task} is also one of {', '.join(sorted(more))}: pass these too.")
        if set(policies) == set(probed):
            return str(row["chosen"])
        start = self._model(seed, chain)
        clock = time.process_time if self._settings.clock == "processor" else time.perf_counter
        began = clock()
        few = self._tasks[task].train
        short = replace(self._tasks[task], train=few.select(range(min(self._probe, len(few)))))
        seen = [name for name, _ in chain] + [task]
        for spec in policies:
            if spec in probed:
                continue
            with tempfile.TemporaryDirectory() as folder:
                self._run(short, spec, seed, start, Path(folder), replace(self._settings, epochs=1, cache=False))
                probed[spec] = {name: self._score(Path(folder), name, "validation", seed)[CHOSEN_BY] for name in seen}
        chosen = max(policies, key=lambda spec: fmean(probed[spec].values()))
        seconds = row["seconds"] + clock() - began
        self._rows.add(
            {"seed": seed, "trained": chain, "next": task, "probed": probed, "chosen": chosen, "seconds": seconds}
        )
        return chosen

    def _model(self, seed: int, chain: Chain) -> Path:
        """Return the folder of the model trained on `chain`, and train it if it is not there."""
        name = "+".join(re.sub(r"[^\w.]+", "-", f"{task}-{spec}") for task, spec in chain)
        folder = self._work / f"{name}-s{seed}"
        stored = (seed, chain) in self._rows.models
        if stored and folder.is_dir():
            return folder
        part = folder.with_name(f"{folder.name}.part")
        for old in (folder, part):  # without a row, of other settings or not finished
            shutil.rmtree(old, ignore_errors=True)
        start = self._model(seed, chain[:-1]) if len(chain) > 1 else None
        task, spec = chain[-1]
        seconds = self._run(self._tasks[task], spec, seed, start, part, self._settings)
        if not stored:
            scores = {name: self._score(part, name, "test", seed) for name in self._tasks}
            self._rows.add({"seed": seed, "trained": chain, "scores": scores, "seconds": seconds})
        part.rename(folder)
        return folder

    def _run(
        self, task: Task, spec: str, seed: int, start: Path | None, target: Path, settings: StudySettings
    ) -> float:
        """Train one model on `task` and return the training time in seconds."""
        if start is not None:
            task = replace(task, source=find_model(str(start), task.kind))
        record = starting_model(task)[1]
        run = run_scenario(task, parse_policy(spec), seed, settings, model=record, save_to=target, test=False)
        return run.train_seconds

    def _score(self, folder: Path, name: str, split: str, seed: int) -> dict[str, float]:
        task = self._tasks[name]
        metrics = score_saved(
            folder, replace(task, test=getattr(task, split)), self._settings.arguments("unused", seed)
        )
        return {score: value for score in SCORES if (value := getattr(metrics, score)) is not None}


def fixed(tasks: Sequence[str], spec: str) -> Chain:
    """The chain of a sequence with one policy from the second task on."""
    return ((tasks[0], FULL), *((task, spec) for task in tasks[1:]))


def selected(rows: Rows, tasks: Sequence[str], seed: int) -> Chain:
    """The chain of the stored choices."""
    chain: Chain = ((tasks[0], FULL),)
    for task in tasks[1:]:
        chain = (*chain, (task, rows.choices[seed, chain, task]["chosen"]))
    return chain


def run_all(trainings: Trainings, tasks: Sequence[str], seeds: Sequence[int], policies: Sequence[str]) -> None:
    """Make all rows that are missing, one seed after the other."""
    for seed in seeds:
        for task in tasks[1:]:
            trainings.train(seed, ((task, FULL),))
        chain: Chain = ((tasks[0], FULL),)
        for task in tasks[1:]:
            chain = (*chain, (task, trainings.choose(seed, chain, task, policies)))
            trainings.train(seed, chain)
        for spec in policies:
            trainings.train(seed, fixed(tasks, spec))


def measures(rows: Rows, tasks: Sequence[str], seed: int, chain: Chain, score: str) -> dict[str, Any]:
    """Return the matrix of scores, forgetting, forward transfer and the time of a sequence.

    Args:
        rows: The stored rows.
        tasks: The names of the tasks, in order.
        seed: The seed of the sequence.
        chain: The sequence.
        score: The score, as named in the rows.

    Returns:
        `matrix[i][j]`, the score on task j after task i; `forgetting` and `transfer` as differences of scores; `train`,
        the training time of all tasks but the first in seconds.
    """
    after = [rows.models[seed, chain[: i + 1]] for i in range(len(tasks))]
    matrix = [[row["scores"][task][score] for task in tasks] for row in after]
    alone = [rows.models[seed, ((task, FULL),)]["scores"][task][score] for task in tasks]
    last = len(tasks) - 1
    return {
        "matrix": matrix,
        "forgetting": fmean(max(matrix[i][j] for i in range(j, last)) - matrix[last][j] for j in range(last)),
        "transfer": fmean(matrix[j][j] - alone[j] for j in range(1, last + 1)),
        "train": sum(row["seconds"] for row in after[1:]),
    }


def table(rows: Rows, tasks: Sequence[str], seeds: Sequence[int], policies: Sequence[str], score: str) -> str:
    """Return the measures as Markdown, in points, as mean ± standard deviation over seeds, with a sentence first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for spec in policies:
        found[spec] = [measures(rows, tasks, seed, fixed(tasks, spec), score) for seed in seeds]
    chains = {seed: selected(rows, tasks, seed) for seed in seeds}
    found[SELECTIVE] = [measures(rows, tasks, seed, chain, score) for seed, chain in chains.items()]
    choice = fmean(sum(_choice_seconds(rows, chain, seed)) for seed, chain in chains.items())
    word = score.replace("_f1", " F1")
    heads = ["from the second task on", "seeds"]
    heads += [f"{of} after {after}" for after in tasks for of in tasks]
    heads += ["forgetting", "forward transfer", "train s", "choice s"]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for name, same in found.items():
        cells = [f"`{name}`", str(len(same))]
        cells += [spread([m["matrix"][i][j] for m in same]) for i in range(len(tasks)) for j in range(len(tasks))]
        cells += [spread([m[of] for m in same]) for of in ("forgetting", "transfer")]
        cells += [f"{fmean(m['train'] for m in same):.0f}", f"{choice:.0f}" if name == SELECTIVE else "0"]
        lines.append(f"| {' | '.join(cells)} |")
    parts = [
        f"`{name}` forgets {spread([m['forgetting'] for m in found[name]])} points of {word} and transfers "
        f"{spread([m['transfer'] for m in found[name]])}"
        for name in (SELECTIVE, FULL)
    ]
    chose = "; ".join(f"seed {seed}: {', '.join(spec for _, spec in chain[1:])}" for seed, chain in chains.items())
    return f"{parts[0]}; {parts[1]}. Chosen, {chose}.\n\n" + "\n".join(lines) + "\n"


def spread(scores: Sequence[float]) -> str:
    return f"{100 * fmean(scores):.1f}" + (f" ± {100 * stdev(scores):.1f}" if len(scores) > 1 else "")


def _choice_seconds(rows: Rows, chain: Chain, seed: int) -> Iterator[float]:
    for i in range(1, len(chain)):
        yield rows.choices[seed, chain[:i], chain[i][0]]["seconds"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--ner", type=Path, nargs="+")
    kind.add_argument("--halves", type=Path)
    parser.add_argument("--limits", type=int, nargs="+", help="training examples of each task; 1,500 by default")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--probe", type=int, default=160, help="training examples of a probe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--eval-limit", type=int, default=100, help="validation examples, which probes are scored on")
    parser.add_argument("--test-limit", type=int, default=1000)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 mixed precision")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--rows", type=Path, help="by default TASKS.jsonl beside this file")
    parser.add_argument("--work", type=Path, default=Path("runs/sequence"))
    options = parser.parse_args(arguments)
    if options.ner and len({folder.name for folder in options.ner}) < max(2, len(options.ner)):
        parser.error("--ner needs two or more folders with different names")
    if FULL not in options.policies:
        parser.error(f"--policies needs {FULL}, the control")
    if any(not parse_policy(spec).is_static for spec in options.policies):
        parser.error("--policies takes policies that freeze the same units during the whole run")
    names = [folder.name for folder in options.ner] if options.ner else ["short", "long"]
    options.limits = options.limits or [1500] * len(names)
    if len(options.limits) != len(names):
        parser.error(f"--limits needs a number for each of {', '.join(names)}")
    path = options.rows or Path(__file__).with_name(
        f"{'_'.join([options.halves.name] if options.halves else names)}.jsonl"
    )
    values = {name: getattr(options, name) for name in RESULT_DEPENDS_ON}
    rows = Rows(path, {**values, "model": Path(options.model).name, "tasks": names, "probe": options.probe})

    work = options.work / path.stem

    def load() -> dict[str, Task]:
        if options.ner:
            folders = {folder.name: reduce_classes(folder, work / "data" / folder.name) for folder in options.ner}
        else:
            folders = halves(options.halves, work / "data")
        limits = {name: getattr(options, name) for name in ("eval_limit", "test_limit", "max_length")}
        return {
            name: load_task(str(folders[name]), model=options.model, limit=limit, **limits)
            for name, limit in zip(names, options.limits, strict=True)
        }

    settings = StudySettings(
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=options.batch_size,
        cache=True,
        clock=options.clock,
        training_arguments={"bf16": options.bf16},
    )
    run_all(Trainings(load, rows, settings, options.probe, work), names, options.seeds, options.policies)
    scores = next(iter(rows.models.values()))["scores"][names[0]]
    text = "\n".join(table(rows, names, options.seeds, options.policies, score) for score in SCORES if score in scores)
    path.with_name(f"{path.stem}_table.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
