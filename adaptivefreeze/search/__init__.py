"""The depth search: an Optuna study of how many blocks can be frozen."""

from .api import search_depth
from .result import DepthSearch, Outcome, ScoreEstimate
from .runner import search
from .space import SearchOptions

__all__ = ["DepthSearch", "Outcome", "ScoreEstimate", "SearchOptions", "search", "search_depth"]
