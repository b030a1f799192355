"""U-Net: the convolutional denoiser of diffusion models, as diffusers builds it.

Denoising Diffusion Probabilistic Models (arXiv:2006.11239), `diffusers.UNet2DModel`: residual
blocks on `n_scales` resolutions with skip connections, one block of self-attention at the lowest,
time by sinusoids through an MLP, the class by a table that is added to the time embedding.

Deviations from diffusers' defaults: the last convolution starts at zero, so that an untrained
model says what the noisy pixel itself says and no more; it maps hidden channels to grey levels,
which makes it the un-embedding.

Shapes: B batch, L grey levels, H and W image sides.
"""

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.sizes import check_sizes


class UNet(nn.Module):
    """`net(x_t, t, condition) -> logits`, see `models.objectives.diffusion.ImageDenoiser`.

    `width` channels at full resolution, `groups * deep_multiple` at the others, so that the groups
    of the group norms divide them. Attention has one head, as in the paper.
    """

    def __init__(
        self,
        *,
        levels: int,
        n_classes: int,
        width: int,
        deep_multiple: int,
        n_scales: int,
        layers_per_block: int,
        groups: int,
        scale_shift: bool,
    ) -> None:
        super().__init__()
        check_sizes(n_scales=n_scales, deep_multiple=deep_multiple)
        if groups < 1 or width < groups or width % groups:
            raise ValueError(f"groups={groups} must divide width={width}")
        deep_width = groups * deep_multiple
        self.levels, self.n_scales = levels, n_scales
        self.unet = UNet2DModel(
            in_channels=1,
            out_channels=levels,
            block_out_channels=(width, *[deep_width] * (n_scales - 1)),
            down_block_types=("DownBlock2D",) * n_scales,
            up_block_types=("UpBlock2D",) * n_scales,
            layers_per_block=layers_per_block,
            norm_num_groups=groups,
            attention_head_dim=None,
            resnet_time_scale_shift="scale_shift" if scale_shift else "default",
            num_class_embeds=n_classes,
        )
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)
        self.unet.conv_out.unembedding = True

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(B, 1, H, W), (B,), (B,) -> (B, H, W, L)."""
        side = 2 ** (self.n_scales - 1)
        if x_t.shape[-2] % side or x_t.shape[-1] % side:
            raise ValueError(
                f"images of {x_t.shape[-2]} x {x_t.shape[-1]} pixels cannot be halved "
                f"{self.n_scales - 1} times; choose a smaller n_scales"
            )
        logits = self.unet(x_t, t, class_labels=condition, return_dict=False)[0]  # (B, L, H, W)
        return logits.permute(0, 2, 3, 1)  # (B, H, W, L)

    def flops(self, batch: int, height: int, width: int) -> int:
        """Convolutions and matrix products of one forward pass, from a trace on shapes alone."""
        with torch.device("meta"):
            x = torch.empty(1, 1, height, width)
            t, condition = torch.zeros(1), torch.zeros(1, dtype=torch.long)
            shadow = UNet2DModel.from_config(self.unet.config)
            with FlopCounterMode(display=False) as counter:
                shadow(x, t, class_labels=condition)
        return batch * int(counter.get_total_flops())
