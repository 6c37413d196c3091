"""ValidationDriven: each sentence of its rule, and a real run that freezes, thaws and freezes again."""

import itertools

import pytest
from policies.test_conformance import stack_of
from training import make_trainer, tiny_bert

from adaptivefreeze import FreezeCallback, RequestError, ValidationDriven
from adaptivefreeze.policies import Signals


def depths(policy, values, blocks=4):
    """Frozen blocks after each evaluation."""
    mask, found = policy.initial_mask(stack_of(blocks)), []
    for step, value in enumerate(values, start=1):
        decision = policy.update(Signals(step, 100, 10, step / 10, mask, 1e-3, metrics={"eval_f1": value}))
        if decision is not None:
            assert decision.reason.startswith(f"f1 {value:.4g} ")
            mask = decision.mask
        found.append(max(0, mask.prefix - 1))
    return found


def driven(**fields):
    return ValidationDriven("f1", **{"threshold": 0.02, "cooldown": 0, **fields})


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        ({}, [0.5, 0.6, 0.7, 0.8, 0.9], [1, 2, 3, 4, 4]),
        ({"patience": 1}, [0.5, 0.6, 0.7, 0.8], [0, 1, 1, 2]),
        ({"step": 3}, [0.5, 0.6, 0.7], [3, 4, 4]),
        ({"cooldown": 2}, [0.5, 0.6, 0.7, 0.8], [1, 1, 1, 2]),
        ({}, [0.5, 0.485, 0.47, 0.47], [1, 2, 1, 0]),  # within the threshold it holds
        ({"threshold_mode": "rel", "threshold": 0.1}, [0.5, 0.46, 0.44], [1, 2, 1]),
        ({"mode": "min"}, [0.5, 0.4, 0.5, 0.3], [1, 2, 1, 2]),
        ({"reversals": 1}, [0.5, 0.4, 0.5, 0.4, 0.5, 0.5], [1, 0, 0, 0, 0, 0]),
        ({"reversals": 2}, [0.5, 0.4, 0.5, 0.4, 0.5, 0.5], [1, 0, 1, 0, 0, 0]),
        ({}, [0.5, float("nan"), 0.6], [1, 1, 2]),  # no change until the next finite value
        ({}, [float("nan"), 0.5, 0.4], [0, 1, 0]),
        ({"direction": "thaw"}, [float("inf"), 0.5, 0.5], [4, 4, 3]),
        ({"direction": "thaw"}, [0.5, 0.6, 0.6, 0.6], [4, 4, 3, 2]),
        ({"direction": "thaw", "patience": 1}, [0.5, 0.5, 0.5, 0.5, 0.5], [4, 4, 3, 3, 2]),
        ({"direction": "thaw", "reversals": 1}, [0.5, 0.5, 0.4, 0.5, 0.5], [4, 3, 4, 4, 4]),
    ],
)
def test_its_rule(fields, values, expected):
    assert depths(driven(**fields), values) == expected


def test_it_does_not_swing_for_ever():
    found = depths(driven(reversals=3), [0.5] + [0.4, 0.5] * 100, blocks=7)
    turns = sum(b < a for a, b in itertools.pairwise(found))
    assert turns == 3
    assert len(set(found[20:])) == 1


class Metric:
    """What `compute_metrics` gives at each evaluation in turn."""

    def __init__(self, values):
        self.values = iter(values)

    def __call__(self, prediction):
        return {"f1": next(self.values)}


def test_a_real_run_freezes_thaws_and_freezes_again(tmp_path):
    callback = FreezeCallback(ValidationDriven("f1", cooldown=0, step=2), cache=True)
    trainer = make_trainer(tiny_bert(), tmp_path, [callback], eval_strategy="steps", eval_steps=3, logging_steps=100)
    trainer.compute_metrics = Metric([0.5, 0.4, 0.6, 0.7])
    trainer.train()
    assert [(c.step, str(c.mask), c.reason) for c in callback.timeline] == [
        (0, "- | embeddings 0-3 head", "start"),
        (3, "embeddings+0-1 | 2-3 head", "f1 0.5 holds (best 0.5, threshold 0.005)"),
        (6, "- | embeddings 0-3 head", "f1 0.4 dropped (best 0.5, threshold 0.005)"),
        (9, "embeddings+0-1 | 2-3 head", "f1 0.6 holds (best 0.6, threshold 0.005)"),
        (12, "embeddings+0-3 | head", "f1 0.7 holds (best 0.7, threshold 0.005)"),
    ]


def test_a_metric_of_one_evaluation_set_among_several(tmp_path):
    from training import Sentences

    callback = FreezeCallback(ValidationDriven("eval_second_loss", threshold=10.0))
    trainer = make_trainer(tiny_bert(), tmp_path, [callback], eval_strategy="epoch", logging_steps=100)
    trainer.eval_dataset = {"first": Sentences(4), "second": Sentences(4, seed=2)}
    trainer.train()
    assert [c.step for c in callback.timeline] == [0, 6]


def test_an_unknown_metric_is_refused_before_training(tmp_path):
    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback("validation:bleu")], eval_strategy="epoch")
    with pytest.raises(RequestError, match="decides by bleu, but the Trainer has no compute_metrics") as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert all(p.requires_grad for p in trainer.model.parameters())


def test_a_run_without_evaluations_is_refused(tmp_path):
    with pytest.raises(RequestError, match="there are none: set eval_strategy to 'epoch' or 'steps'"):
        make_trainer(tiny_bert(), tmp_path, [FreezeCallback("validation")]).train()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"patience": -1}, "patience must be a whole number of 0 or more, not -1"),
        ({"cooldown": 0.5}, "cooldown must be a whole number of 0 or more, not 0.5"),
        ({"step": 0}, "step must be a whole number of 1 or more, not 0"),
        ({"reversals": 0}, "reversals must be a whole number of 1 or more, not 0"),
        ({"threshold": -0.1}, "threshold must be a number of 0 or more, not -0.1"),
        ({"mode": "best"}, "mode must be auto, max or min, not 'best'"),
        ({"threshold_mode": "percent"}, "threshold_mode must be abs or rel, not 'percent'"),
        ({"direction": "up"}, "direction must be deeper or thaw, not 'up'"),
        ({"metric": ""}, "metric must be a name that Trainer reports, not ''"),
    ],
)
def test_a_wrong_argument_is_one_sentence(fields, sentence):
    with pytest.raises(RequestError, match=f"validation: {sentence}"):
        ValidationDriven(**fields)
