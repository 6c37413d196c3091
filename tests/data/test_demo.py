"""The embedded corpus: reproducible, no name in two splits, and forms whose class depends on the sentence."""

import hashlib
import json
from collections import defaultdict

import pytest

from adaptivefreeze.data import DEMO, demo
from adaptivefreeze.data.corpus import SPLITS

# What is put to a name to make a port, a group or a model of it, and is no name.
ADDED = ["north", "port", "valley", "bay", "heights", "group", "&", "partners", "university", "pro", "mini", "classic"]


@pytest.fixture(scope="module")
def corpus():
    return demo.demo_corpus()


def entities(examples):
    """(class, words) of each entity."""
    for words, tags in zip(examples.words, examples.tags, strict=True):
        for i, tag in enumerate(tags):
            if tag.startswith("B-"):
                end = i + 1
                while end < len(tags) and tags[end] == f"I-{tag[2:]}":
                    end += 1
                yield tag[2:], tuple(word.lower() for word in words[i:end])


def test_it_is_this_corpus_on_every_machine(corpus):
    rows = [[list(getattr(corpus, split).words), list(getattr(corpus, split).tags)] for split in SPLITS]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert digest == "26f14ea0319e94044760682b3696f86512542fe0ebb2b658df9bd8d13b0d91f5"


def test_equal_seeds_give_equal_corpora_and_others_do_not(corpus):
    assert demo.demo_corpus() == corpus
    assert demo.demo_corpus(seed=1).train != corpus.train


def test_sizes_and_labels(corpus):
    assert [len(getattr(corpus, split)) for split in SPLITS] == [480, 200, 300]
    assert corpus.labels == ("O", *(f"{x}-{c}" for c in ("LOC", "ORG", "PER", "PRODUCT") for x in "BI"))
    assert corpus.notes == ()
    for split in SPLITS:
        assert getattr(corpus, split).labels() == set(corpus.labels)
    longest = max(len(words) for split in SPLITS for words in getattr(corpus, split).words)
    assert 2 * longest < DEMO.max_length  # fits even if every word has two subwords


def test_no_name_of_one_split_is_in_another(corpus):
    added = {*ADDED, *"23456789"}
    names = {split: {w for _, e in entities(getattr(corpus, split)) for w in e} - added for split in SPLITS}
    assert all(len(found) > 80 for found in names.values())
    assert not names["train"] & names["test"]
    assert not names["train"] & names["validation"]
    assert not names["validation"] & names["test"]


def plain_words(examples):
    """The words that are no part of a name."""
    rows = zip(examples.words, examples.tags, strict=True)
    return {word.lower() for words, tags in rows for word, tag in zip(words, tags, strict=True) if tag == "O"}


@pytest.mark.parametrize("split", SPLITS)
def test_many_forms_stand_for_several_classes_and_for_no_name_at_all(corpus, split):
    examples = getattr(corpus, split)
    classes = defaultdict(set)
    for name, words in entities(examples):
        classes[words].add(name)
    assert sum(len(found) > 1 for found in classes.values()) >= 15
    assert len(plain_words(examples) & {words[0] for words in classes}) >= 5


def test_test_has_phrases_that_training_never_shows(corpus):
    for word in ("sneezed", "bankrupt", "pilgrims", "firmware"):
        assert word in plain_words(corpus.test)
        assert word not in plain_words(corpus.train)


def test_every_slot_is_filled(corpus):
    assert not [w for split in SPLITS for row in getattr(corpus, split).words for w in row if "{" in w or "}" in w]
