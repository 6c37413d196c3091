"""The cache on a CUDA device gives the losses of the CPU, with rows on the device and in pinned memory."""

import contextlib

import pytest
import torch
from training import tiny_bert

from adaptivefreeze import BottomUp, PrefixCache, find_blocks, freeze
from adaptivefreeze.cache import CacheSession, move_batch
from adaptivefreeze.cache.store import RowStore
from adaptivefreeze.cache.transfer import rows_on

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.fixture(params=["on the device", "in pinned memory"], autouse=True)
def place_of_rows(request, monkeypatch):
    if request.param == "in pinned memory":
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))


@contextlib.contextmanager
def no_waits():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def losses(device, cache, lengths=None, *, served=contextlib.nullcontext, steps=8):
    """The losses of a training on two batches. The forward passes of steps that the cache serves run in `served`."""
    model = tiny_bert()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # random numbers differ between devices
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(2):
        ids = torch.randint(5, 60, (4, 9), generator=generator)
        batches.append({"input_ids": ids, "labels": ids % 3})
        if lengths is not None:
            batches[-1]["attention_mask"] = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    found = []
    with freeze(model, BottomUp(2), optimizer=optimizer) as run:
        if cache:
            session = CacheSession(cache, model, find_blocks(model))
            session.move(run.mask)
        for step in range(steps):
            inputs = move_batch(batches[step % 2], device)
            with served() if step >= 4 else contextlib.nullcontext():
                loss = model(**inputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        if cache:
            session.detach()
            assert (cache.stats.misses, cache.stats.hits) == (8, 8 * (steps // 2 - 1))
    return found


@pytest.mark.parametrize("lengths", [None, (9, 4, 7, 9)], ids=["full", "padded"])
@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_cuda_agrees_with_the_cpu(lengths, precision):
    plain = losses("cpu", PrefixCache(memory="1MB", precision=precision), lengths)
    if precision == "exact":
        assert losses("cuda", None, lengths) == pytest.approx(plain, rel=1e-4)
    assert losses("cuda", PrefixCache(memory="1MB", precision=precision), lengths) == pytest.approx(plain, rel=1e-3)


def test_a_served_forward_pass_does_not_wait():
    # Without an attention mask: transformers reads it on the device.
    assert losses("cuda", PrefixCache(memory="1MB"), served=no_waits) == pytest.approx(losses("cpu", None), rel=1e-4)


def test_rows_in_both_places_are_gathered():
    rows = [torch.randn(3, 8).pin_memory(), torch.randn(2, 8, device="cuda"), torch.randn(5, 8).pin_memory()]
    found = rows_on(rows[1].device, rows)
    assert all(row.is_cuda for row in found)
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(found, rows, strict=True))


def test_a_row_is_complete_when_it_is_read_from_pinned_memory():
    store = RowStore(10**9, pinned=True)
    row = torch.randn(4096, 4096, device="cuda")
    for number in range(4):
        store.put(number.to_bytes(16, "big"), 2, row + number)
    assert torch.equal(store.get((3).to_bytes(16, "big")), (row + 3).cpu())
