"""Measures what a policy asked for, and nothing else.

| name in `needs` | what it is, exactly |
|---|---|
| `gradients` | norms per unit of Σ g over the optimizer steps since the last moment, g being a step's gradient with its sign, raw: summed over micro-batches as the loss is, averaged over ranks, before clipping, AMP's scale undone; steps that AMP skips do not count |
| `block gradients` | the same, of blocks alone |
| `gradient_changes` | per parameter: mean over its values of the absolute difference of g between the last step and the one before |
| `weights` | norms per unit of the weights as they are |
| `weight_changes` | norms per unit of (weights now − weights at the last moment) |
| `weight_samples` | per unit: 128 of its values, drawn once, uniformly, with a fixed seed: (now − at the start of training) / root mean square of the 128 at the start |
| `importance` | per unit: −Σ Δw·g over the last step, Δw what the optimizer did, g as above |
| `similarities` | per training block: G = row-normalised A Aᵀ on a probe batch, A the block's outputs in eval mode, (examples, tokens × width), zero at padding; the probe batch is the first examples of the first batch that was trained on |
| `costs` | predicted cost of a step at each depth, for the batches seen so far: from their shapes alone, the same in every run |
| `timed costs` | the same, from shapes and from the seconds that forward, backward, optimizer and the rest take in full steps on this machine, and how long all steps so far took; no two runs see quite the same |

All are averaged over ranks before a policy sees them; the probe batch, the shapes of batches and their times are rank 0's.
"""  # noqa: E501  # a table

from .base import Measure
from .collector import COSTS, MEASURES, Watch

__all__ = ["COSTS", "MEASURES", "Measure", "Watch"]
