"""The time mix of RWKV-7 (arXiv:2503.14456, section 4.1); the glossary stands in `rwkv7`.

Shapes: B batch, T time, D width, H heads, N head size, R rank.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.interface import scan_dtype
from models.backbones.linear import Linear, linear
from models.backbones.token_shift import token_shift
from models.backbones.wkv7 import MAX_CHUNK, wkv7_chunked, wkv7_reference
from models.kernels.available import MAX_HEAD, choose_kernel, fallback

# Decay w = exp(-exp(-1/2) sigmoid(d)), so that a channel keeps at least 0.545 of its state a step.
LOG_DECAY = -math.exp(-0.5)
LN_X_EPS = 64e-5
LOW_RANK = frozenset(("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"))


def orthogonal(rows: int, columns: int) -> nn.Parameter:
    """The second matrix of a low-rank network: orthogonal, scaled by 0.1."""
    weight = torch.empty(rows, columns)
    return nn.Parameter(nn.init.orthogonal_(weight, gain=0.1 * max(1, rows / columns) ** 0.5))


class TimeMix(nn.Module):
    """The recurrent half of a block (paper, section 4.1).

    A transition is diag(w) - c kappa-hat (a kappa-hat)^T. The paper has c = 1, and shows
    eigenvalues in (-1, 1) for every c below 1 + u where no w is below u (appendix C, theorem 1).
    With `negative_eigenvalues` c is 1 + w, channel by channel and step by step: the transition plus
    one is then (1 - kappa-hat (a kappa-hat)^T) diag(1 + w), which has the eigenvalues of a
    symmetric matrix between 0 and 2, so that the transition's lie in [-1, 1], as those of
    arXiv:2411.12537. Where w = 1 it is that paper's 1 - 2 a k k^T. A fixed c = 2 would let states
    grow where w < 1. `reach` is 1 then, else 0: c = 1 + reach w.
    """

    v0: nn.Parameter
    v1: nn.Parameter
    v2: nn.Parameter

    def __init__(
        self,
        *,
        d_model: int,
        head_size: int,
        layer: int,
        n_layers: int,
        decay_rank: int,
        rate_rank: int,
        value_rank: int,
        gate_rank: int,
        negative_eigenvalues: bool,
        chunk: int,
        kernel: str,
    ) -> None:
        super().__init__()
        if not 1 <= chunk <= MAX_CHUNK:
            raise ValueError(f"chunk is {chunk}; allowed are 1 to {MAX_CHUNK}")
        D, N = d_model, head_size
        self.n_heads, self.head_size, self.chunk, self.kernel = D // N, N, chunk, kernel
        self.negative_eigenvalues, self.reach = negative_eigenvalues, float(negative_eigenvalues)
        # The authors' initial values: decay and mixing run from slow to fast over the channels, and
        # over the N channels of a head (zigzag), steeper in later layers.
        depth = layer / max(n_layers - 1, 1)
        remaining = 1 - layer / n_layers
        channel = torch.arange(D) / D
        ramp = torch.arange(D) / max(D - 1, 1)
        within = (torch.arange(D) % N - (N - 1) / 2) / max((N - 1) / 2, 0.5)
        zigzag = within * within.abs()

        def mu(power: float) -> nn.Parameter:
            return nn.Parameter((1 - channel ** (power * remaining)).view(1, 1, D))

        def vector(value: Tensor) -> nn.Parameter:
            return nn.Parameter(value.view(1, 1, D))

        self.x_r, self.x_w, self.x_k = mu(0.2), mu(0.9), mu(0.7)
        self.x_v, self.x_a, self.x_g = mu(0.7), mu(0.9), mu(0.2)
        self.w0 = vector(-5.5 + 6 * ramp ** (1 + depth**0.3) + 2.5 * zigzag)
        self.w1 = nn.Parameter(torch.zeros(D, decay_rank))
        self.w2 = orthogonal(decay_rank, D)
        self.a0 = vector(-0.19 + 0.3 * zigzag + 0.4 * (ramp - 0.5))
        self.a1 = nn.Parameter(torch.zeros(D, rate_rank))
        self.a2 = orthogonal(rate_rank, D)
        self.first = layer == 0
        if not self.first:
            self.v0 = vector(0.73 - 0.4 * (ramp - 0.5))
            self.v1 = nn.Parameter(torch.zeros(D, value_rank))
            self.v2 = orthogonal(value_rank, D)
        self.g1 = nn.Parameter(torch.zeros(D, gate_rank))
        self.g2 = orthogonal(gate_rank, D)
        self.k_k = vector(0.71 - 0.1 * (ramp - 0.5))
        self.k_a = nn.Parameter(torch.full((1, 1, D), 1.02))
        self.r_k = nn.Parameter(torch.full((D // N, N), -0.04))
        self.receptance = Linear(D, D, bias=False)
        self.key = Linear(D, D, bias=False)
        self.value = Linear(D, D, bias=False)
        self.output = Linear(D, D, bias=False)
        self.ln_x = nn.GroupNorm(D // N, D, eps=LN_X_EPS)
        nn.init.uniform_(self.receptance.weight, -0.5 / D**0.5, 0.5 / D**0.5)
        nn.init.uniform_(self.key.weight, -0.05 / D**0.5, 0.05 / D**0.5)
        nn.init.uniform_(self.value.weight, -0.5 / D**0.5, 0.5 / D**0.5)
        nn.init.zeros_(self.output.weight)
        # Not for an optimizer that orthogonalises matrices: r_k is a vector laid out by heads, and
        # a low-rank network would be driven into the flat part of its sigmoid. Nor for weight
        # decay: the authors' trainer decays what is called `.weight`, and these are not.
        for name, parameter in self.named_parameters(recurse=False):
            if name == "r_k" or name in LOW_RANK:
                parameter.no_orthogonal = True  # type: ignore[attr-defined]
                parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(
        self, x: Tensor, last: Tensor, v_first: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), the first block's values, the new matrix state.

        One step goes through the plain recurrence, more through the fused kernel or the chunks.
        """
        B, T, D = x.shape
        heads = (B, T, self.n_heads, self.head_size)
        shifted = token_shift(x, last, self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g)
        x_r, x_w, x_k, x_v, x_a, x_g = (t.view(B * T, D) for t in shifted)  # (B T, D)
        r = self.receptance(x_r).view(heads)
        k = self.key(x_k)
        v = self.value(x_v)
        # w_t = exp(-exp(-1/2) sigmoid(w0 + tanh(x_w w1) w2))
        decay = linear(torch.tanh(linear(x_w, self.w1.t())), self.w2.t(), self.w0.view(D))
        log_w = LOG_DECAY * torch.sigmoid(decay)
        # a_t = sigmoid(a0 + x_a a1 a2)
        a = torch.sigmoid(linear(linear(x_a, self.a1.t()), self.a2.t(), self.a0.view(D)))
        g = linear(torch.sigmoid(linear(x_g, self.g1.t())), self.g2.t())
        # v_t = lerp(v_t, v_t of block 0, sigmoid(v0 + x_v v1 v2))
        if v_first is None:
            v_first = v
        else:
            gate = linear(linear(x_v, self.v1.t()), self.v2.t(), self.v0.view(D)).sigmoid()
            v = torch.lerp(v, v_first, gate)
        # kappa-hat: the removal key, of unit length in each head
        kk = F.normalize((k * self.k_k.view(1, D)).view(heads), dim=-1)
        # k-tilde = k lerp(1, a, alpha)
        k = torch.addcmul(k, k, (a - 1) * self.k_a.view(1, D)).view(heads)
        v, a, log_w = v.view(heads), a.view(heads), log_w.view(heads)  # (B, T, H, N)

        if self.reach:
            a = a * (1 + self.reach * torch.exp(log_w))
        o, state = self._recur(r, log_w, k, v, kk, a, state)
        o = self.ln_x(o.to(x.dtype).reshape(B * T, D)).view(heads)
        # p_t = LayerNorm(S r) + (r (rho k)^T) v: what the present token says of itself
        o = torch.addcmul(o, (r * k * self.r_k).sum(-1, keepdim=True), v).view(B * T, D)
        return self.output(o * g).view(B, T, D), v_first, state

    def _recur(
        self, r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, kk: Tensor, a: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, H, N) and the last state (B, H, N, N), in the type of the state."""
        device, dtype = r.device, r.dtype
        r, log_w, k, v, a, b = (t.to(state.dtype) for t in (r, log_w, k, v, -kk, kk * a))
        with torch.autocast(device.type, enabled=False):
            if r.shape[1] == 1:
                return wkv7_reference(r, log_w, k, v, a, b, state)
            if self.kernel_on(device, dtype) == "numba":
                from models.kernels.wkv7 import wkv7_fused

                return wkv7_fused(r, log_w, k, v, a, b, state)
            return wkv7_chunked(r, log_w, k, v, a, b, state, chunk=self.chunk)

    @property
    def fits_kernel(self) -> bool:
        """The fused kernel's workspace holds a head's state of MAX_HEAD channels a side."""
        return self.head_size <= MAX_HEAD

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """What computes the recurrence there, for a model of that type."""
        return choose_kernel(self.kernel, device, scan_dtype(dtype), fits=self.fits_kernel)

    @property
    def kernel_fallback(self) -> str | None:
        """Why kernel=auto takes the slower form here, where it does."""
        wide = scan_dtype(self.w0.dtype)
        return fallback(self.kernel, self.w0.device, wide, fits=self.fits_kernel)

    def flops(self, batch: int, length: int) -> int:
        """Matrix products: projections, and per head what the recurrence takes.

        Step by step, as the fused kernel and a single symbol go, that is: the state is read at the
        removal key and at the receptance (4 N^2), decays (N^2) and takes two outer products
        (4 N^2). In chunks that is the pairwise products (8 C^2 N a chunk), the solve (C^3 / 3),
        what the solved rows and the outputs take (10 C^2 N), the transition and its input
        (8 C N^2), and the state's own product (2 N^3).
        """
        N, weight = self.head_size, self.receptance.weight
        matrices = sum(
            p.numel() for name, p in self.named_parameters() if p.ndim == 2 and name != "r_k"
        )
        total, heads = 2 * batch * length * matrices, batch * self.n_heads
        if length == 1 or self.kernel_on(weight.device, weight.dtype) == "numba":
            return total + heads * length * 9 * N * N
        C = min(self.chunk, length)
        per_chunk = 18 * C * C * N + C**3 // 3 + 8 * C * N * N + 2 * N**3
        return total + heads * -(-length // C) * per_chunk
