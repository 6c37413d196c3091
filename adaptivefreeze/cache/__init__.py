"""Skip what is frozen."""

from .prefix import PrefixCache
from .stats import CacheStats

__all__ = ["CacheStats", "PrefixCache"]
