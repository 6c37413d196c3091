"""A real installation without extras, in a virtual environment of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_core import REPOSITORY, SCRIPT, check_core


def megabytes(*paths: Path) -> float:
    return sum(f.stat().st_size for path in paths for f in path.rglob("*") if f.is_file() and not f.is_symlink()) / 1e6


@pytest.mark.slow
def test_the_core_alone_installs_and_trains(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    source = tmp_path / "source"  # a copy, since pip builds in the source folder
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "adaptivefreeze", source / "adaptivefreeze")
    for requirement in ("torch", str(source)):
        install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(REPOSITORY / "constraints.txt")]
        done = subprocess.run([*install, requirement], capture_output=True, text=True)
        if "No matching distribution" in done.stderr or "Could not find a version" in done.stderr:
            pytest.skip(f"the package index cannot be reached: {done.stderr.splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    packages = next((tmp_path / "venv" / "lib").iterdir()) / "site-packages"
    assert not (packages / "datasets").exists()
    own, whole = megabytes(packages / "adaptivefreeze"), megabytes(tmp_path / "venv")
    print(f"adaptivefreeze {own:.2f} MB of {whole:.0f} MB installed")
    assert own < 5
    check_core([str(python), str(SCRIPT)], tmp_path)
