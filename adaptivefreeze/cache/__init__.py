"""Skip what is frozen."""

from .prefix import CacheStats, PrefixCache

__all__ = ["CacheStats", "PrefixCache"]
