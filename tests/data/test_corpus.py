"""Tags, labels and the fixed shuffle of a corpus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivefreeze.data.corpus import LabelledTexts, TaggedSentences, is_iob, labelled_corpus, tagged_corpus, to_iob2
from adaptivefreeze.errors import RequestError

TAGS = st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"]), max_size=12)


@pytest.mark.parametrize(
    ("iob1", "iob2"),
    [
        ("I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC"),
        ("I-PER B-PER I-PER", "B-PER B-PER I-PER"),
        ("I-PER I-LOC I-LOC", "B-PER B-LOC I-LOC"),
        ("O B-ORG I-ORG O", "O B-ORG I-ORG O"),
        ("B-ORG I-PER", "B-ORG B-PER"),
        ("I-A-B I-A", "B-A-B B-A"),
        ("", ""),
    ],
)
def test_iob1_is_converted_to_iob2(iob1, iob2):
    assert to_iob2(iob1.split()) == iob2.split()


@given(TAGS)
def test_conversion_gives_valid_iob2_keeps_classes_and_is_done_once(tags):
    converted = to_iob2(tags)
    assert [tag[2:] for tag in converted] == [tag[2:] for tag in tags]
    for before, tag in zip(["O", *converted], converted, strict=False):
        assert not tag.startswith("I-") or before[2:] == tag[2:]
    assert to_iob2(converted) == converted


@pytest.mark.parametrize("tag", ["O", "B-PER", "I-x", "B-A-B"])
def test_iob_tags(tag):
    assert is_iob(tag)


@pytest.mark.parametrize("tag", ["", "o", "PER", "B-", "B", "S-PER", "E-PER", "b-PER", "OO", "BPER"])
def test_tags_that_are_not_iob(tag):
    assert not is_iob(tag)


def sentences(*tags: str) -> TaggedSentences:
    rows = [row.split() for row in tags]
    return TaggedSentences([["w"] * len(row) for row in rows], rows)


def test_labels_are_those_of_all_splits_in_order_of_class():
    corpus = tagged_corpus(
        "x", {"train": sentences("O B-PER I-PER"), "validation": sentences("B-LOC"), "test": sentences("B-ORG I-ORG")}
    )
    assert corpus.labels == ("O", "B-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert corpus.notes == ()


def test_notes_tell_what_was_changed():
    corpus = tagged_corpus(
        "x", {"train": sentences("O I-PER I-PER", ""), "validation": sentences("I-LOC"), "test": sentences("B-LOC")}
    )
    assert len(corpus.train) == 1
    assert corpus.notes == (
        "2 entities of x began with I-: the tags were read as IOB1 and converted to IOB2.",
        "1 sentences of x have no words and were left out.",
    )


def test_a_split_without_sentences_is_refused():
    with pytest.raises(RequestError, match=r"The validation split of x is empty"):
        tagged_corpus("x", {"train": sentences("B-A"), "validation": sentences(""), "test": sentences("B-A")})


def test_a_corpus_without_entities_is_refused():
    nothing = sentences("O O")
    with pytest.raises(RequestError, match=r"x has no entity"):
        tagged_corpus("x", {"train": nothing, "validation": nothing, "test": nothing})


def texts(*classes: str) -> LabelledTexts:
    return LabelledTexts([f"text {i}" for i in range(len(classes))], classes)


@pytest.mark.parametrize(
    ("classes", "order", "labels"),
    [
        (("10", "9", "-1"), None, ("-1", "9", "10")),
        (("pos", "neg", "10"), None, ("10", "neg", "pos")),
        (("pos", "neg"), ("pos", "neutral", "neg"), ("pos", "neg")),
    ],
)
def test_classes_are_in_the_data_sets_order_or_sorted(classes, order, labels):
    split = texts(*classes)
    assert labelled_corpus("x", {"train": split, "validation": split, "test": split}, order).labels == labels


def test_training_texts_are_shuffled_always_alike_and_keep_their_classes():
    train = texts(*["1"] * 50, *["0"] * 50)
    splits = {"train": train, "validation": texts("0"), "test": texts("1")}
    first, second = labelled_corpus("x", splits), labelled_corpus("x", splits)
    assert first.train == second.train
    assert set(first.train.classes[:20]) == {"0", "1"}
    assert sorted(zip(first.train.texts, first.train.classes, strict=True)) == sorted(
        zip(train.texts, train.classes, strict=True)
    )
    assert first.test == splits["test"]


def test_one_class_alone_is_refused():
    split = texts("0", "0")
    with pytest.raises(RequestError, match=r"x has only the class '0'"):
        labelled_corpus("x", {"train": split, "validation": split, "test": split})


def test_some_texts_of_each_class_are_the_first_ones():
    texts = LabelledTexts(list("abcdefg"), ["x", "x", "x", "y", "x", "y", "y"])
    assert texts.per_class(2) == LabelledTexts(list("abdf"), ["x", "x", "y", "y"])
    assert texts.per_class(9) == texts


def test_some_sentences_that_name_each_class_are_filled_from_the_rarest_class():
    tags = [["B-PER"], ["O"], ["B-PER", "B-LAW"], ["B-PER", "I-PER"], ["B-LOC"], ["B-LOC", "B-PER"], ["B-LOC"]]
    sentences = TaggedSentences([[str(i)] * len(row) for i, row in enumerate(tags)], tags)
    assert [words[0] for words in sentences.per_class(1).words] == ["2", "4"]
    assert [words[0] for words in sentences.per_class(2).words] == ["2", "4", "5"]
    assert [words[0] for words in sentences.per_class(3).words] == ["0", "2", "4", "5", "6"]
