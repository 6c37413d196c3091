"""Data sets in a local folder: the file of each split, and its format."""

from pathlib import Path

from ..errors import RequestError
from .conll import read_conll
from .corpus import SPLITS, Corpus, Kind, labelled_corpus, tagged_corpus
from .tables import TABLES, read_table

_STEMS = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}
_COLUMNS = ".txt"


def read_folder(
    folder: Path, *, kind: Kind | None = None, text_column: str | None = None, label_column: str | None = None
) -> Corpus:
    """Read the corpus in a folder; its name is that of the folder.

    `train.txt`, `valid.txt` and `test.txt` in CoNLL columns are a NER data set. `train`, `validation` and `test` as
    `.csv`, `.jsonl` or `.parquet` are a classification data set.

    Args:
        folder: The folder.
        kind: The kind of task that the folder must be for; None accepts both.
        text_column: The column of the texts in tables, `text` by default.
        label_column: The column of the classes in tables, `label` by default.

    Raises:
        RequestError: A split is missing, duplicate or empty, the folder is for the other kind of task, or a file is
            invalid.
    """
    files = {split: _split_file(folder, split) for split in SPLITS}
    name = folder.resolve().name
    suffixes = {path.suffix for path in files.values()}
    if suffixes == {_COLUMNS}:
        if kind == "classification":
            raise RequestError(
                f"{folder} contains CoNLL columns, which are for NER; classification needs train, validation and "
                f"test as {', '.join(TABLES)} with text and label."
            )
        if text_column or label_column:
            raise RequestError(f"{folder} contains CoNLL columns, which have no names; omit the column options.")
        return tagged_corpus(name, {split: read_conll(path) for split, path in files.items()})
    if _COLUMNS in suffixes:
        names = ", ".join(path.name for path in files.values())
        raise RequestError(f"{folder} mixes CoNLL columns with tables ({names}); use only one of the two.")
    if kind == "ner":
        raise RequestError(
            f"{folder} contains tables, which are for classification; NER needs train.txt, valid.txt and test.txt "
            "in CoNLL columns."
        )
    columns = text_column or "text", label_column or "label"
    return labelled_corpus(name, {split: read_table(path, *columns) for split, path in files.items()})


def _split_file(folder: Path, split: str) -> Path:
    """The only file of a split."""
    found = [
        path
        for stem in _STEMS[split]
        for suffix in (_COLUMNS, *TABLES)
        if (path := folder / f"{stem}{suffix}").is_file()
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(path.name for path in found)
        raise RequestError(f"{folder} has more than one {split} split, {names}; keep only one of them.")
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
    wanted = _STEMS[split][-1 if split != "validation" else 1]
    raise RequestError(
        f"{folder} has no {split} split; it should contain {wanted}.txt in CoNLL columns, or {split} as "
        f"{', '.join(TABLES)}; it contains {there}."
    )
