"""Folders: which file is which split, and one clear sentence with file and line for what is wrong."""

import re

import pytest
from data.tiny import CONLL, CSV, write_files

from adaptivefreeze.data.conll import read_conll
from adaptivefreeze.data.local import read_folder
from adaptivefreeze.data.location import local_folder
from adaptivefreeze.data.tables import read_table
from adaptivefreeze.errors import RequestError


def refused(sentence: str):
    return pytest.raises(RequestError, match=re.escape(sentence))


def test_conll_columns_are_read_first_and_last(tmp_path):
    text = (
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\n"
        "-DOCSTART- -X- O O\nPeter NNP B-NP B-PER\r\nBlackburn NNP I-NP I-PER"
    )
    sentences = read_conll(write_files(tmp_path, {"a.txt": text}) / "a.txt")
    assert sentences.words == [["EU", "rejects"], ["Peter", "Blackburn"]]
    assert sentences.tags == [["B-ORG", "O"], ["B-PER", "I-PER"]]


def test_conll_by_tabs_may_hold_spaces_and_a_byte_order_mark(tmp_path):
    path = write_files(tmp_path, {"a.txt": "\ufeffNew York\tB-LOC\n\u2028\tO\n"}) / "a.txt"
    assert read_conll(path).words == [["New York", "\u2028"]]


@pytest.mark.parametrize(
    ("text", "where", "sentence"),
    [
        ("Anna B-PER\nlives\n", "line 2", "'lives' has 1 columns instead of 2"),
        ("Anna\n", "line 1", "'Anna' has 1 columns instead of 2"),
        ("Anna x B-PER\n\nlives O\n", "line 3", "'lives O' has 2 columns instead of 3"),
        ("Anna B-PER\nlives S-PER\n", "line 2", "the tag 'S-PER' is not IOB"),
        ("Anna PER\n", "line 1", "it should be O, B-CLASS or I-CLASS"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(tmp_path, text, where, sentence):
    path = write_files(tmp_path, {"bad.txt": text}) / "bad.txt"
    with refused(f"{path}, {where}: ") as error:
        read_conll(path)
    assert sentence in str(error.value)


def test_text_that_is_not_utf8_is_named_by_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"Anna B-PER\n" + "Jürgen B-PER\n".encode("latin-1"))
    with refused(f"{path}, line 2: not UTF-8 text"):
        read_conll(path)


def test_a_folder_of_columns_is_ner_and_named_after_itself(towns):
    corpus = read_folder(towns)
    assert (corpus.kind, corpus.name, len(corpus.train), len(corpus.validation), len(corpus.test)) == (
        "ner",
        "towns",
        2,
        1,
        2,
    )
    assert corpus.labels == ("O", "B-LOC", "B-ORG", "B-PER", "I-PER")


TABLE = {
    ".csv": 'text,id,label\n"a ""b"", c",7,1\nd,8,0\n',
    ".jsonl": '{"text": "a \\"b\\", c", "id": 7, "label": 1}\n\n{"text": "d", "id": 8, "label": 0}\n',
}


@pytest.mark.parametrize("suffix", TABLE)
def test_tables_of_each_format_give_the_same_texts(tmp_path, suffix):
    path = write_files(tmp_path, {f"a{suffix}": TABLE[suffix]}) / f"a{suffix}"
    read = read_table(path, "text", "label")
    assert (read.texts, read.classes) == (['a "b", c', "d"], ["1", "0"])


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("a.csv", "text,label\nNA,01\n2020-01-01,null\n"),
        ("a.jsonl", '{"text": "NA", "label": "01"}\n{"text": "2020-01-01", "label": "null"}\n'),
    ],
)
def test_values_are_read_as_they_are_written(tmp_path, name, table):
    read = read_table(write_files(tmp_path, {name: table}) / name, "text", "label")
    assert (read.texts, read.classes) == (["NA", "2020-01-01"], ["01", "null"])


def test_parquet_gives_the_same_texts(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ['a "b", c', "d"], "label": [1, 0]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    read = read_table(tmp_path / "a.parquet", "text", "label")
    assert (read.texts, read.classes) == (['a "b", c', "d"], ["1", "0"])


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "text,label\nx,1\ny,0,2\n", "line 3: 3 fields where the header names 2"),
        ("a.csv", "text,label\ny,0,2\nx,1\n", "line 2: 3 fields where the header names 2"),
        ("a.csv", 'text,label\n"two\nlines",1\ny\n', "line 4: 1 fields where the header names 2"),
        ("a.csv", "sentence,label\nx,1\n", "line 2: there is no column 'text', only 'sentence', 'label'"),
        ("a.csv", "text,label\nx,\n", "line 2: the label is ''"),
        ("a.csv", 'text,label\n"x,1\n', "line 2: invalid csv"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": \n', "line 2: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: '[1]' is not a JSON object"),
        ("a.jsonl", '{"text": 3, "label": 1}\n', "line 1: the text is 3; it should be a string"),
        ("a.jsonl", '{"text": "x", "label": 0.5}\n', "line 1: the label is 0.5; a class should be"),
        ("a.jsonl", '{"text": "x", "label": null}\n', "line 1: the label is None"),
        ("a.parquet", "no", "not a readable parquet file"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_by_file_and_line(tmp_path, name, text, sentence):
    path = write_files(tmp_path, {name: text}) / name
    with refused(sentence) as error:
        read_table(path, "text", "label")
    assert str(error.value).startswith(str(path))


def test_other_columns_can_be_named(tmp_path):
    folder = write_files(
        tmp_path / "x", {name: text.replace("text,label", "review,stars") for name, text in CSV.items()}
    )
    corpus = read_folder(folder, text_column="review", label_column="stars")
    assert corpus.kind == "classification"
    assert corpus.test.texts == ["a film, good", "a bad film"]
    with refused("there is no column 'text'"):
        read_folder(folder)


@pytest.mark.parametrize("missing", CONLL)
def test_a_missing_split_is_named_with_what_the_folder_holds(towns, missing):
    (towns / missing).unlink()
    split = {"valid.txt": "validation"}.get(missing, missing.removesuffix(".txt"))
    with refused(f"{towns} has no {split} split; it should contain {missing} in CoNLL columns") as error:
        read_folder(towns)
    assert all(name in str(error.value) for name in CONLL if name != missing)


@pytest.mark.parametrize("empty", CONLL)
def test_an_empty_split_is_refused(towns, empty):
    (towns / empty).write_text("\n-DOCSTART- O\n\n")
    with refused("split of towns is empty"):
        read_folder(towns)


def test_a_split_that_is_there_twice_is_refused(towns):
    (towns / "dev.txt").write_text(CONLL["valid.txt"])
    with refused("more than one validation split, valid.txt and dev.txt"):
        read_folder(towns)


def test_columns_and_tables_do_not_mix(towns):
    (towns / "test.txt").unlink()
    (towns / "test.csv").write_text(CSV["test.csv"])
    with refused("mixes CoNLL columns with tables (train.txt, valid.txt, test.csv)"):
        read_folder(towns)


def test_a_folder_of_the_other_kind_is_refused(towns, reviews):
    with refused("contains CoNLL columns, which are for NER"):
        read_folder(towns, kind="classification")
    with refused("contains tables, which are for classification"):
        read_folder(reviews, kind="ner")
    with refused("have no names; omit the column options"):
        read_folder(towns, label_column="label")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c", "a/", ""])
def test_a_path_that_is_not_there_is_no_hub_name(name):
    with refused(f"There is no folder {name!r}"):
        local_folder(name, "files")


def test_hub_names_folders_and_files_are_told_apart(towns):
    assert local_folder("conll2003-of-the-hub", "files") is None
    assert local_folder("owner/name", "files") is None
    assert local_folder(str(towns), "files") == towns
    with refused("is a file; pass the folder"):
        local_folder(str(towns / "train.txt"), "files")
