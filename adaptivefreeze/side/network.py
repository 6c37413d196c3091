"""The side network: a small transformer that reads hidden states of a frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from .attach import SideHooks

HEAD_WIDTH = 32


@dataclass(frozen=True)
class SideConfig:
    """Shape of a side network.

    Attributes:
        hidden_size: Width of the model.
        width: Width of the side network, a multiple of 32.
        taps: The blocks whose outputs it reads, from the bottom up. The last block of the model is the last of them.
        causal: Whether a token sees only the tokens before it, as in the model.
        dropout: Probability of dropout on the hidden states that it reads, and in its layers.
    """

    hidden_size: int
    width: int
    taps: tuple[int, ...]
    causal: bool
    dropout: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the shape as plain JSON."""
        return {**asdict(self), "taps": list(self.taps)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SideConfig:
        """Return the shape that `to_json` described."""
        return cls(**{**value, "taps": tuple(value["taps"])})


class SideNetwork(nn.Module):
    """A small transformer beside a model: one layer per tap, each on the sum of the layer below and the tap.

    Its output is added to the output of the model's last block. The projection back to the model's width starts at
    zero, so that an untrained network changes nothing.

    References: Sung et al. 2022, "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer Learning"
    (arXiv 2206.06522), and, for training on stored hidden states, Ouyang et al. 2024, "Pluto and Charon" (arXiv
    2408.10746).

    Args:
        config: Its shape.

    Attributes:
        config: Its shape.
        hooks: What connects it to the model, once it is added to one.
    """

    hooks: SideHooks

    def __init__(self, config: SideConfig) -> None:
        super().__init__()
        self.config = config
        down = [nn.Linear(config.hidden_size, config.width) for _ in config.taps]
        self.down = nn.Sequential(*down)  # a ModuleList would be taken for a list of blocks
        self.layers = nn.Sequential(*(SideLayer(config) for _ in config.taps))
        self.norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        for projection in down:
            nn.init.normal_(projection.weight, std=config.hidden_size**-0.5)
            nn.init.zeros_(projection.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, taps: Sequence[torch.Tensor], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return what is added to the output of the last block.

        Args:
            taps: The outputs of the blocks, each of shape (batch, tokens, hidden).
            mask: For each token the tokens that it sees, of shape (batch, 1, tokens, tokens). None for all, or for all
                before it in a causal network.

        Returns:
            A tensor of shape (batch, tokens, hidden).
        """
        state: torch.Tensor | None = None
        for tap, down, layer in zip(taps, self.down, self.layers, strict=True):
            seen = down(self.dropout(functional.layer_norm(tap, tap.shape[-1:])))
            state = layer(seen if state is None else state + seen, mask)
        added: torch.Tensor = self.up(self.norm(state))
        return added


class SideLayer(nn.Module):
    """A pre-norm transformer layer.

    Args:
        config: The shape of the network.
    """

    def __init__(self, config: SideConfig) -> None:
        super().__init__()
        width = config.width
        self._heads = width // HEAD_WIDTH
        self._causal = config.causal
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, state: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the next state, of shape (batch, tokens, width)."""
        batch, tokens, width = state.shape
        parts = self.attention_in(self.attention_norm(state)).view(batch, tokens, 3, self._heads, HEAD_WIDTH)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=self._causal and mask is None
        )
        state = state + self.dropout(self.attention_out(seen.transpose(1, 2).reshape(batch, tokens, width)))
        next_state: torch.Tensor = state + self.dropout(self.feed_forward(state))
        return next_state


def attention_mask(
    tokens: int, padding: torch.Tensor | None, positions: torch.Tensor | None, *, causal: bool
) -> torch.Tensor | None:
    """Return for each token the tokens that it sees, of shape (batch, 1, tokens, tokens).

    Args:
        tokens: Width of the hidden state, at least that of the other arguments.
        padding: 1 for a token and 0 for padding, of shape (batch, tokens).
        positions: Position of each token in its sequence, of shape (batch, tokens). Where it starts again at 0, another
            sequence begins in the same row.
        causal: Whether a token sees only the tokens before it.

    Returns:
        None if no mask is needed, because every token sees all, or all before it in a causal network.
    """
    sees: torch.Tensor | None = None
    if padding is not None:
        sees = functional.pad(padding.bool(), (0, tokens - padding.shape[1]))[:, None, :]
    if positions is not None:
        sequence = functional.pad((positions == 0).cumsum(1), (0, tokens - positions.shape[1]))
        same = sequence[:, :, None] == sequence[:, None, :]
        sees = same if sees is None else sees & same
    if sees is None:
        return None
    own = torch.eye(tokens, dtype=torch.bool, device=sees.device)
    if causal:
        sees = sees & torch.ones_like(own).tril()
    return (sees | own)[:, None]  # padding sees itself, so that it has a finite state
