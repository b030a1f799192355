"""A sequence backbone over image patches as the denoiser of a diffusion model.

The frame is that of DiT (Scalable Diffusion Models with Transformers, arXiv:2212.09748) in its
adaLN-Zero form: time and class shift, scale and gate what every branch of the backbone reads and
adds, and all gates start at zero, so that a network starts as the identity. DiS (Mamba,
arXiv:2402.05608) and Diffusion-RWKV (arXiv:2404.04478) put a recurrence in the Transformer's
place; here any backbone that shows its branches stands there, reading both sides (`bidirectional`).

Glossary: `patch` = p; `shift, scale, gate` = beta, gamma, alpha; `c` = the sum of the time and the
class embedding, of width `d_model / reduction`.

Deviations from DiT: positions are a learned table instead of fixed sines; the MLP of the time
embedding reads `time_features` sinusoids instead of 256; there is no null class, since nothing here
is sampled with guidance; the last layer gives `levels` logits a pixel in place of noise and
variance, and has no bias; the condition may be narrower than the model: at d_model / reduction = D
the modulations would take most of a small model's parameters. From DiS and Diffusion-RWKV: time and
class are no tokens, since a recurrence would have to carry them, and no skip connections join early
to late layers. A projection that starts at zero, as many families' do, is drawn as DiT's are
(Xavier): behind a gate at zero it would never learn.

Shapes: B batch, N patches, D width, E width of the condition, p patch side, L grey levels, H and W
image sides, K branches of a layer.
"""

import math
from collections import Counter
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.bidirectional import Direction, added, unmasked
from models.backbones.branches import Branch, BranchedBackbone, Losses
from models.backbones.linear import Linear


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """(1 + gamma) x + beta, (B, N, D) with (B, D)."""
    return torch.addcmul(x + shift[:, None], x, scale[:, None])


class TimeEmbedding(nn.Module):
    """Sinusoids of the time step through an MLP, (B,) -> (B, E)."""

    def __init__(self, *, width: int, features: int) -> None:
        super().__init__()
        if features < 2 or features % 2:
            raise ValueError(f"time_features={features} must be even and at least 2")
        self.features = features
        self.up = Linear(features, width)
        self.down = Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        half = torch.arange(self.features // 2, device=t.device, dtype=torch.float32)
        angle = t.float()[:, None] * torch.exp(-math.log(10_000) * half / len(half))  # (B, F/2)
        waves = torch.cat([angle.cos(), angle.sin()], -1).to(self.up.weight.dtype)  # (B, F)
        return self.down(F.silu(self.up(waves)))


def modulation(width: int, d_model: int, parts: int) -> Linear:
    """`parts` vectors of the model's width from the condition, all zero at first."""
    layer = Linear(width, parts * d_model)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@torch.no_grad()
def draw_zeros(branches: list[Branch]) -> None:
    """Projections onto the residual stream that start at zero become Xavier's."""
    for output in (output for branch in branches for output in branch.outputs):
        if not output.is_meta and not output.any():
            nn.init.xavier_uniform_(output)


class SequenceDenoiser(nn.Module):
    """`net(x_t, t, condition) -> logits`, see `models.objectives.diffusion.ImageDenoiser`."""

    def __init__(
        self,
        *,
        backbone: nn.Module,
        levels: int,
        n_classes: int,
        height: int,
        width: int,
        patch: int,
        reduction: int,
        time_features: int,
    ) -> None:
        super().__init__()
        branched = unmasked(backbone)
        if patch < 1 or height % patch or width % patch:
            raise ValueError(f"patch={patch} must divide height={height} and width={width}")
        d_model = branched.d_model
        if reduction < 1 or d_model % reduction:
            raise ValueError(f"reduction={reduction} must divide d_model={d_model}")
        self.levels, self.patch, self.d_model = levels, patch, d_model
        self.grid = (height // patch, width // patch)
        c_width, length = d_model // reduction, self.grid[0] * self.grid[1]
        branches = list(branched.branches(length))
        self.patch_in = Linear(patch * patch, d_model)
        self.position = nn.Embedding(length, d_model)
        self.time = TimeEmbedding(width=c_width, features=time_features)
        self.condition = nn.Embedding(n_classes, c_width)
        self.backbone = backbone
        self.modulations = nn.ModuleList(
            modulation(c_width, d_model, 3 * count)
            for count in Counter(branch.layer for branch in branches).values()
        )
        self.modulation = modulation(c_width, d_model, 2)
        self.patch_out = Linear(d_model, patch * patch * levels, bias=False)
        self.patch_out.unembedding = True  # type: ignore[assignment]
        nn.init.normal_(self.position.weight, std=0.5)
        nn.init.normal_(self.condition.weight, std=0.5)
        nn.init.zeros_(self.patch_out.weight)
        draw_zeros(branches)

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(B, 1, H, W), (B,), (B,) -> (B, H, W, L)."""
        return self.denoise(x_t, t, condition)[0]

    def denoise(self, x_t: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Losses]:
        """(B, 1, H, W), (B,), (B,) -> (B, H, W, L) and the backbone's auxiliary losses."""
        p = self.patch
        patches = x_t[:, 0].unflatten(1, (-1, p)).unflatten(3, (-1, p))  # (B, H/p, p, W/p, p)
        patches = patches.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, N, p p)
        if patches.shape[1] != self.position.num_embeddings:
            raise ValueError(
                f"the image has {patches.shape[1]} patches, "
                f"the table of positions {self.position.num_embeddings}"
            )
        x = self.patch_in(patches) + self.position.weight  # (B, N, D)
        c = F.silu(self.time(t) + self.condition(condition))  # (B, E)
        x, losses = self.mix(x, c)
        shift, scale = self.modulation(c).chunk(2, -1)  # (B, D)
        logits = self.patch_out(modulate(x, shift, scale))  # (B, N, p p L)
        logits = logits.unflatten(2, (p, p, self.levels)).unflatten(1, self.grid)
        # (B, H/p, W/p, p, p, L) -> (B, H, W, L)
        return logits.transpose(2, 3).flatten(3, 4).flatten(1, 2), losses

    def mix(self, x: Tensor, c: Tensor) -> tuple[Tensor, Losses]:
        """x + gate * run(modulate(norm(x))) for every branch, (B, N, D) and (B, E) -> (B, N, D)."""
        branches = self._branched.branches(x.shape[1])
        direction, losses, kept = Direction(branches), dict[str, Tensor](), None
        made = torch.cat([layer(c) for layer in self.modulations], -1)  # (B, 3 K layers D)
        modulations = made.unflatten(1, (-1, 3, self.d_model)).unbind(1)
        x = self._branched.enter(x)
        for branch, parts in zip(branches, modulations, strict=True):
            shift, scale, gate = parts.unbind(1)  # (B, D)
            y, kept, more = direction.read(branch, modulate(branch.norm(x), shift, scale), kept)
            x, losses = x + gate[:, None] * y, added(losses, more)
        return self._branched.leave(x), losses

    def flops(self, batch: int, height: int, width: int) -> int | None:
        """Those of the backbone, and matrix products around it, over `batch` images."""
        d, n, c = self.d_model, self.position.num_embeddings, self.condition.embedding_dim
        inside = self._branched.flops(batch, n)
        pixels = self.patch * self.patch
        modulations = sum(layer.weight.numel() for layer in self._modulations) + 2 * d * c
        ends = n * d * pixels * (1 + self.levels) + c * (self.time.features + c)
        return None if inside is None else inside + 2 * batch * (modulations + ends)

    @property
    def _branched(self) -> BranchedBackbone:
        return cast(BranchedBackbone, self.backbone)

    @property
    def _modulations(self) -> list[Linear]:
        return cast(list[Linear], self.modulations)
