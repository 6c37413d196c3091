"""`train`: fine-tune one model under one policy, and save it with its tokenizer and result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..policies import Policy
from .compare import Interrupted, ProgressListener, check_policies, check_seeds
from .interrupt import reliable_interrupts
from .records import starting_model
from .result import FailedRun, RunResult, write_json
from .run import run_or_record_failure
from .settings import StudySettings

if TYPE_CHECKING:
    from ..data import Task


def train(
    task: Task,
    policy: Policy,
    seed: int = 0,
    *,
    settings: StudySettings | None = None,
    output: str | Path,
    force: bool = False,
    progress: ProgressListener | None = None,
) -> RunResult | FailedRun:
    """Fine-tune under one policy, and save the model, the tokenizer and `result.json`.

    A run that fails is stored in `result.json` with the reason, without a model.

    Args:
        task: The task.
        policy: What is frozen when.
        seed: The seed of the head, of dropout and of the order of the data.
        settings: How the model is trained.
        output: The folder to save into.
        force: Allow a folder that is not empty.
        progress: Receives the progress.

    Returns:
        The result of the run.

    Raises:
        RequestError: The request is invalid; nothing is written.
        Interrupted: On Ctrl-C.
    """
    settings, progress = settings or StudySettings(), progress or ProgressListener()
    output = Path(output)
    check_seeds([seed])
    check_output(output, force)
    stack, model = starting_model(task)
    check_policies([policy], stack, settings, task.kind)
    progress.study_begins(task, runs=1, stored=0)
    progress.run_begins(str(policy), seed)
    try:
        with reliable_interrupts():
            run = run_or_record_failure(
                task,
                policy,
                seed,
                settings,
                model=model,
                on_step=lambda done, total: progress.stepped(done, total, None),
                save_to=output,
                checkpoints=output / "checkpoints" if settings.keeps_checkpoints else None,
            )
    except KeyboardInterrupt as error:
        raise Interrupted(f"Interrupted: nothing was saved in {output}.") from error
    write_json(output / "result.json", run.to_json())
    progress.run_ended(run)
    return run


def check_output(output: Path, force: bool) -> None:
    """Raise `RequestError` unless `output` is a folder that may be written to."""
    if output.exists() and not output.is_dir():
        raise RequestError(f"{output} is a file, not a folder: choose another --output.")
    if output.is_dir() and any(output.iterdir()) and not force:
        raise RequestError(f"{output} is not empty: choose another --output, or add --force to write to it.")
