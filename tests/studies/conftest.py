"""A tiny task that every test of studies may train on."""

import gc
from pathlib import Path

import pytest
from tiny import save_model, save_tags, save_texts

from adaptivefreeze.studies import StudySettings
from adaptivefreeze.tasks import load_task


@pytest.fixture(scope="package", autouse=True)
def imported_modules_set_aside():
    """Every run collects garbage; without this it would look through all imported libraries each time."""
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
