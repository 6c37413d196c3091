"""Measurement of a training run: time, memory, energy and environment."""
