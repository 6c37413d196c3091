"""train: one policy on one task; the fine-tuned model, its tokenizer and the RunResult are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..model.discovery import find_blocks
from ..policies import Policy, parse_policy
from .compare import Interrupted, ProgressListener, check_policies, check_seeds
from .records import model_record
from .result import FailedRun, RunResult, write_json
from .run import attempt
from .settings import StudySettings

if TYPE_CHECKING:
    from ..data import Task


def train(
    task: Task,
    policy: Policy | str,
    seed: int = 0,
    *,
    settings: StudySettings | None = None,
    output: str | Path,
    force: bool = False,
    progress: ProgressListener | None = None,
) -> RunResult | FailedRun:
    """Fine-tune under `policy` and save into `output`: the model, the tokenizer and `result.json`.

    A run that fails is stored in `result.json` as failed, without a model. `force` allows an `output` that is not
    empty. Raises `RequestError` for a wrong request, with nothing written, and `Interrupted` on Ctrl-C.
    """
    settings, progress, policy = settings or StudySettings(), progress or ProgressListener(), parse_policy(policy)
    output = Path(output)
    check_seeds([seed])
    check_output(output, force)
    start = task.new_model(0)
    stack = find_blocks(start)
    model = model_record(task, start, stack)
    check_policies([policy], stack, settings)
    del start
    progress.study_begins(task, runs=1, stored=0)
    progress.run_begins(str(policy), seed)
    try:
        run = attempt(
            task,
            policy,
            seed,
            settings,
            model=model,
            listener=lambda done, total: progress.stepped(done, total, None),
            save_to=output,
            checkpoints=output / "checkpoints" if settings.keeps_checkpoints else None,
        )
    except KeyboardInterrupt as error:
        raise Interrupted(f"Interrupted: nothing was saved in {output}.") from error
    write_json(output / "result.json", run.to_json())
    progress.run_ended(run)
    return run


def check_output(output: Path, force: bool) -> None:
    """Raises `RequestError` unless `output` is a folder that may be written into."""
    if output.exists() and not output.is_dir():
        raise RequestError(f"{output} is a file, not a folder: give another --output.")
    if output.is_dir() and any(output.iterdir()) and not force:
        raise RequestError(f"{output} is not empty: give another --output, or --force to write into it.")
