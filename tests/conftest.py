"""What all tests share: no network, one thread, and a tiny task to train on."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import gc
from pathlib import Path

import pytest
import torch
import transformers
from tiny import save_model, save_tags, save_texts

from adaptivefreeze.comparison import StudySettings
from adaptivefreeze.data import load_task

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def imported_modules_frozen():
    """Exclude what is imported from garbage collection, which every training run triggers."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_model(folder / "model")
    save_tags(folder / "tags")
    save_texts(folder / "texts")
    return folder


@pytest.fixture(scope="session")
def task(tiny_folder):
    return load_task(str(tiny_folder / "tags"), model=str(tiny_folder / "model"), max_length=16)


@pytest.fixture(scope="session")
def texts(tiny_folder):
    return load_task(str(tiny_folder / "texts"), model=str(tiny_folder / "model"), max_length=16)


@pytest.fixture
def settings():
    return StudySettings(epochs=2, batch_size=8, learning_rate=1e-2, device="cpu")
