"""Quiet: the libraries' own talk, kept out of what a command says."""

from __future__ import annotations

import logging
import warnings
from typing import Any


def quieten_libraries() -> None:
    """Keep the libraries' own bars, hints and warnings out of a command's output; errors still show."""
    import datasets
    import transformers

    talk: Any = transformers.logging  # its functions are not annotated
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    for name in ("torch", "accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Undefined precision of a class that is never predicted is no news in the first epochs.
    warnings.filterwarnings("ignore", module=r"(sklearn|seqeval|torch|transformers|accelerate)\b")
