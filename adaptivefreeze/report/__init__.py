"""Tables, figures and HTML pages from stored runs and searches."""

from .load import load_runs, load_search, summarize_search
from .publish import publish
from .summary import Summary, summarize_runs

__all__ = ["Summary", "load_runs", "load_search", "publish", "summarize_runs", "summarize_search"]
