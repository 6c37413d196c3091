"""Settings of a study, and --set."""

import pytest
import torch

from adaptivefreeze import RequestError
from adaptivefreeze.comparison.settings import StudySettings, parse_assignments


def test_assignments_are_typed_as_training_arguments_are():
    values = parse_assignments(["warmup_steps=100", "bf16=true", "optim=sgd", "weight-decay = 1e-2"])
    assert values == {"warmup_steps": 100, "bf16": True, "optim": "sgd", "weight_decay": 0.01}
    assert StudySettings(training_arguments=values).arguments("x", 0).weight_decay == 0.01


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("warmup_stps=1", "did you mean warmup_steps"),
        ("warmup_steps", "is not name=value"),
        ("=1", "is not name=value"),
        ("bf16=maybe", "is invalid"),
        ("weight_decay=much", "is invalid"),
        ("optim=unheard", "is invalid"),
        ("learning_rate=1", "--learning-rate"),
        ("output_dir=x", "--output"),
        ("report_to=all", "result files"),
        ("zzz=1", "documentation"),
    ],
)
def test_what_cannot_be_set_is_answered_in_one_sentence(assignment, words):
    with pytest.raises(RequestError, match=words) as raised:
        parse_assignments([assignment])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("values", [{"epochs": 0}, {"batch_size": -1}, {"learning_rate": 0.0}, {"eval_steps": 0}])
def test_numbers_must_be_above_nought(values):
    with pytest.raises(RequestError, match="greater than 0"):
        StudySettings(**values)


def test_an_unknown_device_is_refused():
    with pytest.raises(RequestError, match="cpu or cuda"):
        StudySettings(device="tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(RequestError, match="no CUDA device"):
        StudySettings(device="cuda").arguments("x", 0)


def test_what_trainer_refuses_is_said_in_its_words():
    with pytest.raises(RequestError, match="load_best_model_at_end"):
        StudySettings(training_arguments={"load_best_model_at_end": True}).arguments("x", 0)


def test_a_run_sees_its_seed_and_keeps_no_checkpoints():
    arguments = StudySettings(epochs=2, eval_steps=7, device="cpu").arguments("x", 5)
    assert (arguments.seed, arguments.data_seed, arguments.eval_steps) == (5, 5, 7)
    assert (arguments.save_strategy, arguments.report_to, arguments.logging_nan_inf_filter) == ("no", [], False)


def test_the_device_is_not_among_what_decides_the_result():
    assert StudySettings(device="cpu").to_json() == StudySettings().to_json()


def test_the_usual_clock_is_not_stored_so_that_earlier_studies_go_on():
    assert "clock" not in StudySettings().to_json()
    assert StudySettings(clock="processor").to_json()["clock"] == "processor"
    with pytest.raises(RequestError, match="wall or processor"):
        StudySettings(clock="sun")
