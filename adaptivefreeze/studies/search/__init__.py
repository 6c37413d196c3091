"""How deep may be frozen: an Optuna study of every depth, or of more, and what it says."""

from .answer import DepthSearch, Outcome
from .conduct import search
from .options import SearchOptions, parse_depths
from .own import search_depth
from .statistics import Certainty

__all__ = ["Certainty", "DepthSearch", "Outcome", "SearchOptions", "parse_depths", "search", "search_depth"]
