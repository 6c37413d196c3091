"""freeze: freezing in a plain PyTorch training loop."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import RequestError
from ..model.blocks import find_blocks
from ..model.freezer import Freezer
from ..policies import Policy, parse_policy


def freeze(
    model: nn.Module,
    policy: Policy | str,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    tower: str | None = None,
    eval_frozen: bool = False,
) -> Freezer:
    """Freeze `model` by `policy`, in a training loop of one's own.

    >>> with freeze(model, BottomUp(6), optimizer=optimizer):  # doctest: +SKIP
    ...     train(model, optimizer)

    The Freezer that is given back can move the mask (`apply`) and ends it (`restore`, or the end of the `with`).
    Raises `RequestError` as `find_blocks`, the policy and `Freezer.apply` do.
    """
    policy = parse_policy(policy)
    stack = find_blocks(model, tower)
    policy.reset()
    mask = policy.initial_mask(stack)
    freezer = Freezer(
        model, stack, optimizer=optimizer, eval_frozen=eval_frozen, keep_optimizer_state=policy.keep_optimizer_state
    )
    try:
        freezer.apply(mask)
    except RequestError:
        freezer.restore()
        raise
    return freezer
