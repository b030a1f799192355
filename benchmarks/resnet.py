"""Our ResNet classifier against the bare timm model it wraps: training step and inference.

    python -m benchmarks.resnet

fp32, batch 32, digits at 8 x 8 and images at 32 x 32. Both rivals are given grey levels and scale
them; what is compared is what `ImageClassifier` and our builder add. Asked for: within 2 %.
"""

from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ab import THREADS, compare, train_step
from models.backbones.timm_image import resnet
from models.objectives.classification import ImageClassifier

BATCH, LEVELS, CLASSES = 32, 17, 10
TARGET = 0.98
SECONDS = 6.0


def bare() -> nn.Module:
    """timm's resnet18 at reduced width with the small-image stem."""
    network = timm.create_model(
        "resnet18", in_chans=1, num_classes=CLASSES, layers=(1, 1, 1, 1), channels=(32, 48, 64, 96)
    )
    network.conv1 = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


def ours() -> ImageClassifier:
    """The same through our builder and objective."""
    network = resnet(
        name="resnet18",
        layers=[1, 1, 1, 1],
        channels=[32, 48, 64],
        last_channels=96,
        in_chans=1,
        n_classes=CLASSES,
    )
    return ImageClassifier(backbone=network, levels=LEVELS, channels=1, height=8, width=8)


def inference(call: Callable[[], Tensor]) -> Callable[[], None]:
    """A forward pass without gradients."""

    def run() -> None:
        with torch.no_grad():
            call()

    return run


def main() -> None:
    """Compare at both sides, training and inference."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    labels = torch.randint(CLASSES, (BATCH,))
    for side in (8, 32):
        mine, theirs = ours(), bare()
        theirs.load_state_dict(mine.backbone.state_dict())
        pixels = torch.randint(LEVELS, (BATCH, side, side))

        def our_loss(model: nn.Module = mine, pixels: Tensor = pixels) -> Tensor:
            return model(pixels=pixels, labels=labels).loss

        def logits(model: nn.Module = theirs, pixels: Tensor = pixels) -> Tensor:
            return model(pixels.unsqueeze(1).float() * (2 / (LEVELS - 1)) - 1)

        def their_loss(logits: Callable[[], Tensor] = logits) -> Tensor:
            return F.cross_entropy(logits(), labels)

        compare(
            f"resnet train step at {side} x {side} against bare timm",
            train_step(our_loss, mine.parameters()),
            train_step(their_loss, theirs.parameters()),
            seconds=SECONDS,
            target=TARGET,
        )
        mine.eval()
        theirs.eval()

        def our_logits(model: ImageClassifier = mine, pixels: Tensor = pixels) -> Tensor:
            return model.classify(pixels)

        compare(
            f"resnet inference at {side} x {side} against bare timm",
            inference(our_logits),
            inference(logits),
            seconds=SECONDS,
            target=TARGET,
        )


if __name__ == "__main__":
    main()
