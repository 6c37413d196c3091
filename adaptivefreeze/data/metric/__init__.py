"""The metric for `evaluate.load`, and its functions for use without `evaluate`."""
