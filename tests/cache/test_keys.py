"""Keys: equal content has an equal key in any batch and width; different content has a different key."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptivefreeze.cache.keys import read_batch

sentences = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=8), min_size=1, max_size=6)


def padded(rows, width, left=False):
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        at = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, at], mask[index, at] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def packed(rows):
    """The rows in one, as the collator of TRL joins them, and the arguments for attention kernels."""
    lengths = torch.tensor([len(row) for row in rows])
    ends = torch.cat([torch.zeros(1), lengths.cumsum(0)]).int()
    tensors = {
        "input_ids": torch.tensor([[token for row in rows for token in row]]),
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows])[None],
    }
    index = torch.repeat_interleave(torch.arange(len(rows), dtype=torch.int32), lengths)[None]
    return tensors, {"cu_seq_lens_q": ends, "max_length_q": int(lengths.max()), "seq_idx": index}


def keys(tensors, rest=None, salt=b""):
    return read_batch(tensors, rest or {}, salt).keys


@given(sentences, st.integers(8, 12), st.integers(8, 12))
@settings(deadline=None)
def test_width_and_other_examples_do_not_matter(rows, one, other):
    apart = [keys(padded([row], other))[0] for row in rows]
    assert list(keys(padded(rows, one))) == apart
    assert len(set(apart)) == len({tuple(row) for row in rows})


def test_every_input_of_the_model_matters():
    base = padded([[5, 6, 7]], 6)
    types = torch.zeros(1, 6, dtype=torch.long)
    others = [
        padded([[5, 6, 8]], 6),
        padded([[5, 6]], 6),
        padded([[5, 6, 7]], 6, left=True),
        {**base, "token_type_ids": types},
        {**base, "token_type_ids": types + torch.tensor([[0, 1, 0, 0, 0, 0]])},
        {**base, "input_ids": base["input_ids"].int()},
        {**base, "attention_mask": torch.tensor([[1, 0, 1, 0, 0, 0]])},
    ]
    found = {keys(base)[0], keys(base, salt=b"bf16")[0], *(keys(other)[0] for other in others)}
    assert len(found) == len(others) + 2
    beyond = {**base, "token_type_ids": types + torch.tensor([[0, 0, 0, 0, 0, 9]])}
    assert keys(beyond) == keys({**base, "token_type_ids": types})  # differs only at padding


def test_images_are_identified_by_their_pixels():
    pixels = torch.randn(3, 3, 4, 4)
    pixels[2] = pixels[0]
    found = keys({"pixel_values": pixels})
    assert found[0] == found[2] != found[1]


def test_a_part_of_a_batch_keeps_its_keys():
    batch = read_batch(padded([[1, 2], [3]], 4), {}, b"")
    assert batch.select([1]).keys == (batch.keys[1],)
    assert batch.padded
    assert not read_batch(padded([[1, 2], [3, 4]], 2), {}, b"").padded


@given(sentences.filter(lambda rows: len(rows) > 1), st.data())
@settings(deadline=None)
def test_packed_examples_keep_their_keys_and_rows_in_other_packs(rows, data):
    chosen = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=2)))
    tensors, packing = packed(rows)
    batch = read_batch(tensors, {}, b"", packing=packing)
    assert (batch.size, batch.height, batch.padded) == (len(rows), 1, False)
    hidden = tensors["input_ids"][..., None] * torch.ones(3)
    assert [batch.row(hidden, index)[:, 0].tolist() for index in range(len(rows))] == rows
    part = batch.select(chosen)
    tensors, packing = packed([rows[index] for index in chosen])
    alone = read_batch(tensors, {}, b"", packing=packing)
    assert part.keys == alone.keys == tuple(batch.keys[index] for index in chosen)
    assert part.spans == alone.spans
    expected, found = alone.arguments(), part.arguments()
    assert found.keys() == expected.keys()
    assert all(torch.equal(torch.as_tensor(found[name]), torch.as_tensor(expected[name])) for name in expected)
    gathered = part.assemble([batch.row(hidden, index) for index in chosen])
    assert torch.equal(gathered[..., 0], tensors["input_ids"].float())


def test_a_row_without_restarting_positions_is_one_example():
    ids, positions = torch.tensor([[5, 6, 7]]), torch.arange(3)[None]
    assert read_batch({"input_ids": ids, "position_ids": positions}, {}, b"").spans is None
    both = {"input_ids": ids.repeat(2, 1), "position_ids": torch.tensor([[0, 1, 0]]).repeat(2, 1)}
    assert read_batch(both, {}, b"").spans is None
