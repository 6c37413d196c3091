"""Results to tables, plots and one self-contained page. Trains nothing."""

from .publish import publish
from .stored import load
from .summary import Summary

__all__ = ["Summary", "load", "publish"]
