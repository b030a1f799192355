"""The parts of attention: rotary positions, the kernels, the key-value cache.

RoFormer (arXiv:2104.09864) for positions. The kernels of the parallel form: `eager` is the plain
equation; `sdpa` is torch's `scaled_dot_product_attention`, which runs FlashAttention
(arXiv:2205.14135) where it can, and our fused kernel where that is faster on a CPU; `sdpa_flash`
and `sdpa_efficient` are that kernel of torch's or none; `flex` is FlexAttention (arXiv:2412.05496);
`flash_attn` is the package of FlashAttention-2 (arXiv:2307.08691).

Shapes: B batch, T queries, S keys, H query heads, K key-value heads, d head width.
"""

import contextlib
import importlib.util
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils._python_dispatch import _disable_current_modes, is_in_torch_dispatch_mode

from models.kernels.available import fuses
from models.kernels.views import Pair

KERNELS = ("eager", "sdpa", "flex", "sdpa_flash", "sdpa_efficient", "flash_attn")
OF_TORCH = {
    "sdpa_flash": SDPBackend.FLASH_ATTENTION,
    "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
}
SHORT_TYPES = (torch.float16, torch.bfloat16)
WIDEST_HEAD = 256  # of FlashAttention on CUDA
SHORTEST = 128  # queries; below, torch's kernel is the faster one


class Rope(nn.Module):
    """Table of cosines and signed sines, made longer when a position beyond it is asked for."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, theta: float) -> None:
        super().__init__()
        self.head_dim, self.theta = head_dim, theta
        cos, sin = self._table(512, None)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _table(self, length: int, device: torch.device | None) -> tuple[Tensor, Tensor]:
        # theta_i = theta^(-2i/d), eq. 15 of RoFormer, in float32 whatever the model's type.
        even = torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float32)
        inv_freq = 1.0 / self.theta ** (even / self.head_dim)  # (d/2,)
        positions = torch.arange(length, device=device, dtype=torch.float32)
        angle = torch.outer(positions, inv_freq).unsqueeze(1)  # (length, 1, d/2)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)  # (length, 1, d)

    def forward(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Rows of the positions start..stop-1, each (T, 1, d): they broadcast over heads."""
        if stop > self.cos.shape[0]:
            cos, sin = self._table(max(stop, 2 * self.cos.shape[0]), self.cos.device)
            self.cos, self.sin = cos.to(self.cos.dtype), sin.to(self.sin.dtype)
        return self.cos[start:stop], self.sin[start:stop]


class _Rotate(torch.autograd.Function):
    # Autograd would roll whole copies. The backward of a turn is the turn by the opposite angle.
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.sign = sign  # type: ignore[attr-defined]
        y = x * cos
        half = x.shape[-1] // 2
        y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=sign)
        y[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors  # type: ignore[attr-defined]
        return _Rotate.apply(grad, cos, sin, -ctx.sign), None, None, None  # type: ignore[attr-defined]


def _turns(x: Tensor, cos: Tensor) -> bool:
    """Whether it is (B, T, H, d) and (T, 1, d), as the kernel reads them; torch takes more."""
    table = (x.shape[1], 1, x.shape[-1]) if x.dim() == 4 else None
    return table == cos.shape and x.shape[-1] % 2 == 0 and x.dtype == cos.dtype


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (x_i, x_{i+d/2}) by their angle, eq. 34 of RoFormer.

    x (B, T, H, d), and a table of T rows, (T, 1, d): -> (B, T, H, d).
    """
    if x.requires_grad:
        if fuses(x) and _turns(x, cos):
            from models.kernels.rotary import rotate_fused

            return rotate_fused(x, cos, sin)
        y: Tensor = _Rotate.apply(x, cos, sin, 1)
        return y
    # Rolling by half the width is `rotate_half` without its sign, which `sin` carries.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


@cache
def _block_mask(queries: int, keys: int, device: torch.device) -> BlockMask:
    past = keys - queries
    return create_block_mask(
        lambda b, h, i, j: i + past >= j, None, None, queries, keys, device=str(device)
    )


@cache
def _compiled_flex() -> object:
    return torch.compile(flex_attention)


def training_problem(kernel: str, device: torch.device) -> str | None:
    """Why a kernel has no gradients there, in one sentence, or None."""
    if kernel == "flex" and device.type == "cpu":
        return "attention=flex has no backward on cpu; use attention=sdpa or eager"
    return None


def kernel_problem(
    kernel: str, device: torch.device, dtype: torch.dtype, head_dim: int
) -> str | None:
    """Why a kernel cannot attend there, in one sentence, or None."""
    kind, cuda = str(dtype).removeprefix("torch."), device.type == "cuda"
    where = f"attention={kernel} on {device.type} in {kind}"
    cure = "use attention=sdpa"
    if kernel == "flash_attn" and importlib.util.find_spec("flash_attn") is None:
        return (
            f"{where}: flash_attn is not installed; pip install --no-build-isolation flash-attn, "
            f"or {cure}"
        )
    if kernel in ("sdpa_efficient", "flash_attn") and not cuda:
        return f"{where}: it runs on CUDA alone; {cure}"
    if kernel == "sdpa_flash" and device.type not in ("cpu", "cuda"):
        return f"{where}: it runs on a CPU and on CUDA alone; {cure}"
    if kernel == "flash_attn" or (kernel == "sdpa_flash" and cuda):
        if dtype not in SHORT_TYPES:
            return f"{where}: on CUDA it runs in float16 or bfloat16 alone; {cure}"
        if head_dim > WIDEST_HEAD:
            return f"{where}: a head is {head_dim} wide, and it holds at most {WIDEST_HEAD}; {cure}"
    return None


def _type_of(q: Tensor) -> torch.dtype:
    """In which torch attends."""
    kind = q.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else q.dtype


def _lower_right(queries: int, keys: int, device: torch.device) -> Tensor:
    """Which keys a query sees, (T, S): the last one sees all of them."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def _attend_by_torch(q: Tensor, k: Tensor, v: Tensor, *, kernel: str, causal: bool) -> Tensor:
    """By one kernel of `scaled_dot_product_attention`, which raises where it cannot."""
    queries, keys, groups = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    if groups > 1:  # not every kernel takes groups, with and without a mask
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)  # (B, H, S, d)
    seen: Tensor | None = None
    if causal and queries != keys:
        if kernel == "sdpa_flash" and q.is_cuda:  # it takes no mask, but knows this one
            seen = causal_lower_right(queries, keys)
        else:
            seen = _lower_right(queries, keys, q.device)
    with sdpa_kernel(OF_TORCH[kernel]):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=causal and seen is None
        )


def _attend_by_package(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """By flash_attn, which takes groups, and puts the last query at the last key."""
    from flash_attn import flash_attn_func

    dtype = _type_of(q)
    q, k, v = (t.transpose(1, 2).to(dtype) for t in (q, k, v))  # (B, T or S, H or K, d)
    y: Tensor = flash_attn_func(q, k, v, causal=causal)
    return y.transpose(1, 2)


def _fit(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return (
        q.dim() == k.dim() == 4
        and k.shape == v.shape
        and q.shape[::3] == k.shape[::3]  # B and d
        and k.numel() > 0
        and q.shape[1] % k.shape[1] == 0
        and q.dtype == k.dtype == v.dtype
        and k.is_cpu
        and v.is_cpu
    )


def in_kernel(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether our kernel is the faster one for causal attention over (B, H or K, T or S, d)."""
    return (
        fuses(q, inference=True)
        and _fit(q, k, v)  # torch says in its own words what does not
        and SHORTEST <= q.shape[2] <= k.shape[2]
        # In the backward a thread takes a key-value head: with fewer of them than threads, torch
        # keeps more of these busy.
        and k.shape[0] * k.shape[1] >= torch.get_num_threads()
        and not torch.is_autocast_enabled("cpu")
    )


def attend(q: Tensor, k: Tensor, v: Tensor, *, kernel: str, causal: bool) -> Tensor:
    """Attention of (B, H, T, d) over (B, K, S, d), K a divisor of H: -> (B, H, T, d).

    With `causal` the last query sits at the last key: query i sees keys 0 .. S-T+i.
    """
    queries, keys = q.shape[2], k.shape[2]
    if problem := kernel_problem(kernel, q.device, _type_of(q), q.shape[-1]):
        raise ValueError(problem)
    if kernel in OF_TORCH:
        return _attend_by_torch(q, k, v, kernel=kernel, causal=causal)
    if kernel == "flash_attn":
        return _attend_by_package(q, k, v, causal=causal)
    if kernel == "flex":
        if q.requires_grad and (problem := training_problem(kernel, q.device)):
            raise ValueError(problem)
        mask = _block_mask(queries, keys, q.device) if causal else None
        run = _compiled_flex() if q.is_cuda else flex_attention
        # Torch cannot run it under a counter of operators, which then does not see it.
        counted = is_in_torch_dispatch_mode()
        with _disable_current_modes() if counted else contextlib.nullcontext():
            return run(q, k, v, block_mask=mask, enable_gqa=True)  # type: ignore[operator]
    if kernel == "sdpa" and causal and in_kernel(q, k, v):
        from models.kernels.causal_attention import attend_fused

        return attend_fused(q, k, v)
    if kernel == "sdpa" and (queries == keys or not causal):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    seen = None
    if causal:
        seen = _lower_right(queries, keys, q.device)
    if kernel == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
    # softmax(Q K^T / sqrt(d)) V, eq. 1 of arXiv:1706.03762.
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)  # (B, H, S, d)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, H, T, S)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ v


class KVCache:
    """Keys and values of one layer, written in place into room that grows by `BLOCK` positions.

    `start` moves forward when old positions are forgotten; what is kept moves to fresh room when
    the end is reached. Where gradients flow through the keys nothing is overwritten, since autograd
    holds on to what it has seen: the cache is then concatenated anew.
    """

    BLOCK = 64

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v  # (B, K, room, d)
        self.start, self.stop = 0, k.shape[2]

    @classmethod
    def capacity_for(cls, length: int) -> int:
        """Room that is allocated for `length` positions."""
        return -(-length // cls.BLOCK) * cls.BLOCK

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, K, T, d) at the end; all keys and values that are kept, (B, K, S, d)."""
        if k.requires_grad or v.requires_grad:
            self.k = torch.cat((self.k[:, :, self.start : self.stop], k), 2)
            self.v = torch.cat((self.v[:, :, self.start : self.stop], v), 2)
            self.start, self.stop = 0, self.k.shape[2]
            return self.k, self.v
        self.reserve(k.shape[2])
        stop = self.stop + k.shape[2]
        self.k[:, :, self.stop : stop] = k
        self.v[:, :, self.stop : stop] = v
        self.stop = stop
        return self.k[:, :, self.start : stop], self.v[:, :, self.start : stop]

    def reserve(self, count: int) -> None:
        """Make sure that `count` positions more have a place."""
        if self.stop + count > self.k.shape[2]:
            self._make_room(count)

    def place(self) -> tuple[Pair, tuple[int, int]]:
        """Room for one position more, which counts as kept from now on.

        Returns the first sequence's keys and values (K, room, d), and of the positions the oldest
        that is kept and the new one.
        """
        self.reserve(1)
        self.stop += 1
        return (self.k.numpy()[0], self.v.numpy()[0]), (self.start, self.stop - 1)

    def crop(self, length: int) -> None:
        """Keep the last `length` positions."""
        self.start = max(self.start, self.stop - length)

    def _make_room(self, count: int) -> None:
        kept = self.stop - self.start
        shape = list(self.k.shape)
        # A window that slides needs a block to spare, or every step would move it.
        spare = self.BLOCK if self.start else 0
        shape[2] = self.capacity_for(kept + count + spare)
        for name in ("k", "v"):
            old: Tensor = getattr(self, name)
            new = old.new_empty(shape)
            new[:, :, :kept] = old[:, :, self.start : self.stop]
            setattr(self, name, new)
        self.start, self.stop = 0, kept
