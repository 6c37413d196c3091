"""Tasks: data sets, tokenising, metrics and models, ready to train."""

from pathlib import Path

from .demo import DEMO, DemoSettings
from .load import load_task
from .task import Task
from .tokenization import Coverage

METRIC = Path(__file__).parent / "metric"
"""The folder that ``evaluate.load`` takes: the scores of a task, for anybody."""

__all__ = ["DEMO", "METRIC", "Coverage", "DemoSettings", "Task", "load_task"]
