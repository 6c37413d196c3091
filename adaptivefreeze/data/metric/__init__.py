"""The metric: ``evaluate.load`` takes this folder; ``scores`` computes it without ``evaluate``."""
