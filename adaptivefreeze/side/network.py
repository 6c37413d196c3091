"""The side network: a small network that reads hidden states of a frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

HEAD_WIDTH = 32
KERNEL = 5  # tokens


@dataclass(frozen=True)
class SideConfig:
    """Shape of a side network.

    Attributes:
        hidden_size: Width of the model.
        width: Width of the side network, a multiple of 32.
        layers: Number of its layers.
        taps: The blocks whose outputs it reads, from the bottom up. The last block of the model is the last of them.
        causal: Whether a token sees only the tokens before it, as in the model.
        dropout: Probability that a dimension of the hidden states that it reads is set to zero, in all tokens of an
            example.
    """

    hidden_size: int
    width: int
    layers: int
    taps: tuple[int, ...]
    causal: bool
    dropout: float

    def to_json(self) -> dict[str, Any]:
        """Return the shape as plain JSON."""
        return {**asdict(self), "taps": list(self.taps)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SideConfig:
        """Return the shape that `to_json` described."""
        return cls(**{**value, "taps": tuple(value["taps"])})


class SideNetwork(nn.Module):
    """A small network beside a model.

    All hidden states that it reads are normalized, and projected together to its width. A few layers follow. Its output
    is added to the output of the model's last block. The projection back to the model's width starts at zero, so that
    an untrained network changes nothing.

    References: Sung et al. 2022, "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer Learning"
    (arXiv 2206.06522), and, for training on stored hidden states, Ouyang et al. 2024, "Pluto and Charon" (arXiv
    2408.10746). There, each layer reads one hidden state more. Reading all at once took less time for the same quality,
    and the convolutions, which are not in these papers, found the boundaries of entities
    (`benchmarks/results/side_shapes.md`).

    Args:
        config: Its shape.

    Attributes:
        config: Its shape.
        handles: The hooks that connect it to a model.
    """

    def __init__(self, config: SideConfig) -> None:
        super().__init__()
        self.config = config
        self.handles: list[RemovableHandle] = []
        self.down = nn.Linear(config.hidden_size * len(config.taps), config.width)
        # A ModuleList would be taken for a list of blocks.
        self.layers = nn.Sequential(*(SideLayer(config) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.hidden_size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, taps: Sequence[torch.Tensor], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return what is added to the output of the last block.

        Args:
            taps: The outputs of the blocks, each of shape (batch, tokens, hidden).
            mask: For each token the tokens that it sees, of shape (batch, tokens, tokens). None for all, or for all
                before it in a causal network.

        Returns:
            A tensor of shape (batch, tokens, hidden).
        """
        near = _neighbours(taps[-1].shape[1], mask, causal=self.config.causal)
        read = torch.cat([functional.layer_norm(tap, tap.shape[-1:]) for tap in taps], dim=-1)
        if self.training and self.config.dropout:
            # One mask for all tokens of an example: a mask for each token costs more than a layer.
            kept = torch.empty_like(read[:, :1]).bernoulli_(1 - self.config.dropout)
            read = read * (kept / (1 - self.config.dropout))
        state = self.down(read)
        for layer in self.layers:
            state = layer(state, mask, near)
        added: torch.Tensor = self.up(self.norm(state))
        return added


class SideLayer(nn.Module):
    """A depthwise convolution over tokens, attention and a feed-forward part, each on the normalized state.

    Args:
        config: The shape of the network.
    """

    def __init__(self, config: SideConfig) -> None:
        super().__init__()
        width = config.width
        self._heads = width // HEAD_WIDTH
        self._causal = config.causal
        self.convolution_norm = nn.LayerNorm(width)
        self.convolution = nn.Parameter(torch.randn(KERNEL, width) * 0.3)
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, state: torch.Tensor, mask: torch.Tensor | None, near: Sequence[Neighbour]) -> torch.Tensor:
        """Return the next state, of shape (batch, tokens, width).

        Args:
            state: The state below.
            mask: As for `SideNetwork`.
            near: The tokens that the convolution reads.
        """
        batch, tokens, width = state.shape
        normed = self.convolution_norm(state)
        for weight, neighbour in zip(self.convolution, near, strict=True):
            state = state + neighbour.read(normed) * weight
        parts = self.attention_in(self.attention_norm(state)).view(batch, tokens, 3, self._heads, HEAD_WIDTH)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if mask is None else mask[:, None],
            is_causal=self._causal and mask is None,
        )
        state = state + self.attention_out(seen.transpose(1, 2).reshape(batch, tokens, width))
        next_state: torch.Tensor = state + self.feed_forward(state)
        return next_state


@dataclass(frozen=True)
class Neighbour:
    """The token at a distance from each token.

    Attributes:
        distance: Tokens to the right, negative to the left.
        seen: Whether each token sees it, as 0 or 1 of shape (batch, tokens, 1). None if all do that have it.
    """

    distance: int
    seen: torch.Tensor | None

    def read(self, state: torch.Tensor) -> torch.Tensor:
        """Return the state at the distance from each token, or zero, of shape (batch, tokens, width)."""
        tokens = state.shape[1]
        if not self.distance:
            return state
        if abs(self.distance) >= tokens:
            return torch.zeros_like(state)
        shift = (0, 0, 0, self.distance) if self.distance > 0 else (0, 0, -self.distance, 0)
        moved = functional.pad(state, shift)
        moved = moved[:, self.distance :] if self.distance > 0 else moved[:, :tokens]
        return moved if self.seen is None else moved * self.seen.to(state.dtype)


def _neighbours(tokens: int, mask: torch.Tensor | None, *, causal: bool) -> list[Neighbour]:
    """The tokens that a convolution reads: those on both sides and the token itself, or that and those before it."""
    first = 1 - KERNEL if causal else -(KERNEL // 2)
    found = []
    for distance in range(first, first + KERNEL):
        seen = None
        if mask is not None and distance and abs(distance) < tokens:
            diagonal = mask.diagonal(distance, dim1=1, dim2=2)
            seen = functional.pad(diagonal, (0, distance) if distance > 0 else (-distance, 0))[:, :, None]
        found.append(Neighbour(distance, seen))
    return found


def attention_mask(
    tokens: int, padding: torch.Tensor | None, positions: torch.Tensor | None, *, causal: bool
) -> torch.Tensor | None:
    """Return for each token the tokens that it sees.

    Args:
        tokens: Width of the hidden state, at least that of the other arguments.
        padding: 1 for a token and 0 for padding, of shape (batch, tokens).
        positions: Position of each token in its sequence, of shape (batch, tokens). Where it starts again at 0, another
            sequence begins in the same row.
        causal: Whether a token sees only the tokens before it.

    Returns:
        A tensor of shape (batch, tokens, tokens). None if no mask is needed, because every token sees all, or all
        before it in a causal network.
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
    return sees | own  # padding sees itself, so that it has a finite state
