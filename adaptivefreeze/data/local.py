"""Reads a data set from a folder: which file is which split, and which reader it needs."""

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
    """The corpus in ``folder``, named after it.

    ``train.txt valid.txt test.txt`` in CoNLL columns are NER; ``train/validation/test`` as ``.csv``, ``.jsonl``
    or ``.parquet`` with the columns ``text`` and ``label`` (or those named) are classification.
    Raises RequestError for a split that is missing, there twice or empty, for a folder that is not of the
    kind asked for, and for whatever the readers refuse.
    """
    files = {split: _split_file(folder, split) for split in SPLITS}
    name = folder.resolve().name
    suffixes = {path.suffix for path in files.values()}
    if suffixes == {_COLUMNS}:
        if kind == "classification":
            raise RequestError(
                f"{folder} holds CoNLL columns, which are for NER; classification needs train, validation and "
                f"test as {', '.join(TABLES)} with text and label."
            )
        if text_column or label_column:
            raise RequestError(f"{folder} holds CoNLL columns, which have no names; leave the column options out.")
        return tagged_corpus(name, {split: read_conll(path) for split, path in files.items()})
    if _COLUMNS in suffixes:
        names = ", ".join(path.name for path in files.values())
        raise RequestError(f"{folder} mixes CoNLL columns with tables ({names}); keep to one of the two.")
    if kind == "ner":
        raise RequestError(
            f"{folder} holds tables, which are for classification; NER needs train.txt, valid.txt and test.txt "
            "in CoNLL columns."
        )
    columns = text_column or "text", label_column or "label"
    return labelled_corpus(name, {split: read_table(path, *columns) for split, path in files.items()})


def _split_file(folder: Path, split: str) -> Path:
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
        raise RequestError(f"{folder} has more than one {split} split, {names}; keep the one that is meant.")
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
    wanted = _STEMS[split][-1 if split != "validation" else 1]
    raise RequestError(
        f"{folder} has no {split} split; it should hold {wanted}.txt in CoNLL columns, or {split} as "
        f"{', '.join(TABLES)}; it holds {there}."
    )
