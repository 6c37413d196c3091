"""A task from a folder to a trained and scored model, its fingerprint and its warnings."""

import re

import numpy as np
import pytest
import torch
from data.tiny import write_files
from datasets import Dataset
from transformers import EvalPrediction, Trainer, TrainingArguments

from adaptivefreeze.data import load_task
from adaptivefreeze.data.metric.scores import class_scores, tag_scores
from adaptivefreeze.errors import RequestError


def refused(sentence: str):
    return pytest.raises(RequestError, match=re.escape(sentence))


def arguments(folder, **more):
    return TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        use_cpu=True,
        max_steps=2,
        per_device_train_batch_size=4,
        disable_tqdm=True,
        **more,
    )


def test_a_ner_task_has_what_a_trainer_needs(towns, tiny_model):
    task = load_task(str(towns), model=tiny_model, max_length=32)
    assert (task.kind, task.dataset, task.model) == ("ner", "towns", tiny_model)
    assert (task.train_examples, len(task.validation), len(task.test)) == (2, 1, 2)
    assert all(isinstance(split, Dataset) for split in (task.train, task.validation, task.test))
    assert set(task.train.column_names) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    assert not task.train.cache_files
    assert task.coverage.examples == 5


@pytest.mark.parametrize("folder", ["towns", "reviews"])
def test_a_trainer_trains_on_it_and_logs_its_scores(folder, tiny_model, tmp_path, request):
    task = load_task(str(request.getfixturevalue(folder)), model=tiny_model, max_length=32)
    trainer = Trainer(
        model=task.new_model(0),
        args=arguments(tmp_path / "out"),
        train_dataset=task.train,
        eval_dataset=task.validation,
        data_collator=task.collator(),
        compute_metrics=task.compute_metrics,
    )
    trainer.train()
    metrics = trainer.evaluate()
    expected = {"eval_accuracy", "eval_macro_f1", "eval_weighted_f1"} | (
        {"eval_entity_f1"} if task.kind == "ner" else set()
    )
    assert {name for name in metrics if name.endswith(("accuracy", "f1"))} == expected
    assert all(isinstance(metrics[name], float) for name in expected)
    predicted = trainer.predict(task.test)
    scores = task.score(predicted.predictions, predicted.label_ids)
    assert scores["accuracy"] == pytest.approx(predicted.metrics["test_accuracy"])
    assert sum(row["support"] for row in scores["per_class"].values()) == (1 if task.kind == "ner" else 2)


def test_scores_of_tags_skip_what_does_not_count(towns, tiny_model):
    task = load_task(str(towns), model=tiny_model, max_length=32)
    ids = {label: i for i, label in enumerate(task.labels)}
    expected = np.array([[-100, ids["B-PER"], ids["I-PER"], -100, ids["O"]], [-100, ids["O"], ids["O"], -100, -100]])
    predicted = np.array([[3, ids["B-PER"], ids["O"], 1, ids["O"]], [2, ids["O"], ids["B-LOC"], 0, 0]])
    scores = task.score(predicted, expected)
    assert scores == tag_scores([["B-PER", "I-PER", "O"], ["O", "O"]], [["B-PER", "O", "O"], ["O", "B-LOC"]])
    logits = np.eye(len(task.labels))[predicted]
    assert task.score(logits, expected) == scores
    assert task.score((logits, "hidden states"), expected) == scores
    numbers = task.compute_metrics(EvalPrediction(predictions=logits, label_ids=expected))
    assert numbers == {name: scores[name] for name in ("accuracy", "macro_f1", "weighted_f1", "entity_f1")}


def test_scores_of_classes(reviews, tiny_model):
    task = load_task(str(reviews), model=tiny_model, max_length=32)
    logits, expected = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]]), np.array([0, 1, 1])
    scores = task.score(logits, expected)
    assert scores == class_scores(["0", "1", "1"], ["0", "1", "0"])
    assert scores["entity_f1"] is None
    assert set(task.compute_metrics(EvalPrediction(predictions=logits, label_ids=expected))) == {
        "accuracy",
        "macro_f1",
        "weighted_f1",
    }


def test_batches_are_padded_to_their_longest_or_to_the_max_length(towns, tiny_model):
    for padded, width in ((False, None), (True, 32)):
        task = load_task(str(towns), model=tiny_model, max_length=32, pad_to_max_length=padded)
        batch = task.collator()([task.train[0], task.train[1]])
        width = width or max(map(len, task.train["input_ids"]))
        assert batch["input_ids"].shape == batch["labels"].shape == (2, width)
        assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


def test_new_models_are_equal_for_equal_seeds(towns, tiny_model):
    task = load_task(str(towns), model=tiny_model, max_length=32)
    first, second = task.new_model(3).state_dict(), task.new_model(3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["classifier.weight"].shape == (len(task.labels), 32)


def test_the_fingerprint_is_the_same_in_every_process(towns, tiny_model):
    # Written down here: whatever made it differ between processes or machines would make it differ from this.
    fingerprint = load_task(str(towns), model=tiny_model, max_length=32).fingerprint
    assert fingerprint == "cb184cddb23053f1e35c0c8b11279b4301777ea39738f476961a7a95c5f3c791"


def test_the_fingerprint_tells_what_is_trained_on(towns, tiny_model):
    def fingerprint(**options):
        return load_task(str(towns), model=tiny_model, **{"max_length": 32, **options}).fingerprint

    seen = {
        fingerprint(),
        fingerprint(max_length=16),
        fingerprint(pad_to_max_length=True),
        fingerprint(limit=1),
    }
    text = (towns / "test.txt").read_text()
    (towns / "test.txt").write_text(text.replace("film O", "Film O"))  # the same subwords, but a different text
    seen.add(fingerprint())
    (towns / "test.txt").write_text(text.replace("lives O", "lives B-LOC"))
    seen.add(fingerprint())
    assert len(seen) == 6
    (towns / "test.txt").write_text(text)
    assert fingerprint() in seen
    assert fingerprint(limit=99) == fingerprint()


def test_the_limit_takes_the_first_sentences_and_names_labels_they_never_show(towns, tiny_model):
    task = load_task(str(towns), model=tiny_model, max_length=32, limit=1)
    assert task.train_examples == 1
    assert task.tokenizer.decode(task.train[0]["input_ids"]) == "[CLS] anna lives in rome [SEP]"
    assert task.labels == ("O", "B-LOC", "B-ORG", "B-PER", "I-PER")
    assert task.warnings == (
        "The 1 training examples in use do not contain B-ORG, I-PER (2 of 5 labels), so these cannot be learned.",
    )


def test_a_language_that_the_tokenizer_does_not_cover_is_a_warning(tmp_path, tiny_model):
    text = "Атырау B-LOC\nis O\n"
    folder = write_files(tmp_path / "x", dict.fromkeys(("train.txt", "valid.txt", "test.txt"), text))
    task = load_task(str(folder), model=tiny_model, max_length=32)
    assert task.coverage.unknown_word_share == 0.5
    assert "does not cover this language: 50% of the words" in task.warnings[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "regression"}, "'regression' is not a kind of task; it should be ner or classification"),
        ({"limit": 0}, "The limit is 0; it should be at least 1 training example"),
        ({"max_length": 2}, "The maximum length 2 does not suit"),
        ({"max_length": 999}, "it should be from 3 to 64 tokens"),
        ({"revision": "main"}, "is not on the hub and has no revision 'main'"),
        ({"kind": "classification"}, "contains CoNLL columns, which are for NER"),
    ],
)
def test_requests_that_cannot_be_met(towns, tiny_model, options, sentence):
    with refused(sentence):
        load_task(str(towns), **{"model": tiny_model, "max_length": 32, **options})


def test_the_demo_takes_no_options_of_other_data(tiny_model):
    with refused("The demo data set is for NER"):
        load_task(model=tiny_model, kind="classification")
    with refused("has no revision"):
        load_task(model=tiny_model, revision="main")


def test_the_demo_is_a_task_like_any_other(tiny_model):
    task = load_task(model=tiny_model, max_length=64)
    assert (task.dataset, task.train_examples, task.kind) == ("demo", 480, "ner")


def test_evaluation_examples_are_drawn_with_a_fixed_seed(tiny_folder):
    def load(**arguments):
        return load_task(str(tiny_folder / "texts"), model=str(tiny_folder / "model"), max_length=16, **arguments)

    whole, some, again = load(), load(eval_limit=4), load(eval_limit=4)
    for split in ("validation", "test"):
        drawn = getattr(some, split)["input_ids"]
        assert len(drawn) == 4 < len(getattr(whole, split))
        assert drawn == getattr(again, split)["input_ids"]
        assert all(ids in getattr(whole, split)["input_ids"] for ids in drawn)
    assert len(some.train) == len(whole.train)
    assert some.fingerprint == again.fingerprint != whole.fingerprint
    assert load(eval_limit=10**6).fingerprint == whole.fingerprint
    with pytest.raises(RequestError, match="at least 1 validation example"):
        load(eval_limit=0)
    apart = load(eval_limit=4, test_limit=6)
    assert (len(apart.validation), len(apart.test)) == (4, 6)
    assert apart.validation["input_ids"] == some.validation["input_ids"]


def test_training_examples_are_limited_in_one_way(tiny_folder):
    def load(**arguments):
        return load_task(str(tiny_folder / "texts"), model=str(tiny_folder / "model"), max_length=16, **arguments)

    assert sorted(load(per_class=3).train["labels"]) == [0, 0, 0, 1, 1, 1]
    with refused("--limit and --per-class both choose the training examples"):
        load(limit=3, per_class=3)
