"""How deep may be frozen: an Optuna study of every depth, or of more, and what it says."""

from .answer import DepthSearch, Outcome
from .conduct import search
from .options import SearchOptions, parse_depths
from .statistics import Certainty
from .worker import SearchFailed

__all__ = ["Certainty", "DepthSearch", "Outcome", "SearchFailed", "SearchOptions", "parse_depths", "search"]
