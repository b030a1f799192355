"""The U-Net of the diffusion family against the bare diffusers module: training steps, 8 × 8.

    python -m benchmarks.unet [seconds]

Both sides are the same architecture with the same weights, input and loss; the target is a ratio of
at least 0.98. Batch 32, size nano and size tiny.
"""

import sys

import torch
from diffusers import UNet2DModel

from benchmarks.ab import compare, train_step
from models.backbones.unet import UNet

# width, deep_multiple, groups of configs/model/diffusion.yaml
SIZES = {"nano": (24, 9, 4), "tiny": (80, 9, 8)}


def main(seconds: float) -> None:
    for size, (width, deep_multiple, groups) in SIZES.items():
        torch.manual_seed(0)
        ours = UNet(
            levels=17,
            n_classes=10,
            width=width,
            deep_multiple=deep_multiple,
            n_scales=2,
            layers_per_block=1,
            groups=groups,
            scale_shift=False,
        )
        bare = UNet2DModel.from_config(ours.unet.config)
        bare.load_state_dict(ours.unet.state_dict())
        x, t = torch.randn(32, 1, 8, 8), torch.rand(32) * 999
        y = torch.randint(0, 10, (32,))
        compare(
            f"U-Net {size} training step against diffusers",
            train_step(lambda: ours(x, t, y).square().mean(), ours.parameters()),  # noqa: B023
            train_step(
                lambda: bare(x, t, class_labels=y).sample.square().mean(),  # noqa: B023
                bare.parameters(),
            ),
            seconds=seconds,
            target=0.98,
        )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
