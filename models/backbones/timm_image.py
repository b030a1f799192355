"""Deep Residual Learning (arXiv:1512.03385): timm's ResNets for small images.

The network is timm's own (`timm.models.resnet`), with the stem that its paper uses on CIFAR-10: a
3 x 3 convolution of stride 1 and no pooling. The default stem and its pooling divide the sides by
four, which leaves 1 x 1 of an image of 8 x 8 before the third stage is reached. Nothing else is
added, so a checkpoint or a measurement of the module is one of timm.

Deviation: `layers` may end in 0. The paper's networks for small images have three stages, timm's
always have four; an empty one passes its input on.

Shapes: B batch, C channels, H and W image sides.
"""

from collections.abc import Sequence

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def resnet(
    *,
    name: str,
    layers: Sequence[int],
    channels: Sequence[int],
    last_channels: int,
    in_chans: int,
    n_classes: int,
) -> nn.Module:
    """timm's ResNet `name`, (B, C, H, W) -> (B, n_classes), with `layers` blocks in each stage.

    `channels` are the widths of all stages but the last that has blocks, which is `last_channels`
    wide: the one integer by which a size is met.
    """
    used = len(layers) - (layers[-1] == 0) if layers else 0
    if len(layers) != 4 or min(layers[:used]) < 1:
        raise ValueError(f"layers is {list(layers)}; give four numbers, of which the last may be 0")
    if len(channels) != used - 1:
        raise ValueError(
            f"channels is {list(channels)}; give one width for each stage before the last "
            f"that has blocks, here {used - 1}"
        )
    # An empty stage passes its input on, so it is as wide as the one before it.
    widths = (*channels, *[last_channels] * (5 - used))
    network = timm.create_model(
        name,
        pretrained=False,
        in_chans=in_chans,
        num_classes=n_classes,
        layers=tuple(layers),
        channels=widths,
    )
    return small_stem(network, in_chans=in_chans)


def small_stem(network: nn.Module, *, in_chans: int) -> nn.Module:
    """Replace stem and pooling of one of timm's ResNets by a 3 x 3 convolution of stride 1."""
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise ValueError(
            f"{type(network).__name__} has no single convolution `conv1` and `maxpool`; allowed "
            "are timm's ResNets with the plain stem, such as resnet18 or resnet50"
        )
    conv = nn.Conv2d(in_chans, stem.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    network.conv1 = conv
    network.maxpool = nn.Identity()
    # The read-out is a head, not a matrix between hidden vectors.
    network.get_classifier().no_orthogonal = True  # type: ignore[operator]
    return network


def flops(network: nn.Module, *, batch: int, in_chans: int, height: int, width: int) -> int:
    """FLOPs of one forward pass as torch counts its operators; batch norms are not counted.

    Runs the network once on images of zeros, in evaluation mode so that no statistic changes.
    """
    weight = next(network.parameters())
    images = torch.zeros(batch, in_chans, height, width, device=weight.device, dtype=weight.dtype)
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(images)
    finally:
        network.train(training)
    return counter.get_total_flops()
