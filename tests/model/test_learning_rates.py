"""Learning rates per unit equal parameter groups made by hand, and kept optimizer state is put back."""

import pytest
import torch
from architectures import ARCHITECTURES
from training import moved, tiny_bert, twin, weights

from adaptivefreeze import FreezeMask, RequestError, find_blocks, freeze
from adaptivefreeze.model.freezer import Freezer

BERT = next(a for a in ARCHITECTURES if a.name == "bert")
FACTORS = {"embeddings": 0.25, "block 0": 0.5, "block 2": 0.0}
OPTIMIZERS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9, weight_decay=0.1),
}


def step(model, optimizer):
    optimizer.zero_grad()
    model.eval()  # no dropout: both models see the same
    model(**BERT.inputs()).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_factors_equal_groups_made_by_hand(name):
    """Under a scheduler, with changes of the factors and of the mask."""
    model = BERT.build()
    other = twin(model)
    stack = find_blocks(model)
    optimizer = OPTIMIZERS[name](model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)
    by_name = dict(other.named_parameters())
    by_hand = OPTIMIZERS[name](
        [{"params": [by_name[p.name] for p in u.parameters], "unit": u.name} for u in stack.units]
    )
    groups = optimizer.param_groups
    with Freezer(model, stack, optimizer=optimizer) as freezer:
        for number, factors in enumerate([{}, FACTORS, FACTORS, {"head": 3.0}, {}]):
            freezer.scale_learning_rates(factors)
            if number == 2:
                freezer.apply(FreezeMask(3, blocks=[1]))
                for parameter in stack.frozen(freezer.mask):
                    by_name[parameter].requires_grad_(False)
                    by_name[parameter].grad = None
            for group in by_hand.param_groups:
                group["lr"] = 1e-2 * 0.5**number * factors.get(group["unit"], 1.0)
            step(model, optimizer)
            step(other, by_hand)
            if number == 2:
                freezer.apply(FreezeMask(3))
                for parameter in by_name.values():
                    parameter.requires_grad_(True)
                for parameter in stack.frozen(FreezeMask(3, blocks=[1])):
                    by_hand.state.pop(by_name[parameter], None)
            scheduler.step()
            assert not moved(weights(model), weights(other)), number
            assert optimizer.param_groups is groups
            assert [len(group["params"]) for group in groups] == [len(by_name)]


def test_what_an_optimizer_stores_in_its_groups_is_kept():
    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                group["steps"] = group.get("steps", 0) + 1
            return super().step(closure)

    model = BERT.build()
    optimizer = Counting(model.parameters(), lr=0.1)
    with Freezer(model, optimizer=optimizer) as freezer:
        freezer.scale_learning_rates({"block 0": 0.5})
        step(model, optimizer)
        step(model, optimizer)
    assert [group["steps"] for group in optimizer.param_groups] == [2]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [
        ({"block 9": 1.0}, "there is no unit 'block 9'.*embeddings, block 0"),
        ({"head": -1.0}, "of head must be 0 or more, not -1.0"),
        ({"head": float("nan")}, "of head must be 0 or more, not nan"),
    ],
)
def test_wrong_factors_are_one_sentence(factors, sentence):
    model = BERT.build()
    with Freezer(model) as freezer, pytest.raises(RequestError, match=sentence):
        freezer.scale_learning_rates(factors)


def test_an_optimizer_without_learning_rate_is_refused():
    from transformers import Adafactor

    model = BERT.build()
    with (
        Freezer(model, optimizer=Adafactor(model.parameters())) as freezer,
        pytest.raises(RequestError, match="Adafactor computes its own learning rate"),
    ):
        freezer.scale_learning_rates({"head": 0.5})


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_kept_optimizer_state_is_put_back_and_other_state_starts_anew(optim):
    found = {}
    for keep in (True, False):
        model = tiny_bert()
        optimizer = OPTIMIZERS[optim](model.parameters())
        with Freezer(model, optimizer=optimizer, keep_optimizer_state=keep) as freezer:
            step(model, optimizer)
            parameter = model.bert.encoder.layer[0].output.dense.weight
            before = {key: value.clone() for key, value in optimizer.state[parameter].items()}
            freezer.apply(FreezeMask.first(4, 2))
            assert parameter not in optimizer.state
            step(model, optimizer)
            saved = {name: value.clone() for name, value in freezer.optimizer_state().items()}
            if keep:
                freezer.load_optimizer_state({**saved, "gradients/other": torch.zeros(1)})
            freezer.apply(FreezeMask(4))
            found[keep] = (
                {key: torch.equal(optimizer.state[parameter][key], before[key]) for key in before} if keep else None
            )
            assert (parameter in optimizer.state) == keep
            assert bool(saved) == keep
            step(model, optimizer)
    assert all(found[True].values())


def test_freeze_scales_in_any_loop():
    model = BERT.build()
    before = weights(model)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with freeze(model, "nothing", optimizer=optimizer) as run:
        run.freezer.scale_learning_rates({unit.name: 0.0 for unit in run.stack.units if unit.name != "head"})
        step(model, optimizer)
        head = {p.name for p in run.stack.units[-1].parameters}
    assert moved(before, weights(model)) == head
