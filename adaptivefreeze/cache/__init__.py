"""The prefix cache: skips the frozen prefix of a model for examples seen before."""

from .prefix import PrefixCache
from .session import CacheSession
from .stats import CacheStats
from .transfer import move_batch

__all__ = ["CacheSession", "CacheStats", "PrefixCache", "move_batch"]
