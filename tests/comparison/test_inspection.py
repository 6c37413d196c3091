"""inspect: units and the predicted cost of each depth, with and without a data set."""

import pytest

from adaptivefreeze import RequestError
from adaptivefreeze.comparison import StudySettings, inspect_model, inspect_task


def test_a_model_is_inspected_from_its_configuration(tiny_folder):
    found = inspect_model(str(tiny_folder / "model"), batch_size=4, tokens=32)
    assert [unit.name for unit in found.stack.units] == ["embeddings", *(f"block {i}" for i in range(4)), "head"]
    assert [depth.k for depth in found.depths] == [0, 1, 2, 3, 4]
    assert (found.depths[0].bottom_up_ratio, found.depths[0].top_down_ratio) == (1.0, 1.0)
    assert found.full_step_seconds > 0
    assert all(depth.bottom_up_cached_ratio < depth.bottom_up_ratio for depth in found.depths[1:])
    assert found.depths[0].bottom_up_trainable == found.stack.total
    for shallow, deep in zip(found.depths, found.depths[1:], strict=False):
        assert deep.bottom_up_ratio < shallow.bottom_up_ratio
        assert deep.top_down_ratio < shallow.top_down_ratio
        assert deep.bottom_up_trainable < deep.top_down_trainable
    assert (found.shape.examples, found.shape.tokens, found.task) == (4, 32, None)


def test_with_a_task_the_head_is_the_tasks_and_the_step_its_own(task):
    found = inspect_task(task, StudySettings(batch_size=8))
    assert found.stack.units[-1].size == 16 * len(task.labels) + len(task.labels)
    assert found.task is task
    assert 5 <= found.shape.tokens <= 8


@pytest.mark.parametrize("name", ["no/such-model", "./nowhere"])
def test_what_is_no_model_is_refused(name):
    with pytest.raises(RequestError, match=name.strip("./")):
        inspect_model(name)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(RequestError, match="not a transformers model"):
        inspect_model(str(tmp_path))


def test_of_several_towers_one_must_be_named(tmp_path):
    from transformers import T5Config

    T5Config(num_layers=2, d_model=16, d_ff=32, num_heads=2, d_kv=8, vocab_size=32).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="encoder"):
        inspect_model(str(tmp_path))
    assert inspect_model(str(tmp_path), tower="encoder").stack.depth == 2


def test_the_time_of_a_step_is_not_measured_where_tokens_are_not_enough(tmp_path):
    from transformers import ViTConfig

    ViTConfig(num_hidden_layers=2, hidden_size=16, intermediate_size=32, num_attention_heads=2).save_pretrained(
        tmp_path
    )
    assert inspect_model(str(tmp_path)).full_step_seconds is None
