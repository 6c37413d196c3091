"""Run or continue one study, and keep its runs and tables beside its configuration.

    python experiments/study.py compare experiments/NAME/STUDY.toml [--name NAME] [--published FILE] [OPTION ...]
    python experiments/study.py search experiments/NAME/STUDY.toml [--name NAME] [--start-from FILE] [OPTION ...]
    python experiments/study.py tables experiments/NAME/STUDY.toml [--name NAME] [--published FILE]

Further options are passed on to `adaptivefreeze compare` or `search`, such as `--model FOLDER` and `--seeds 0 1`.

A study works in `runs/NAME/STUDY` (`--work` names another folder for `runs`). Before it begins, the runs in
`experiments/NAME/STUDY.jsonl` are put there unless they are there already, and none of them is repeated. When it ends
or is stopped, all finished runs are written back to that file, and the table and figures beside it are made again from
them. `tables` trains nothing. `--name` gives the study another name than its configuration. `--start-from` also takes
runs from the file of another study with the same data, model and settings, so that these are not repeated.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stored_runs import pack, unpack

from adaptivefreeze.cli.main import app

FIGURES = ("quality-depth", "quality-time", "search")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("command", choices=("compare", "search", "tables"))
    parser.add_argument("config", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--published", type=Path)
    parser.add_argument("--start-from", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    options, passed = parser.parse_known_args(arguments)
    stem = options.config.with_name(options.name or options.config.stem)
    folder = options.work / stem.parent.name / stem.name
    stored = stem.with_name(f"{stem.name}.jsonl")
    for file in (stored, options.start_from):
        if file is not None:
            unpack(file, folder)
    status = 0
    if options.command != "tables":
        with _stopped_in_order():
            status = _run(options.command, "--config", options.config, *passed, "--output", folder)
    if status == 2 or not any((folder / "runs").glob("*.json")):
        return status or 2
    pack(folder, stored)
    tables(folder, stem, options.published)
    return status


def tables(folder: Path, stem: Path, published: Path | None) -> None:
    """Make the report of the stored runs again, and copy its table and figures to files that begin with `stem`."""
    _run("report", folder, "--figures", *(("--published", published) if published else ()))
    for name in ("table", "search"):
        if (folder / f"{name}.md").is_file():
            shutil.copyfile(folder / f"{name}.md", stem.with_name(f"{stem.name}_{name}.md"))
    for name in FIGURES:
        if (folder / "figures" / f"{name}.svg").is_file():
            shutil.copyfile(folder / "figures" / f"{name}.svg", stem.with_name(f"{stem.name}_{name}.svg"))


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Let a request to terminate end the study as Ctrl-C does, also in the background, where that is ignored."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT)),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(*words: str | Path) -> int:
    """Run an `adaptivefreeze` command and return its exit status."""
    return int(app(list(map(str, words)), standalone_mode=False) or 0)


if __name__ == "__main__":
    sys.exit(main())
