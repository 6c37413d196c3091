"""Freezing in the Hugging Face Trainer and in plain PyTorch loops."""
