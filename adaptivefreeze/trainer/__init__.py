"""Freezing for the Hugging Face Trainer, and for a loop of one's own."""
