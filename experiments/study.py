"""Run or continue one study, and keep its runs and tables beside its configuration.

    python experiments/study.py compare experiments/NAME/STUDY.toml [--name NAME] [--published FILE] [OPTION ...]
    python experiments/study.py search experiments/NAME/STUDY.toml [--name NAME] [OPTION ...]
    python experiments/study.py tables experiments/NAME/STUDY.toml [--name NAME] [--published FILE]

Further options are passed on to `adaptivefreeze compare` or `search`, such as `--model FOLDER` and `--seeds 0 1`.

A study works in `runs/NAME/STUDY` (`--work` names another folder for `runs`). Before it begins, the runs in
`experiments/NAME/STUDY.jsonl` are put there unless they are there already, and none of them is repeated. When it ends
or is stopped, all finished runs are written back to that file, and the table and figures beside it are made again from
them. `tables` trains nothing. `--name` gives the study another name than its configuration.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stored_runs import pack, unpack

FIGURES = ("quality-depth", "quality-time", "search")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("compare", "search", "tables"))
    parser.add_argument("config", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--published", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    options, passed = parser.parse_known_args(arguments)
    stem = options.config.with_name(options.name or options.config.stem)
    folder = options.work / stem.parent.name / stem.name
    stored = stem.with_name(f"{stem.name}.jsonl")
    unpack(stored, folder)
    status = 0
    if options.command != "tables":
        command = [sys.executable, "-m", "adaptivefreeze", options.command, "--config", str(options.config)]
        with subprocess.Popen([*command, *passed, "--output", str(folder)]) as process:
            # Ctrl-C reaches the process as well, which ends in order; a request to stop is passed on as one.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
            status = process.wait()
    if status == 2 or not any((folder / "runs").glob("*.json")):
        return status or 2
    pack(folder, stored)
    tables(folder, stem, options.published)
    return status


def tables(folder: Path, stem: Path, published: Path | None) -> None:
    """Make the report of the stored runs again, and copy its table and figures to files that begin with `stem`."""
    command = [sys.executable, "-m", "adaptivefreeze", "report", str(folder), "--figures"]
    subprocess.run([*command, *(("--published", str(published)) if published else ())], check=True)
    for name in ("table", "search"):
        if (folder / f"{name}.md").is_file():
            shutil.copyfile(folder / f"{name}.md", stem.with_name(f"{stem.name}_{name}.md"))
    for name in FIGURES:
        if (folder / "figures" / f"{name}.svg").is_file():
            shutil.copyfile(folder / "figures" / f"{name}.svg", stem.with_name(f"{stem.name}_{name}.svg"))


if __name__ == "__main__":
    sys.exit(main())
