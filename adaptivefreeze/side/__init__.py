"""Side networks: train beside a model that is frozen and cached whole; and delta checkpoints."""

from .attach import add_side_network, find_side_network, remove_side_network, tap_boundaries
from .delta import load_delta, save_delta
from .network import SideConfig, SideNetwork

__all__ = [
    "SideConfig",
    "SideNetwork",
    "add_side_network",
    "find_side_network",
    "load_delta",
    "remove_side_network",
    "save_delta",
    "tap_boundaries",
]
