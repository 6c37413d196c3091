"""Freezer: frozen parameters do not change, trainable ones change as with flags set by hand, and all is restored."""

import logging

import pytest
import torch
from architectures import ARCHITECTURES
from training import BLOCKS, tiny_bert, twin, weights

from adaptivefreeze import (
    BottomUp,
    FreezeMask,
    Freezer,
    HeadOnly,
    Interleaved,
    Modules,
    Nothing,
    RequestError,
    TopDown,
    find_blocks,
    freeze,
)

STATIC = (
    Nothing(),
    BottomUp(1),
    BottomUp(0.5),
    BottomUp(0.5, embeddings=False),
    TopDown(1),
    TopDown(1, embeddings=True),
    Interleaved(2),
    HeadOnly(),
    Modules("weight"),
)


def steps(model, inputs, optimizer, count=2):
    model.train()
    for _ in range(count):
        torch.manual_seed(5)
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()


def head_can_train(stack, mask):
    return stack.trainable_parameters(mask) > 0


@pytest.mark.parametrize("policy", STATIC, ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_every_policy_on_every_architecture(architecture, policy):
    """Frozen parameters do not change, the others change exactly as with flags set by hand, and flags are restored."""
    model = architecture.build()
    by_hand = twin(model)
    stack = find_blocks(model, architecture.tower)
    mask = policy.initial_mask(stack)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    if not head_can_train(stack, mask):
        with pytest.raises(RequestError, match="leaves nothing to train"):
            freeze(model, policy, tower=architecture.tower)
        assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
        return
    frozen = stack.frozen(mask)
    before = weights(model)
    with freeze(model, policy, tower=architecture.tower) as run:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
        run.freezer.attach_optimizer(optimizer)
        steps(model, architecture.inputs(), optimizer)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags

    for name, parameter in by_hand.named_parameters():
        parameter.requires_grad_(flags[name] and name not in frozen)
    steps(by_hand, architecture.inputs(), torch.optim.AdamW(by_hand.parameters(), lr=1e-2, weight_decay=0.1))
    expected = weights(by_hand)
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]) or name not in frozen
        assert torch.equal(value, expected[name]), name


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.9, weight_decay=0.1),
    "muon": lambda p: torch.optim.Muon([x for x in p if x.dim() == 2], lr=1e-2, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_freezing_during_a_run_stops_a_parameter_at_once(optimizer):
    """Momentum, decay and an existing gradient no longer change it. After thawing it changes again."""
    model = tiny_bert()
    inputs = ARCHITECTURES[0].inputs()
    opt = OPTIMIZERS[optimizer](list(model.parameters()))
    with freeze(model, Nothing(), optimizer=opt) as run:
        steps(model, inputs, opt)
        model(**inputs).loss.backward()
        run.apply(FreezeMask.first(BLOCKS, 2))
        frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
        assert frozen
        assert all(p.grad is None for p in frozen.values())
        assert all(p not in opt.state for p in frozen.values())
        before = weights(model)
        opt.step()
        after = weights(model)
        assert all(torch.equal(before[name], after[name]) for name in frozen)
        assert any(not torch.equal(before[name], after[name]) for name in before)
        assert sum(len(g["params"]) for g in opt.param_groups) == len(
            [p for p in model.parameters() if optimizer != "muon" or p.dim() == 2]
        )
        run.apply(FreezeMask(BLOCKS))
        steps(model, inputs, opt)
        assert not torch.equal(before["bert.encoder.layer.0.output.dense.weight"],
                               weights(model)["bert.encoder.layer.0.output.dense.weight"])  # fmt: skip


def test_an_optimizer_whose_step_fails_gets_its_parameters_back():
    model = tiny_bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    count = len(optimizer.param_groups[0]["params"])
    with freeze(model, BottomUp(2), optimizer=optimizer):
        with pytest.raises(ZeroDivisionError):
            optimizer.step(lambda: 1 / 0)
        model(**ARCHITECTURES[0].inputs()).loss.backward()
        optimizer.step()
    assert len(optimizer.param_groups[0]["params"]) == count


def test_what_the_user_froze_is_never_thawed():
    model = tiny_bert()
    own = [model.bert.embeddings.word_embeddings.weight, model.bert.encoder.layer[3].output.dense.bias]
    for parameter in own:
        parameter.requires_grad_(False)
    with freeze(model, BottomUp(2)) as run:
        for mask in (FreezeMask(BLOCKS), FreezeMask.first(BLOCKS, 1), FreezeMask(BLOCKS)):
            run.apply(mask)
            assert not any(p.requires_grad for p in own)
    assert [p for p in model.parameters() if not p.requires_grad] == own


def test_nothing_is_changed_by_a_mask_that_leaves_nothing_to_train():
    model = tiny_bert()
    with freeze(model, BottomUp(1)) as run:
        flags = [p.requires_grad for p in model.parameters()]
        with pytest.raises(RequestError, match="leaves nothing to train"):
            run.apply(FreezeMask(BLOCKS, embeddings=True, blocks=range(BLOCKS), head=True))
        assert [p.requires_grad for p in model.parameters()] == flags
        assert run.mask == FreezeMask.first(BLOCKS, 1)


def test_one_freezer_per_model():
    model = tiny_bert()
    with freeze(model, BottomUp(1)), pytest.raises(RequestError, match="already being frozen"):
        Freezer(model)
    freeze(model, BottomUp(1)).restore()


@pytest.mark.parametrize("eval_frozen", [False, True])
def test_dropout_of_frozen_units_is_active_unless_eval_frozen(eval_frozen):
    model = tiny_bert().train()
    with freeze(model, BottomUp(2), eval_frozen=eval_frozen):
        seen = {}
        for index, layer in enumerate(model.bert.encoder.layer):
            layer.register_forward_hook(lambda m, a, o, i=index: seen.update({i: m.output.dropout.training}))
        model(**ARCHITECTURES[0].inputs())
        assert seen == {0: not eval_frozen, 1: not eval_frozen, 2: True, 3: True}
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_does_not_undo_the_prefix(reentrant, caplog):
    """It makes the output of the embeddings require a gradient, and the frozen prefix still builds no graph."""
    model = tiny_bert().train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    graph = {}
    for index, layer in enumerate(model.bert.encoder.layer):
        layer.register_forward_hook(lambda m, a, o, i=index: graph.__setitem__(i, _hidden(o).requires_grad))
    with caplog.at_level(logging.WARNING), freeze(model, BottomUp(2)):
        model(**ARCHITECTURES[0].inputs()).loss.backward()
        assert model.bert.encoder.layer[2].output.dense.weight.grad is not None
        assert model.bert.encoder.layer[1].output.dense.weight.grad is None
        assert (graph[0], graph[1], graph[3]) == (reentrant, reentrant, True)
        assert ("Reentrant" in caplog.text) == reentrant
    assert model.get_input_embeddings()._forward_hooks  # as the user had it


def _hidden(output):
    return output[0] if isinstance(output, tuple) else output


def test_the_wrapper_of_accelerate_is_unwrapped():
    from accelerate import Accelerator

    model = tiny_bert()
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2)
    wrapped = Accelerator(cpu=True).prepare_optimizer(inner)
    with freeze(model, Nothing(), optimizer=wrapped) as run:
        steps(model, ARCHITECTURES[0].inputs(), inner)
        run.apply(FreezeMask.first(BLOCKS, 1))
        assert model.bert.encoder.layer[0].output.dense.weight not in inner.state
        assert model.bert.encoder.layer[1].output.dense.weight in inner.state


def test_the_optimizer_of_another_model_is_refused():
    model, other = tiny_bert(), tiny_bert()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for use in (lambda: Freezer(model, optimizer=optimizer), lambda: freeze(model, "bottom-up:1", optimizer=optimizer)):
        with pytest.raises(
            RequestError, match="this SGD trains no parameter of this BertForTokenClassification: build"
        ):
            use()
    assert not optimizer._optimizer_step_pre_hooks
    with freeze(model, "bottom-up:1", optimizer=torch.optim.SGD(model.parameters(), lr=0.1)):
        pass  # the refusal left the model free


def test_a_model_that_the_user_froze_wholly_is_refused():
    model = tiny_bert().requires_grad_(False)
    sentence = (
        "no parameter of this BertForTokenClassification requires a gradient, so nothing would train: set requires"
    )
    with pytest.raises(RequestError, match=sentence):
        freeze(model, "bottom-up:1")
