"""What a FreezeCallback tells its user during training, and how it is shown without a configuration of logging."""

from __future__ import annotations

import logging
import sys
from typing import Any

from ..cache import PrefixCache
from ..model.blocks import BlockStack
from ..model.cost import StepShape, step_ratio
from ..model.mask import FreezeMask
from ..model.timeline import Change
from ..policies import Policy

logger = logging.getLogger(__name__)


class _Console(logging.Handler):
    """Writes to standard error what no other handler shows, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        above = logger
        while above.propagate and above.parent is not None:
            above = above.parent
            if any(record.levelno >= handler.level for handler in above.handlers):
                return
        line = self.format(record)
        tqdm: Any = sys.modules.get("tqdm")  # transformers has imported it for its progress bar
        if tqdm is None:
            print(line, file=sys.stderr)
        else:
            tqdm.tqdm.write(line, file=sys.stderr)


def show(sentence: str) -> None:
    """Log a message with level INFO, and show it although Python hides that level by default.

    A level that the user set on the logger `adaptivefreeze` is respected.
    """
    if not logger.handlers:
        console = _Console()
        console.setFormatter(logging.Formatter("adaptivefreeze: %(message)s"))
        logger.addHandler(console)
    library = logging.getLogger(__name__.partition(".")[0])
    logger.setLevel(logging.INFO if library.level == logging.NOTSET else logging.NOTSET)
    logger.info("%s", sentence)


def start_message(
    policy: Policy, stack: BlockStack, mask: FreezeMask, shape: StepShape, cache: PrefixCache | None, *, step: int = 0
) -> str:
    """Return what is frozen at the start of a run, what that is predicted to save, and whether the cache is on.

    Args:
        policy: The policy.
        stack: The units of the model.
        mask: The mask in force.
        shape: The assumed shape of a step.
        cache: The cache of the run, if any.
        step: Number of optimizer steps taken, in a run that is resumed.
    """
    verb = f"continues at step {step:,} with" if step else "freezes" if policy.is_static else "starts with"
    return (
        f"{policy} {verb} {_share(stack, mask)}. {_prediction(stack, mask, shape, cache)}. "
        f"{_cache_state(stack, mask, cache, is_static=policy.is_static)}."
    )


def decision_message(
    change: Change, stack: BlockStack, shape: StepShape, cache: PrefixCache | None, *, total_steps: int
) -> str:
    """Return what changed during training, and why."""
    reason = change.reason.rstrip(".") or "no reason given"
    return (
        f"Step {change.step:,} of {total_steps:,}: {reason}. Now {_share(stack, change.mask)}. "
        f"{_prediction(stack, change.mask, shape, cache)}."
    )


def format_duration(seconds: float) -> str:
    """Return a time as text, such as `3 min 20 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def format_size(count: float) -> str:
    """Return a number of bytes as text, such as `1.2 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _share(stack: BlockStack, mask: FreezeMask) -> str:
    return f"{mask} ({stack.frozen_fraction(mask):.0%} of {stack.total:,} parameters frozen)"


def _prediction(stack: BlockStack, mask: FreezeMask, shape: StepShape, cache: PrefixCache | None) -> str:
    text = f"Predicted step time: {step_ratio(stack, mask, shape):.2f} of full fine-tuning"
    if cache is not None and cache.stats.disabled_reason is None and stack.prefix(mask) >= 2:
        text += f", {step_ratio(stack, mask, shape, cached=True):.2f} once the cache is filled"
    return text


def _cache_state(stack: BlockStack, mask: FreezeMask, cache: PrefixCache | None, *, is_static: bool) -> str:
    if cache is None:
        return "Prefix cache off (cache=False)"
    if cache.stats.disabled_reason is not None:
        return f"Prefix cache off: {cache.stats.disabled_reason}"
    if stack.prefix(mask) >= 2:
        return "Prefix cache on"
    if is_static:
        return "Prefix cache off: the embeddings and the first block are not both frozen"
    return "Prefix cache on from the moment the embeddings and the first block are frozen"
