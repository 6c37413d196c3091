"""Folds of a task."""

from collections import Counter

import pytest

from adaptivefreeze import RequestError
from adaptivefreeze.data.folds import fold_tasks, strata


def test_folds_are_disjoint_whole_alike_and_leave_the_test_split_alone(texts):
    tasks = fold_tasks(texts, 4)
    held = [task.validation["input_ids"] for task in tasks]
    assert sorted(row for part in held for row in part) == sorted(texts.train["input_ids"])
    for task in tasks:
        assert len(task.train) + len(task.validation) == len(texts.train)
        assert Counter(task.validation["labels"]) == {0: 3, 1: 3}
        assert task.test is texts.test
    assert len({task.fingerprint for task in (*tasks, texts)}) == 5
    assert [task.fingerprint for task in fold_tasks(texts, 4)] == [task.fingerprint for task in tasks]


def test_sentences_are_split_by_their_entity_classes(task):
    found = strata(task, 3)
    assert set(found) == {"LOC+PER"}
    assert len(found) == task.train_examples


@pytest.mark.parametrize("folds", [1, 25])
def test_folds_that_cannot_be_are_refused(task, folds):
    with pytest.raises(RequestError, match=f"--folds {folds} is not possible"):
        fold_tasks(task, folds)
