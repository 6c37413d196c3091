"""What the tests of tasks share: a tiny model, small data sets, and the real ones where they are."""

import os
from pathlib import Path

import pytest
from data.tiny import CONLL, CSV, save_model, write_files


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    return str(save_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def towns(tmp_path) -> Path:
    return write_files(tmp_path / "towns", CONLL)


@pytest.fixture
def reviews(tmp_path) -> Path:
    return write_files(tmp_path / "reviews", CSV)


@pytest.fixture
def real_data():
    """real_data(name): the folder of a real data set; the test is skipped where it is not there."""
    root = Path(os.environ.get("ADAPTIVEFREEZE_DATA") or Path(__file__).parents[3] / "shared" / "data")

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"the data set {name} is not here; ADAPTIVEFREEZE_DATA names the folder that holds it")
        return root / name

    return folder
