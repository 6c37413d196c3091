"""The depth search: an Optuna study of how many blocks can be frozen."""

from .api import search_depth
from .options import SearchOptions, parse_depths
from .result import DepthSearch, Outcome
from .runner import search
from .statistics import ScoreEstimate

__all__ = ["DepthSearch", "Outcome", "ScoreEstimate", "SearchOptions", "parse_depths", "search", "search_depth"]
