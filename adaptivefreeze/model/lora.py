"""lora_above: the configuration of LoRA in the upper blocks of a model only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import RequestError
from ..extras import missing_extra
from .discovery import find_blocks

if TYPE_CHECKING:
    from peft import LoraConfig


def lora_above(model: nn.Module, k: int, *, tower: str | None = None, **lora_options: Any) -> LoraConfig:
    """Return a LoRA configuration (Hu et al. 2021) that adapts every linear layer of blocks `k` and above.

    PEFT freezes the blocks below. `FreezeCallback("nothing", cache=True)` then skips them for examples seen before.

    Example:
        ```python
        adapted = get_peft_model(model, lora_above(model, 22, r=16, lora_alpha=32, task_type="CAUSAL_LM"))
        freezing = FreezeCallback("nothing", cache=True)
        trainer = Trainer(model=adapted, args=args, train_dataset=train, callbacks=[freezing])
        trainer.train()
        ```

    Args:
        model: The model that adapters will be added to, a transformers model.
        k: Number of blocks without adapters, counted from the bottom.
        tower: The tower to use in a model with several, as in `find_blocks`.
        lora_options: Other arguments of PEFT's `LoraConfig`, such as `r` and `lora_alpha`.

    Raises:
        ImportError: If PEFT is not installed.
        RequestError: If `k` leaves no block, if `lora_options` choose layers themselves, if the model has adapters
            already, or if the blocks have no linear layer.
    """
    sentence = missing_extra("peft", "lora_above")
    if sentence:
        raise ImportError(sentence)
    from peft import LoraConfig, PeftModel

    chosen = sorted({"target_modules", "layers_to_transform", "layers_pattern"} & lora_options.keys())
    if chosen:
        raise RequestError(f"lora_above chooses layers itself: leave out {' and '.join(chosen)}, or use LoraConfig.")
    if isinstance(model, PeftModel):
        raise RequestError("lora_above takes the model before get_peft_model: this one has adapters already.")
    stack = find_blocks(model, tower)
    if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < stack.depth:
        raise RequestError(
            f"k must be a whole number from 0 to {stack.depth - 1}, the number of blocks without adapters, not {k!r}."
        )
    blocks = tuple(f"{path}." for block in stack.blocks[k:] for path in block.modules)
    linear = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    targets = [name for name in linear if name.startswith(blocks)]
    if not targets:
        raise RequestError(f"blocks {k} and above of {stack.model_name} have no linear layer to adapt.")
    # Whole names, not a regular expression: PEFT replaces one by the last parts of names in some mixtures of experts.
    return LoraConfig(target_modules=targets, **lora_options)
