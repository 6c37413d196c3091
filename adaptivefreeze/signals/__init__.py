"""Measures the signals that a policy needs, and no others.

| name in `needs` | definition |
|---|---|
| `gradients` | norms per unit of Σ g over the optimizer steps since the last decision point. g is the signed gradient of a step: summed over micro-batches as the loss is, averaged over ranks, before clipping, with AMP's loss scale removed. Steps that AMP skips do not count |
| `block gradients` | the same for the blocks only |
| `gradient_changes` | per parameter: mean over its elements of the absolute difference of g between the last two steps |
| `weights` | norms per unit of the weights |
| `weight_changes` | norms per unit of (weights now − weights at the last decision point) |
| `weight_samples` | per unit: 128 of its elements, drawn once, uniformly, with a fixed seed: (now − at the start of training) / root mean square of the 128 at the start |
| `importance` | per unit: −Σ Δw·g over the last step, where Δw is the update by the optimizer |
| `similarities` | per trainable block: G = row-normalized A Aᵀ on a probe batch. A holds the outputs of the block in evaluation mode, (examples, tokens × width), with padding set to 0. The probe batch is the first examples of the first training batch |
| `costs` | predicted cost of a step at each depth, for the batches seen so far. It depends on shapes only, so it is the same in every run |
| `timed costs` | the same, from shapes and from the measured seconds of forward, backward, optimizer and the rest of full steps on this machine, with the time that all steps so far took. It differs from run to run |

Signals are averaged over ranks before a policy receives them. The probe batch, the shapes of batches and the times are
those of rank 0.
"""  # noqa: E501  # a table

from .base import Measure
from .collector import COSTS, MEASURES, SignalCollector

__all__ = ["COSTS", "MEASURES", "Measure", "SignalCollector"]
