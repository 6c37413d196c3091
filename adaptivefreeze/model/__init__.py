"""The units of a model, masks over them, and the mechanism that freezes them."""
