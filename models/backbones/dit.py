"""DiT: a Transformer over image patches as the denoiser of a diffusion model.

Scalable Diffusion Models with Transformers (arXiv:2212.09748), in its adaLN-Zero form: time and
class shift, scale and gate every sub-layer, and all gates start at zero.

Glossary: `d_model` = hidden size d; `patch` = p; `shift, scale, gate` = beta, gamma, alpha;
`c` = the sum of the time and the class embedding.

Reference: https://github.com/facebookresearch/DiT (`models.py`). Deviations: positions are a
learned table instead of fixed sines; the MLP of the time embedding reads `time_features` sinusoids
instead of 256; there is no null class, since nothing here is sampled with guidance; queries and
keys are normalised (arXiv:2302.05442); the last layer gives `levels` logits a pixel in place of
noise and variance, and has no bias.

Shapes: B batch, N patches, D width, h heads, p patch side, L grey levels, H and W image sides.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.linear import Linear
from models.backbones.sizes import check_sizes


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """(1 + gamma) x + beta, (B, N, D) with (B, D)."""
    return torch.addcmul(x + shift[:, None], x, scale[:, None])


class TimeEmbedding(nn.Module):
    """Sinusoids of the time step through an MLP, (B,) -> (B, D)."""

    def __init__(self, *, d_model: int, features: int) -> None:
        super().__init__()
        if features < 2 or features % 2:
            raise ValueError(f"time_features={features} must be even and at least 2")
        self.features = features
        self.up = Linear(features, d_model)
        self.down = Linear(d_model, d_model)

    def forward(self, t: Tensor) -> Tensor:
        half = torch.arange(self.features // 2, device=t.device, dtype=torch.float32)
        angle = t.float()[:, None] * torch.exp(-math.log(10_000) * half / len(half))  # (B, F/2)
        waves = torch.cat([angle.cos(), angle.sin()], -1).to(self.up.weight.dtype)  # (B, F)
        return self.down(F.silu(self.up(waves)))


class Block(nn.Module):
    """x + gate * attention(modulate(norm(x))), then the same with an MLP."""

    def __init__(self, *, d_model: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm1 = nn.LayerNorm(d_model, elementwise_affine=False, eps=1e-6)
        self.qkv = Linear(d_model, 3 * d_model)
        self.proj = Linear(d_model, d_model)
        self.norm2 = nn.LayerNorm(d_model, elementwise_affine=False, eps=1e-6)
        self.fc1 = Linear(d_model, d_ff)
        self.fc2 = Linear(d_ff, d_model)
        self.modulation = Linear(d_model, 6 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def attention(self, x: Tensor) -> Tensor:
        """Softmax attention between all patches, (B, N, D) -> (B, N, D)."""
        head_dim = x.shape[-1] // self.n_heads
        qkv = self.qkv(x).unflatten(-1, (3, self.n_heads, head_dim))  # (B, N, 3, h, D/h)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 of (B, h, N, D/h)
        q, k = F.rms_norm(q, (head_dim,)), F.rms_norm(k, (head_dim,))
        y = F.scaled_dot_product_attention(q, k, v)  # (B, h, N, D/h)
        return self.proj(y.transpose(1, 2).flatten(2))  # (B, N, D)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, N, D) and silu of the condition (B, D) -> (B, N, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c).chunk(6, -1)  # (B, D)
        x = x + gate1[:, None] * self.attention(modulate(self.norm1(x), shift1, scale1))
        h = F.gelu(self.fc1(modulate(self.norm2(x), shift2, scale2)), approximate="tanh")
        return x + gate2[:, None] * self.fc2(h)


class DiT(nn.Module):
    """`net(x_t, t, condition) -> logits`, see `models.objectives.diffusion.ImageDenoiser`."""

    def __init__(
        self,
        *,
        levels: int,
        n_classes: int,
        height: int,
        width: int,
        patch: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        d_ff: int,
        time_features: int,
    ) -> None:
        super().__init__()
        check_sizes(n_layers=n_layers)
        if height % patch or width % patch:
            raise ValueError(f"patch={patch} must divide height={height} and width={width}")
        if d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}")
        self.levels, self.patch, self.d_model, self.d_ff = levels, patch, d_model, d_ff
        self.grid = (height // patch, width // patch)
        self.patch_in = Linear(patch * patch, d_model)
        self.position = nn.Embedding(self.grid[0] * self.grid[1], d_model)
        self.time = TimeEmbedding(d_model=d_model, features=time_features)
        self.condition = nn.Embedding(n_classes, d_model)
        self.blocks = nn.ModuleList(
            Block(d_model=d_model, n_heads=n_heads, d_ff=d_ff) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model, elementwise_affine=False, eps=1e-6)
        self.modulation = Linear(d_model, 2 * d_model)
        self.patch_out = Linear(d_model, patch * patch * levels, bias=False)
        self.patch_out.unembedding = True  # type: ignore[assignment]
        nn.init.normal_(self.position.weight, std=0.5)
        nn.init.normal_(self.condition.weight, std=0.5)
        for layer in (self.modulation, self.patch_out):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(B, 1, H, W), (B,), (B,) -> (B, H, W, L)."""
        p = self.patch
        patches = x_t[:, 0].unflatten(1, (-1, p)).unflatten(3, (-1, p))  # (B, H/p, p, W/p, p)
        patches = patches.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, N, p p)
        if patches.shape[1] != self.position.num_embeddings:
            raise ValueError(
                f"the image has {patches.shape[1]} patches, "
                f"the table of positions {self.position.num_embeddings}"
            )
        x = self.patch_in(patches) + self.position.weight  # (B, N, D)
        c = F.silu(self.time(t) + self.condition(condition))  # (B, D)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.modulation(c).chunk(2, -1)  # (B, D)
        logits = self.patch_out(modulate(self.norm(x), shift, scale))  # (B, N, p p L)
        logits = logits.unflatten(2, (p, p, self.levels)).unflatten(1, self.grid)
        # (B, H/p, W/p, p, p, L) -> (B, H, W, L)
        return logits.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def flops(self, batch: int, height: int, width: int) -> int:
        """Matrix products of one forward pass over `batch` images."""
        d, n = self.d_model, self.position.num_embeddings
        pixels = self.patch * self.patch
        block = n * (4 * d * d + 2 * d * self.d_ff) + 6 * d * d + 2 * n * n * d
        ends = n * d * pixels * (1 + self.levels) + 2 * d * d + d * (self.time.features + d)
        return 2 * batch * (len(self.blocks) * block + ends)
