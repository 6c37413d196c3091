"""Reads CoNLL column files: the token first, its IOB tag last, a blank line between sentences."""

from pathlib import Path

from ..errors import RequestError
from .corpus import TaggedSentences, is_iob
from .location import read_text

_DOCUMENT_START = "-DOCSTART-"


def read_conll(path: Path) -> TaggedSentences:
    """The sentences of one file, tags as they stand there (IOB1 or IOB2); ``-DOCSTART-`` lines are ignored.

    Columns are divided by tabs where a line has one, else by spaces. Raises RequestError, with file and line
    number, for a line of another number of columns than the first one, and for a tag that is not IOB.
    """
    words: list[list[str]] = []
    tags: list[list[str]] = []
    columns = 0
    between = True  # between sentences: the next token begins one
    # Only line feeds end a line: a word may hold one of the other separators that str.splitlines() knows.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip():
            between = True
            continue
        fields = line.split("\t") if "\t" in line else line.split(" ")
        fields = [field for field in fields if field]
        if fields[0] == _DOCUMENT_START:
            between = True
            continue
        columns = columns or len(fields)
        if len(fields) < 2 or len(fields) != columns:
            raise RequestError(
                f"{path}, line {number}: {line!r} has {len(fields)} columns instead of {max(columns, 2)}; "
                "each line is a token first and its tag last, with a blank line between sentences."
            )
        if not is_iob(fields[-1]):
            raise RequestError(
                f"{path}, line {number}: the tag {fields[-1]!r} is not IOB; it should be O, B-CLASS or I-CLASS."
            )
        if between:
            words.append([])
            tags.append([])
            between = False
        words[-1].append(fields[0])
        tags[-1].append(fields[-1])
    return TaggedSentences(words, tags)
