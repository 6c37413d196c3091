"""Silencing of the libraries' own output, so that a command prints only its own."""

from __future__ import annotations

import logging
import warnings
from typing import Any


def silence_libraries() -> None:
    """Turn off the progress bars, hints and warnings of the libraries; their errors still show."""
    import datasets
    import transformers

    hf_logging: Any = transformers.logging  # its functions are not annotated
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    for name in ("torch", "accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # scikit-learn warns about every class that is not predicted yet, which is normal in the first epochs.
    warnings.filterwarnings("ignore", module=r"(sklearn|seqeval|torch|transformers|accelerate)\b")
