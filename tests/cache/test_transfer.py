"""A step that the cache serves never makes the host wait for the device, shown on a simulated device."""

import gc

import pytest
import torch
from accelerate.data_loader import DataLoaderShard
from simulated_device import NAME, DeviceTensor, SimulatedDevice, put_on_device
from training import Sentences, tiny_bert
from transformers import BatchEncoding

from adaptivefreeze import BottomUp, PrefixCache, add_side_network, freeze
from adaptivefreeze.cache import CacheSession, move_batch
from adaptivefreeze.cache.keys import read_batch
from adaptivefreeze.cache.transfer import HOST_COPIES
from adaptivefreeze.side.attach import tap_boundaries
from adaptivefreeze.trainer.hooks import Patches, keep_host_copies

IDS = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0))
FULL = torch.ones_like(IDS)
PADDED = (torch.arange(9) < torch.tensor([[9], [7], [4], [9]])).long()
HOLES = PADDED * (torch.arange(9) != 2)


def batch(mask=PADDED):
    return {"input_ids": IDS.clone(), "attention_mask": mask.clone()}


def outputs(mask, cache, policy, device=None):
    """The outputs of three steps, and what the host read from the device in the last two."""
    model = tiny_bert()
    if policy == "side":
        add_side_network(model, 32, layers=1, dropout=0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found, reads = [], []
    if device is not None:
        put_on_device(model)
    with freeze(model.train(), policy) as run:
        session = CacheSession(cache, model, run.stack, taps=tap_boundaries(model))
        session.move(run.mask)
        for _ in range(3):
            inputs = batch(mask) if device is None else move_batch(batch(mask), NAME)
            if device is not None:
                device.reads.clear()
            logits = model(**inputs).logits.detach()
            found.append(logits if device is None else logits.values)
            reads.append([] if device is None else list(device.reads))
        session.detach()
    assert cache.stats.disabled_reason is None
    assert (cache.stats.misses, cache.stats.hits) == (4, 8)
    return found, reads


@pytest.mark.parametrize(
    ("mask", "precision", "policy"),
    [
        (FULL, "exact", BottomUp(2)),
        (PADDED, "exact", BottomUp(2)),
        (HOLES, "exact", BottomUp(2)),
        (PADDED, "int8", BottomUp(2)),
        (FULL, "exact", "side"),
        (PADDED, "exact", "side"),
    ],
    ids=["full", "padded", "holes", "int8", "side", "side padded"],
)
def test_a_served_step_reads_nothing_from_the_device(mask, precision, policy):
    plain, _ = outputs(mask, PrefixCache(memory="1MB", precision=precision), policy)
    with SimulatedDevice() as device:
        found, reads = outputs(mask, PrefixCache(memory="1MB", precision=precision), policy, device)
    assert reads[0]  # the first step compares and stores
    assert reads[1:] == [[], []]
    for expected, logits in zip(plain, found, strict=True):
        assert torch.allclose(expected, logits, atol=1e-5)


def test_keys_are_those_of_the_host():
    expected = read_batch(batch(), {}, b"")
    with SimulatedDevice() as device:
        moved = move_batch(batch(), NAME)
        assert all(isinstance(value, DeviceTensor) for value in moved.values())
        assert read_batch(moved, {}, b"").keys == expected.keys
        assert not device.reads
        unknown = {name: value.to(NAME) for name, value in batch().items()}
        assert read_batch(unknown, {}, b"").keys == expected.keys
        assert len(device.reads) == 2  # without a pair the tensors are copied back


def test_a_modified_batch_is_read_again():
    with SimulatedDevice():
        source = batch()
        moved = move_batch(source, NAME)
        source["input_ids"].zero_()  # the loader fills its buffer with the next batch
        assert torch.equal(HOST_COPIES.read(moved["input_ids"]), IDS)
        moved["input_ids"][:, 3:].zero_()
        assert HOST_COPIES.find(moved["input_ids"]) is None
        changed = batch()
        changed["input_ids"][:, 3:] = 0
        assert read_batch(moved, {}, b"").keys == read_batch(changed, {}, b"").keys


def test_a_copy_lives_as_long_as_its_tensor():
    with SimulatedDevice():
        moved = move_batch(batch(), NAME)
        gc.collect()  # what other tests left
        assert len(HOST_COPIES._copies) == len(moved)
        moved.clear()
        gc.collect()
        assert len(HOST_COPIES._copies) == 0


@pytest.mark.parametrize("kind", [dict, BatchEncoding])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_of_accelerate_keeps_host_copies(kind, workers):
    def collate(rows):
        return kind({name: torch.stack([row[name] for row in rows]) for name in rows[0]})

    loader = DataLoaderShard(Sentences(8), device="meta", batch_size=4, collate_fn=collate, num_workers=workers)
    patches = Patches()
    keep_host_copies(patches, loader)
    rows = Sentences(8).rows
    for index, moved in enumerate(loader):
        assert type(moved) is kind
        for name, tensor in moved.items():
            assert tensor.is_meta
            expected = torch.stack([row[name] for row in rows[4 * index : 4 * index + 4]])
            assert torch.equal(HOST_COPIES.read(tensor), expected)
    patches.remove()
    assert loader.collate_fn is collate
    assert all(HOST_COPIES.find(value) is None for value in next(iter(loader)).values())
