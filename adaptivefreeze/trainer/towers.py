"""blocks_for: the units of a model for a policy. An encoder-decoder model is frozen in its encoder by default."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.discovery import SeveralTowersError, find_blocks
from ..model.mask import FreezeMask
from ..policies import Policy

logger = logging.getLogger(__name__)


def blocks_for(model: nn.Module, tower: str | None, policy: Policy) -> BlockStack:
    """Return the units of a model as `find_blocks` does.

    A model with an encoder and a decoder is frozen in its encoder if no tower is named and the policy begins with a
    frozen prefix, or with nothing. A warning says so.

    Raises:
        RequestError: As `find_blocks`, also if another policy has several towers to choose from.
    """
    try:
        return find_blocks(model, tower)
    except SeveralTowersError:
        encoder = _encoder_path(model)
        if encoder is None:
            raise
        stack = find_blocks(model, encoder)
        if not _is_prefix(policy, stack):
            raise
    logger.warning("%s: %s freezes blocks of its encoder, %s.", stack.model_name, policy, encoder)
    return stack


def _encoder_path(model: nn.Module) -> str | None:
    config: Any = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False):
        return None
    whole: Any = model
    encoder = whole.get_encoder()
    return next((path for path, module in model.named_modules() if module is encoder), None)


def _is_prefix(policy: Policy, stack: BlockStack) -> bool:
    try:
        mask = policy.initial_mask(stack)
    except RequestError:  # it does not fit the encoder
        return False
    depth = stack.depth
    return mask in (FreezeMask(depth), *(FreezeMask.first(depth, k) for k in range(depth + 1)))
