"""The cache on a CUDA device gives the losses of the CPU, with rows on the device and in pinned memory."""

import pytest
import torch
from training import tiny_bert

from adaptivefreeze import BottomUp, PrefixCache, find_blocks, freeze
from adaptivefreeze.cache import CacheSession

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def losses(device, cache, steps=8):
    model = tiny_bert()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # random numbers differ between devices
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(5, 60, (4, 9), generator=generator).to(device) for _ in range(2)]
    found = []
    with freeze(model, BottomUp(2), optimizer=optimizer) as run:
        if cache:
            session = CacheSession(cache, model, find_blocks(model))
            session.move(run.mask)
        for step in range(steps):
            ids = batches[step % 2]
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids % 3).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        if cache:
            session.detach()
            assert (cache.stats.misses, cache.stats.hits) == (8, 8 * (steps // 2 - 1))
    return found


@pytest.mark.parametrize("memory", [None, 100_000])
def test_cuda_agrees_with_the_cpu(memory):
    plain = losses("cpu", None)
    assert losses("cuda", None) == pytest.approx(plain, rel=1e-4)
    assert losses("cuda", PrefixCache(memory=memory)) == pytest.approx(plain, rel=1e-4)
