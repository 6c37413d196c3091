"""Data sets, tokenization, metrics and models, combined into tasks that are ready to train."""

from pathlib import Path

from .demo import DEMO, DemoSettings
from .load import load_task
from .task import Task
from .tokenization import Coverage

METRIC = Path(__file__).parent / "metric"
"""Path of the metric for `evaluate.load`: the scores of a task."""

__all__ = ["DEMO", "METRIC", "Coverage", "DemoSettings", "Task", "load_task"]
