"""Fine-tuning with Lightning and its callback BackboneFinetuning, on the data and with the evaluation of a Trainer."""

from __future__ import annotations

import logging
from typing import Any

import torch


def fit_with_lightning(trainer: Any) -> float:
    """Train the model of a `TimedTrainer` with Lightning, and return the mean training loss.

    The head trains alone in the first epoch. Then the encoder joins it at a tenth of the rate, which doubles in every
    further epoch, as the callback does by default (by default after ten epochs). The rate has no other schedule:
    torch's schedulers refuse the parameter group that the callback adds. Batches, clipping and evaluation are those of
    the Trainer.
    """
    import lightning
    from lightning.pytorch.callbacks import BackboneFinetuning

    arguments = trainer.args
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = trainer.model
            self.losses: list[float] = []

        @property
        def backbone(self) -> torch.nn.Module:
            return self.model.base_model

        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.model(**batch).loss
            self.losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            trained = [p for p in self.parameters() if p.requires_grad]
            return torch.optim.AdamW(trained, lr=arguments.learning_rate, weight_decay=arguments.weight_decay)

        def on_train_epoch_end(self) -> None:
            trainer.state.epoch, trainer.state.global_step = float(self.current_epoch + 1), self.global_step
            trainer.evaluate()
            self.model.train()

    lightning.seed_everything(arguments.seed, verbose=False)
    module = Module().train()
    fitting = lightning.Trainer(
        accelerator="cpu" if arguments.use_cpu else "auto",
        devices=1,
        max_epochs=round(arguments.num_train_epochs),
        gradient_clip_val=arguments.max_grad_norm,
        callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=1)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = trainer.get_train_dataloader()
    trainer.start_clock()
    fitting.fit(module, batches)
    return sum(module.losses) / len(module.losses)
