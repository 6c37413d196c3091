"""CoNLL column files: a token and its IOB tag in the first and last column, a blank line between sentences."""

from pathlib import Path

from ..errors import RequestError
from .corpus import TaggedSentences, is_iob
from .location import read_text

_DOCUMENT_START = "-DOCSTART-"


def read_conll(path: Path) -> TaggedSentences:
    """Read the sentences of one file, with the tags as they are written (IOB1 or IOB2).

    Columns are separated by tabs if a line has one, otherwise by spaces. `-DOCSTART-` lines are ignored.

    Raises:
        RequestError: A line has another number of columns than the first line, or its tag is not IOB. The message
            names the file and the line.
    """
    words: list[list[str]] = []
    tags: list[list[str]] = []
    columns = 0
    between = True  # between sentences, so that the next token begins one
    # Not str.splitlines(): a word may contain one of its other separators.
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
                "a line begins with a token and ends with its tag, and a blank line separates sentences."
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
