"""How deep may be frozen: an Optuna study of every depth, or of more, and what it says."""

from .api import search_depth
from .options import SearchOptions, parse_depths
from .result import DepthSearch, Outcome
from .runner import search
from .statistics import Certainty

__all__ = ["Certainty", "DepthSearch", "Outcome", "SearchOptions", "parse_depths", "search", "search_depth"]
