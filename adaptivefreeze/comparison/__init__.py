"""Comparisons of many runs: scenarios, settings, stored results, and the functions that run them."""

from .compare import Comparison, Interrupted, ProgressListener, compare
from .folder import StudyFolder
from .inspection import Inspection, inspect_model, inspect_task
from .preflight import Forecast, preflight
from .result import FailedRun, RunResult, read_run
from .run import run_scenario
from .scenarios import expand
from .settings import StudySettings
from .train import train

__all__ = [
    "Comparison",
    "FailedRun",
    "Forecast",
    "Inspection",
    "Interrupted",
    "ProgressListener",
    "RunResult",
    "StudyFolder",
    "StudySettings",
    "compare",
    "expand",
    "inspect_model",
    "inspect_task",
    "preflight",
    "read_run",
    "run_scenario",
    "train",
]
