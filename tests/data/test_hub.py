"""Hub data sets: columns found by type or named; every way to fail is one sentence. The hub is a folder here."""

import re

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from adaptivefreeze.data import hub
from adaptivefreeze.data.hub import read_hub
from adaptivefreeze.errors import RequestError

NER = ClassLabel(names=["O", "B-PER", "I-PER", "B-LOC"])
CHUNKS = ClassLabel(names=["O", "B-NP", "I-NP"])


def refused(sentence: str):
    return pytest.raises(RequestError, match=re.escape(sentence))


@pytest.fixture
def on_hub(tmp_path, monkeypatch):
    """on_hub(features, rows, splits): a data set as the hub stores it, read by datasets itself; gives its name."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()

    def store(features, columns, splits=("train", "validation", "test")):
        for split in splits:
            Dataset.from_dict(columns, features=Features(features)).to_parquet(tmp_path / "set" / f"{split}.parquet")
        return str(tmp_path / "set")

    yield store
    datasets.enable_progress_bars()


def test_tags_are_found_among_other_columns_of_labels(on_hub):
    name = on_hub(
        {"id": Value("string"), "tokens": List(Value("string")), "chunk_tags": List(CHUNKS), "ner_tags": List(NER)},
        {
            "id": ["0"],
            "tokens": [["Anna", "Bo", "in", "Rome"]],
            "chunk_tags": [[1, 2, 0, 1]],
            "ner_tags": [[1, 2, 0, 3]],
        },
    )
    corpus = read_hub(name)
    assert corpus.kind == "ner"
    assert corpus.labels == ("O", "B-LOC", "B-PER", "I-PER")
    assert corpus.test.tags == [["B-PER", "I-PER", "O", "B-LOC"]]
    assert read_hub(name, label_column="chunk_tags").labels == ("O", "B-NP", "I-NP")


def test_tags_may_be_strings_and_iob1(on_hub):
    name = on_hub(
        {"words": List(Value("string")), "tags": List(Value("string"))},
        {"words": [["Anna", "Bo"]], "tags": [["I-PER", "I-PER"]]},
    )
    corpus = read_hub(name)
    assert corpus.train.words == [["Anna", "Bo"]]
    assert corpus.train.tags == [["B-PER", "I-PER"]]
    assert corpus.notes


def test_texts_and_classes_keep_the_order_of_the_data_set(on_hub):
    name = on_hub(
        {"text": Value("string"), "title": Value("string"), "label": ClassLabel(names=["pos", "mixed", "neg"])},
        {"text": ["good", "bad"], "title": ["x", "y"], "label": [0, 2]},
        splits=("train", "dev", "test"),
    )
    corpus = read_hub(name)
    assert (corpus.kind, corpus.labels) == ("classification", ("pos", "neg"))
    assert corpus.test.texts == ["good", "bad"]
    assert corpus.test.classes == ["pos", "neg"]
    assert read_hub(name, text_column="title").test.texts == ["x", "y"]


REVIEWS = (
    {"title": Value("string"), "body": Value("string"), "stars": Value("int64"), "votes": Value("int64")},
    {"title": ["a", "b"], "body": ["good", "bad"], "stars": [5, 1], "votes": [0, 2]},
)


def test_columns_that_cannot_be_told_apart_must_be_named(on_hub):
    name = on_hub(*REVIEWS)
    with refused("2 columns with texts (strings) (title, body); choose one with --text-column"):
        read_hub(name)
    with refused("choose one with --label-column"):
        read_hub(name, text_column="body")
    corpus = read_hub(name, text_column="body", label_column="stars")
    assert corpus.labels == ("1", "5")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"text_column": "review"},
            "should contain texts (strings), but 'review' does not exist; its columns are title",
        ),
        ({"text_column": "stars"}, "should contain texts (strings), but 'stars' has another type"),
        ({"kind": "ner"}, "has no columns with words (lists of strings)"),
    ],
)
def test_columns_of_another_type_are_refused(on_hub, options, sentence):
    with refused(sentence):
        read_hub(on_hub(*REVIEWS), **options)


def test_a_set_of_neither_kind_is_refused(on_hub):
    with refused("has neither words with tags nor texts with classes (its columns: x)"):
        read_hub(on_hub({"x": Value("float32")}, {"x": [0.5]}))


def test_a_missing_split_is_refused(on_hub):
    name = on_hub({"text": Value("string"), "label": CHUNKS}, {"text": ["a"], "label": [0]}, splits=("train", "test"))
    with refused("has no validation split, only train, test"):
        read_hub(name)


def test_withheld_labels_are_refused(on_hub):
    name = on_hub({"text": Value("string"), "label": CHUNKS}, {"text": ["a", "b"], "label": [0, -1]})
    with refused("Example 2 of the train split"):
        read_hub(name)


def test_tags_that_are_not_iob_are_refused(on_hub):
    name = on_hub(
        {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "person"]))},
        {"tokens": [["Anna"]], "ner_tags": [[1]]},
    )
    with refused("the tag 'person' is not IOB"):
        read_hub(name)


def test_words_without_tags_are_refused(on_hub):
    name = on_hub(
        {"tokens": List(Value("string")), "ner_tags": List(NER)},
        {"tokens": [["Anna"], ["a", "b"]], "ner_tags": [[1], [0]]},
    )
    with refused("has 2 words and 1 tags"):
        read_hub(name)


def test_a_text_that_is_missing_is_refused(on_hub):
    name = on_hub({"text": Value("string"), "label": CHUNKS}, {"text": ["a", None], "label": [0, 1]})
    with refused("has no text"):
        read_hub(name)


def test_without_network_a_hub_name_is_refused():
    with refused("nobody/nothing is not a local folder, and the hub cannot be reached"):
        read_hub("nobody/nothing")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            datasets.exceptions.DatasetNotFoundError("gone"),
            "x/y is neither a local folder nor a visible data set on the hub",
        ),
        (RuntimeError("Dataset scripts are no longer supported, but found y.py"), "the revision refs/convert/parquet"),
        (ValueError("Config name is missing.\nPick one"), "x/y could not be loaded: Config name is missing."),
        (datasets.exceptions.DatasetGenerationError("broken"), "x/y could not be loaded: broken."),
    ],
)
def test_what_the_hub_answers_becomes_one_sentence(monkeypatch, error, sentence):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with refused(sentence):
        read_hub("x/y")


def test_revision_and_configuration_are_passed_on(monkeypatch):
    asked = []

    def load(*args, **kwargs):
        asked.append((args, kwargs))
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in ("x/y", "x/y:small"):
        with pytest.raises(RequestError):
            hub.read_hub(name, revision="refs/convert/parquet")
    assert asked == [
        (("x/y", None), {"revision": "refs/convert/parquet"}),
        (("x/y", "small"), {"revision": "refs/convert/parquet"}),
    ]
