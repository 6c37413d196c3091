"""FreezeCallback in a real Trainer: equal to flags set by hand, under all features of the Trainer."""

import pytest
import torch
from training import BLOCKS, Sentences, losses, make_trainer, moved, tiny_bert, weights
from transformers import Trainer, TrainerCallback

from adaptivefreeze import BottomUp, FreezeCallback, HeadOnly, Nothing, RequestError, find_blocks

SETTINGS = {
    "adamw": {"optim": "adamw_torch"},
    "sgd": {"optim": "sgd", "optim_args": "momentum=0.9"},
    "adafactor": {"optim": "adafactor"},
    "accumulation": {"gradient_accumulation_steps": 2},
    "clipping": {"max_grad_norm": 0.01},
    "bf16": {"bf16": True},
    "all": {"optim": "sgd", "optim_args": "momentum=0.9", "gradient_accumulation_steps": 3, "bf16": True},
}


def by_hand(model, policy):
    stack = find_blocks(model)
    frozen = stack.frozen(policy.initial_mask(stack))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return frozen


@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_flags_set_by_hand(tmp_path, settings):
    """Losses and trainable weights are bit-identical, and frozen weights do not change."""
    model = tiny_bert()
    before = weights(model)
    trainer = make_trainer(model, tmp_path, [FreezeCallback(BottomUp(2))], **SETTINGS[settings])
    trainer.train()

    other = tiny_bert()
    frozen = by_hand(other, BottomUp(2))
    reference = make_trainer(other, tmp_path, **SETTINGS[settings])
    reference.train()

    assert losses(trainer) == losses(reference)
    assert moved(weights(model), weights(other)) == set()
    assert not moved(before, weights(model)) & frozen
    assert moved(before, weights(model)) == set(before) - frozen


class _EvalUnits(TrainerCallback):
    """Puts the frozen units into evaluation mode before each training forward pass."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        def put(*_):
            if model.training:
                for module in (model.bert.embeddings, *model.bert.encoder.layer[:2]):
                    module.eval()

        model.register_forward_pre_hook(put)


def test_eval_frozen_equals_eval_mode_set_by_hand(tmp_path):
    model, other = tiny_bert(), tiny_bert()
    trainer = make_trainer(model, tmp_path, [FreezeCallback(BottomUp(2), eval_frozen=True)])
    trainer.train()
    by_hand(other, BottomUp(2))
    reference = make_trainer(other, tmp_path, [_EvalUnits()])
    reference.train()
    assert losses(trainer) == losses(reference)
    assert not moved(weights(model), weights(other))

    plain = make_trainer(tiny_bert(), tmp_path, [FreezeCallback(BottomUp(2))])
    plain.train()
    assert losses(plain) != losses(trainer)  # evaluation mode makes a difference


def test_nothing_equals_no_callback(tmp_path):
    model, other = tiny_bert(), tiny_bert()
    trainer = make_trainer(model, tmp_path, [FreezeCallback(Nothing())])
    trainer.train()
    reference = make_trainer(other, tmp_path)  # created after the first run, because it sets the seed
    reference.train()
    assert losses(trainer) == losses(reference)
    assert not moved(weights(model), weights(other))


def test_every_log_line_contains_the_summary(tmp_path):
    shown = []

    class Shown(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            shown.append(dict(logs))

    # A reporting integration runs before the user's callbacks, and must receive the values too.
    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback(BottomUp(1))], eval_strategy="epoch")
    trainer.callback_handler.callbacks.insert(0, Shown())
    trainer.train()
    stack = find_blocks(trainer.model)
    mask = BottomUp(1).initial_mask(stack)
    assert len(shown) >= 14
    for line in [*shown, *trainer.state.log_history]:
        assert line["freeze/frozen_blocks"] == 1
        assert line["freeze/frozen_fraction"] == pytest.approx(1 - stack.trainable_parameters(mask) / stack.total)
        assert line["freeze/trainable_parameters"] == stack.trainable_parameters(mask)
    assert "log" not in vars(trainer)


@pytest.mark.parametrize(
    ("policy", "blocks"), [("nothing", 0), ("bottom-up:2", 2), ("top-down:3", 3), ("head-only", 4), ("modules:bias", 0)]
)
def test_frozen_blocks_are_blocks_frozen_whole_at_any_position(tmp_path, policy, blocks):
    callback = FreezeCallback(policy)
    assert callback.log_values() == {}
    make_trainer(tiny_bert(), tmp_path, [callback], max_steps=1).train()
    assert callback.log_values()["freeze/frozen_blocks"] == blocks


def test_mask_timeline_and_stack_after_training(tmp_path):
    callback = FreezeCallback("bottom-up:0.5")
    make_trainer(tiny_bert(), tmp_path, [callback]).train()
    assert str(callback.mask) == "embeddings+0-1 | 2-3 head"
    assert callback.stack.depth == BLOCKS
    (change,) = callback.timeline
    assert (change.step, str(change.mask), change.reason) == (0, "embeddings+0-1 | 2-3 head", "static")


@pytest.mark.parametrize("restore", [True, False])
def test_flags_are_restored_at_the_end(tmp_path, restore):
    model = tiny_bert()
    model.bert.encoder.layer[3].output.dense.bias.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    make_trainer(model, tmp_path, [FreezeCallback(BottomUp(2), restore=restore)]).train()
    assert ([p.requires_grad for p in model.parameters()] == flags) == restore


class _Fails(TrainerCallback):
    def __init__(self, event):
        self.event = event

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "event"):
            raise KeyboardInterrupt
        return object.__getattribute__(self, name)


@pytest.mark.parametrize("event", ["on_step_end", "on_optimizer_step", "on_evaluate", "on_epoch_end"])
def test_flags_are_restored_after_an_exception(tmp_path, event):
    model = tiny_bert()
    trainer = make_trainer(model, tmp_path, [FreezeCallback(BottomUp(2)), _Fails(event)], eval_strategy="epoch")
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert all(p.requires_grad for p in model.parameters())
    trainer.remove_callback(_Fails)
    trainer.train()
    assert all(p.requires_grad for p in model.parameters())


class _Breaks(Trainer):
    def training_step(self, *args, **kwargs):
        raise FloatingPointError("loss is NaN")


@pytest.mark.parametrize("used_before", [False, True])
def test_flags_are_restored_after_an_exception_when_the_callback_was_added_later(tmp_path, used_before):
    model = tiny_bert()
    callback = FreezeCallback(BottomUp(2))
    if used_before:
        make_trainer(tiny_bert(), tmp_path, [callback], max_steps=1).train()
    trainer = make_trainer(model, tmp_path, cls=_Breaks)
    trainer.add_callback(callback)
    with pytest.raises(FloatingPointError):
        trainer.train()
    assert all(p.requires_grad for p in model.parameters())
    assert "training_step" not in vars(trainer)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"restore": 1}, "restore must be True or False, not 1"),
        ({"eval_frozen": "no"}, "eval_frozen must be True or False, not 'no'"),
        ({"cache": "4GiB"}, "cache must be True, False or a PrefixCache, not '4GiB'"),
        ({"tower": 3}, "tower must be the path of a module, not 3"),
    ],
)
def test_wrong_arguments_are_refused_in_the_constructor(arguments, sentence):
    with pytest.raises(RequestError, match=sentence):
        FreezeCallback(BottomUp(2), **arguments)


def test_a_second_callback_is_refused(tmp_path):
    model = tiny_bert()
    trainer = make_trainer(model, tmp_path, [FreezeCallback(BottomUp(2)), FreezeCallback(BottomUp(1))])
    before = weights(model)
    with pytest.raises(RequestError, match="has 2 FreezeCallbacks: keep one"):
        trainer.train()
    assert not moved(before, weights(model))
    assert all(p.requires_grad for p in model.parameters())


def test_a_policy_that_does_not_fit_is_refused_before_the_first_step(tmp_path):
    model = tiny_bert()
    before = weights(model)
    with pytest.raises(RequestError, match="depth 5 is out of range, this model has 4 blocks"):
        make_trainer(model, tmp_path, [FreezeCallback("bottom-up:5")]).train()
    model.classifier.requires_grad_(False)
    with pytest.raises(RequestError, match="leaves nothing to train"):
        make_trainer(model, tmp_path, [FreezeCallback(HeadOnly())]).train()
    assert not moved(before, weights(model))


def test_several_train_calls(tmp_path):
    model, other = tiny_bert(), tiny_bert()
    frozen = by_hand(other, BottomUp(2))
    before = weights(model)
    trainer = make_trainer(model, tmp_path, [FreezeCallback(BottomUp(2))])
    trainer.train()
    trainer.train()
    reference = make_trainer(other, tmp_path)
    reference.train()
    reference.train()
    assert not moved(weights(model), weights(other))
    assert not moved(before, weights(model)) & frozen


def test_each_trial_of_a_hyperparameter_search_starts_anew(tmp_path):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    callback = FreezeCallback(BottomUp(2))
    trainer = make_trainer(tiny_bert(), tmp_path, [callback], num_train_epochs=1, eval_strategy="epoch")
    trainer.model_init = lambda trial=None: tiny_bert()
    timelines = []

    def objective(metrics):
        timelines.append(callback.timeline.to_json())
        return metrics["eval_loss"]

    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2)},
        compute_objective=objective,
        n_trials=3,
        direction="minimize",
        backend="optuna",
    )
    assert best.objective > 0
    assert len(timelines) == 3
    assert all(len(timeline) == 1 for timeline in timelines)


def test_the_depth_can_be_searched_inside_hyperparameter_search(tmp_path):
    """`model_init` receives the trial, and sets the policy of the callback."""
    callback = FreezeCallback(Nothing())
    trainer = make_trainer(tiny_bert(), tmp_path, [callback], num_train_epochs=1, eval_strategy="epoch")
    depths = []

    def model_init(trial=None):
        if trial is not None:
            callback.policy = BottomUp(trial.suggest_int("depth", 0, BLOCKS))
            depths.append((callback.policy.k, None))
        return tiny_bert()

    trainer.model_init = model_init
    trainer.hyperparameter_search(
        hp_space=lambda trial: {},
        compute_objective=lambda metrics: metrics["eval_loss"],
        n_trials=2,
        direction="minimize",
        backend="optuna",
    )
    assert callback.timeline[0].mask == callback.policy.initial_mask(callback.stack)
    assert len(depths) >= 2


def test_works_in_sentence_transformers(tmp_path):
    st = pytest.importorskip("sentence_transformers")
    datasets = pytest.importorskip("datasets")
    from sentence_transformers.sentence_transformer import losses
    from transformers import BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path / "model"
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    BertModel(tiny_bert().config).save_pretrained(folder)
    model = st.SentenceTransformer(str(folder), device="cpu")  # a plain encoder, to which mean pooling is added
    rows = datasets.Dataset.from_dict({"anchor": ["a b", "c d", "e f", "g h"], "positive": ["a", "c d d", "e", "h g"]})
    before = weights(model)
    callback = FreezeCallback(BottomUp(2))
    st.SentenceTransformerTrainer(
        model=model,
        args=st.SentenceTransformerTrainingArguments(
            str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=2, report_to="none",
            disable_tqdm=True, use_cpu=True, save_strategy="no",
        ),
        train_dataset=rows,
        loss=losses.MultipleNegativesRankingLoss(model),
        callbacks=[callback],
    ).train()  # fmt: skip
    frozen = callback.stack.frozen(callback.mask)
    assert frozen
    assert not moved(before, weights(model)) & frozen
    assert moved(before, weights(model))


def test_works_in_trl_sft(tmp_path):
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from architectures import ARCHITECTURES
    from transformers import BertTokenizerFast

    model = next(a for a in ARCHITECTURES if a.name == "llama").build()
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"), eos_token="[SEP]")
    before = weights(model)
    callback = FreezeCallback(BottomUp(1))
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=2, report_to="none",
            disable_tqdm=True, use_cpu=True, bf16=False, save_strategy="no", max_length=16, gradient_checkpointing=True,
        ),
        train_dataset=datasets.Dataset.from_dict({"text": ["a b c", "c d e", "e f g", "g h a"]}),
        processing_class=tokenizer,
        callbacks=[callback],
    )  # fmt: skip
    trainer.train()
    frozen = callback.stack.frozen(callback.mask)
    assert frozen
    assert not moved(before, weights(model)) & frozen
    assert moved(before, weights(model)) == set(before) - frozen


def test_a_streamed_data_set(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from Sentences().rows

    callback = FreezeCallback(BottomUp(2))
    model = tiny_bert()
    before = weights(model)
    make_trainer(model, tmp_path, [callback], train_dataset=Stream(), max_steps=4).train()
    assert not moved(before, weights(model)) & callback.stack.frozen(callback.mask)


def test_a_metric_that_no_evaluation_can_report_is_refused_before_the_first_step(tmp_path):
    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback("validation:metric=f1")], eval_strategy="epoch")
    with pytest.raises(RequestError, match="decides by f1, but the Trainer has no compute_metrics"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_near_miss_of_a_metric_is_suggested(tmp_path):
    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback("validation:metric=f1")], eval_strategy="epoch")
    trainer.compute_metrics = lambda evaluated: {"macro_f1": 0.5, "accuracy": 0.5}
    with pytest.raises(RequestError, match=r"no evaluation reports 'f1'; there are .*\. Did you mean macro_f1\?"):
        trainer.train()
