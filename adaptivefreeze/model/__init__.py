"""What can be frozen, and freezing it."""
