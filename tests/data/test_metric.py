"""The scores are those of scikit-learn and seqeval, and evaluate loads them offline."""

import json
import os
import random
import subprocess
import sys
from itertools import chain

import pytest
from seqeval.metrics import classification_report as entity_report
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from sklearn.metrics import classification_report

from adaptivefreeze.data import METRIC
from adaptivefreeze.data.corpus import to_iob2
from adaptivefreeze.data.metric.scores import class_scores, tag_scores


@pytest.fixture(scope="module")
def tagged():
    rng = random.Random(3)
    tags = ["O"] * 6 + ["B-A", "I-A", "B-B", "I-B", "B-C"]
    truth = [to_iob2([rng.choice(tags) for _ in range(rng.randint(1, 12))]) for _ in range(60)]
    # A model may predict what is no valid IOB2, and a class that the references never show.
    guessed = [[tag if rng.random() < 0.7 else rng.choice([*tags, "I-D", "B-D"]) for tag in row] for row in truth]
    return truth, guessed


def test_tag_scores_are_those_of_the_two_reports(tagged):
    truth, guessed = tagged
    scores = tag_scores(truth, guessed)
    words = classification_report(list(chain(*truth)), list(chain(*guessed)), output_dict=True, zero_division=0)
    assert scores["accuracy"] == pytest.approx(words["accuracy"])
    assert scores["macro_f1"] == pytest.approx(words["macro avg"]["f1-score"])
    assert scores["weighted_f1"] == pytest.approx(words["weighted avg"]["f1-score"])
    assert scores["entity_f1"] == pytest.approx(f1_score(truth, guessed, mode="strict", scheme=IOB2))
    report = entity_report(truth, guessed, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    assert set(scores["per_class"]) == {"A", "B", "C", "D"}
    for name, row in scores["per_class"].items():
        assert row == {
            "precision": report[name]["precision"],
            "recall": report[name]["recall"],
            "f1": report[name]["f1-score"],
            "support": report[name]["support"],
        }


def test_borders_count_for_entities_and_outside_for_words():
    scores = tag_scores([["B-A", "I-A", "O", "O"]], [["B-A", "O", "O", "O"]])
    assert scores["accuracy"] == 0.75
    assert scores["entity_f1"] == 0.0
    # F1 of B-A, I-A and O: 1, 0 and 2 * (2/3 * 1) / (2/3 + 1) = 0.8
    assert scores["macro_f1"] == pytest.approx((1 + 0 + 0.8) / 3)
    assert scores["weighted_f1"] == pytest.approx((1 * 1 + 0 * 1 + 0.8 * 2) / 4)


def test_a_model_that_finds_nothing_scores_nothing():
    assert tag_scores([["O", "B-A"]], [["O", "O"]])["entity_f1"] == 0.0
    assert tag_scores([["O"]], [["O"]]) == {
        "accuracy": 1.0,
        "macro_f1": 1.0,
        "weighted_f1": 1.0,
        "entity_f1": 0.0,
        "per_class": {},
    }


def test_class_scores_are_those_of_the_report():
    rng = random.Random(4)
    truth = [rng.choice("aab") for _ in range(90)]
    guessed = [label if rng.random() < 0.7 else rng.choice("abc") for label in truth]
    report = classification_report(truth, guessed, output_dict=True, zero_division=0)
    scores = class_scores(truth, guessed)
    assert scores["accuracy"] == pytest.approx(report["accuracy"])
    assert scores["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert scores["weighted_f1"] == pytest.approx(report["weighted avg"]["f1-score"])
    assert scores["entity_f1"] is None
    assert set(scores["per_class"]) == set("abc")
    for name, row in scores["per_class"].items():
        assert row["f1"] == pytest.approx(report[name]["f1-score"])
        assert row["support"] == report[name]["support"]


_SCRIPT = """
import json, sys
import evaluate
metric = evaluate.load(sys.argv[1])
tags = dict(references=[["B-A", "I-A", "O"], ["B-B"]], predictions=[["B-A", "I-A", "O"], ["B-A"]])
print(json.dumps([
    metric.compute(**tags),
    metric.compute(references=["pos", "neg"], predictions=["pos", "pos"]),
    metric.compute(references=[1, 0], predictions=[1, 1]),
]))
assert "adaptivefreeze" not in sys.modules
"""


def test_evaluate_loads_it_without_network_access(tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(METRIC)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tags, strings, numbers = json.loads(done.stdout)
    assert tags == tag_scores([["B-A", "I-A", "O"], ["B-B"]], [["B-A", "I-A", "O"], ["B-A"]])
    assert strings == class_scores(["pos", "neg"], ["pos", "pos"])
    assert numbers == class_scores([1, 0], [1, 1])
