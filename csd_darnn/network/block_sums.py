"""What the encoder reads when a block of driving series is exchanged, without reading the others.

With the linear attention the input of the first LSTM layer is, at step t, the sum over series k of
W_k exp(e_k) x_k(t), divided by the sum of exp(e_k), where e_k depends on series k alone. A block
that is exchanged changes its own terms of these two sums and nothing else.

Letters: n windows, S steps, N driving series, m hidden size of the encoder.
Source: specification, section 6.1, fast form.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from inputs.windows import SeriesWindows
from network.modules import Encoder, encode_products
from network.prediction import parts

LEAST_SHARE = 1e-9  # of the attention: less is lost beside the rest in float64


class Part(NamedTuple):
    """The terms of one block: its share of both sums, and what the other series leave of the first.

    ``product`` (n, S, 4m) and ``others`` (n, S, 4m) float32, ``mass`` (n,) float64.
    """

    product: torch.Tensor
    others: torch.Tensor
    mass: torch.Tensor
    size: int


class BlockSums:
    """Both sums of a linear encoder over windows, and what becomes of them.

    Args:
        encoder: Encoder with the linear attention.
        X: (n, S, N) windows in the recording's order of series, a tensor or SeriesWindows.
        slots: (N,) series of every input slot of the encoder, None for the same order.
        blocks: index arrays that hold every series once.
    """

    def __init__(
        self,
        encoder: Encoder,
        X: torch.Tensor | SeriesWindows,
        slots: torch.Tensor | None,
        blocks: Sequence[np.ndarray],
    ):
        lstm = encoder.lstm_layer
        places = torch.arange(X.shape[2], device=X.device)
        if slots is not None:
            places = torch.argsort(slots)
        self.encoder, self.X = encoder, X
        self.weight = (lstm.weight_ih_l0[:, places] * encoder.scale).T.contiguous()  # (N, 4m)
        w_x = encoder.attn_linear.weight[0, 2 * encoder.hidden_size :]
        energy = torch.cat([torch.matmul(w_x, X[part]) for part in parts(len(X))])  # (n, N)
        top = energy.max(dim=1, keepdim=True).values
        self.factor = torch.exp_(energy.sub_(top))  # (n, N), exp of the energy below the highest
        self.top = top[:, 0].double()
        self.product, self.mass = 0.0, 0.0
        for block in blocks:
            product, mass = self._terms(block)
            # In float64, and the very terms that are taken off again.
            self.product = self.product + product.double()
            self.mass = self.mass + mass

    def _terms(self, block):
        series = torch.from_numpy(block).to(self.X.device)
        factor = self.factor[:, series]  # (n, b)
        n, steps, _ = self.X.shape
        weighted = self.X[:, :, series] * factor.unsqueeze(1)  # (n, S, b)
        product = weighted.reshape(n * steps, -1) @ self.weight[series]
        return product.reshape(n, steps, -1), factor.double().sum(dim=1)

    def part(self, block: np.ndarray) -> Part:
        """Return the terms of a block."""
        product, mass = self._terms(block)
        return Part(product, (self.product - product).float(), mass, len(block))

    def leaves_others(self, part: Part) -> bool:
        """Return whether the other series are more than a rounding error beside a block."""
        return bool((self.mass - part.mass > LEAST_SHARE * self.mass).all())

    def whole(self) -> torch.Tensor:
        """Return the input of the first layer (n, S, 4m), biases left out, nothing exchanged."""
        return (self.product / self.mass[:, None, None]).float()

    def exchanged(self, part: Part, order: torch.Tensor) -> torch.Tensor:
        """Return it with the block's series taken from the windows ``order`` (n,)."""
        other = self.top[order]
        high = torch.maximum(self.top, other)
        own, new = torch.exp(self.top - high), torch.exp(other - high)
        mass = (self.mass - part.mass) * own + part.mass[order] * new
        kept, taken = ((scale / mass).float()[:, None, None] for scale in (own, new))
        return torch.addcmul(part.others * kept, part.product[order], taken)

    def zeroed(self, part: Part) -> torch.Tensor:
        """Return it with the block's series set to 0: they keep their share of the attention."""
        high = self.top.clamp_min(0)
        own = torch.exp(self.top - high)
        mass = (self.mass - part.mass) * own + part.size * torch.exp(-high)
        return part.others * (own / mass).float()[:, None, None]

    def encode(self, product: torch.Tensor) -> torch.Tensor:
        """Return the top hidden states (b, S, m) of inputs (b, S, 4m)."""
        return encode_products(self.encoder.lstm_layer, product)
