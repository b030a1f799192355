"""timm's ResNets with the small stem: the same network as bare timm, at every size."""

import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.parameters import by_role
from bench.protocol import Costed
from models.backbones.timm_image import flops, resnet, small_stem
from models.objectives.classification import ImageClassifier


def small(last: int = 0) -> nn.Module:
    torch.manual_seed(0)
    layers = [1, 1, 1, last]
    channels = [8, 12, 16][: 2 + last]
    return resnet(
        name="resnet18",
        layers=layers,
        channels=channels,
        last_channels=20,
        in_chans=1,
        n_classes=10,
    )


def classifier(network: nn.Module, side: int = 8) -> ImageClassifier:
    return ImageClassifier(backbone=network, levels=17, channels=1, height=side, width=side)


def bare(widths: tuple[int, ...], layers: tuple[int, ...]) -> ResNet:
    """The network put together from timm's class by hand."""
    network = ResNet(BasicBlock, layers, num_classes=10, in_chans=1, channels=widths)
    network.conv1 = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


@pytest.mark.parametrize("side", [8, 32])
@pytest.mark.parametrize("last", [0, 1])
def test_logits_equal_those_of_bare_timm(last: int, side: int) -> None:
    ours = classifier(small(last), side).eval()
    theirs = bare((8, 12, 16, 20) if last else (8, 12, 20, 20), (1, 1, 1, last)).eval()
    theirs.load_state_dict(ours.backbone.state_dict())  # strict: the same names and shapes
    pixels = torch.randint(17, (3, side, side), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(pixels[:, None].float() / 8 - 1)
        torch.testing.assert_close(ours.classify(pixels), expected, atol=1e-6, rtol=1e-6)
    assert expected.std() > 0


def test_it_is_a_plain_timm_module() -> None:
    assert type(small()) is ResNet


def test_official_weights_fit_but_for_the_stem() -> None:
    official = timm.create_model("resnet18", in_chans=1, num_classes=10).state_dict()
    ours = resnet(
        name="resnet18",
        layers=[2, 2, 2, 2],
        channels=[64, 128, 256],
        last_channels=512,
        in_chans=1,
        n_classes=10,
    ).state_dict()
    assert official.keys() == ours.keys()
    assert [k for k in ours if ours[k].shape != official[k].shape] == ["conv1.weight"]


def test_stem_keeps_the_sides() -> None:
    network = small()
    x = torch.randn(2, 1, 8, 8)
    assert network.maxpool(network.act1(network.bn1(network.conv1(x)))).shape == (2, 64, 8, 8)
    assert network.forward_features(x).shape == (2, 20, 2, 2)


def test_flops_equal_the_counter_and_leave_the_statistics_alone() -> None:
    network = small().train()
    before = network.bn1.running_mean.clone()
    stated = flops(network, batch=2, in_chans=1, height=8, width=8)
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.randn(2, 1, 8, 8))
    assert stated == counter.get_total_flops()
    # The stem by hand: 64 filters of 3 x 3 at 8 x 8 places.
    assert counter.get_flop_counts()["Global"][torch.ops.aten.convolution] < stated
    assert stated > 2 * 2 * 64 * 9 * 64
    torch.testing.assert_close(network.bn1.running_mean, before)


def test_the_classifier_states_its_flops() -> None:
    model = classifier(small(), side=8).eval()
    assert isinstance(model, Costed)
    pixels = torch.randint(17, (3, 8, 8))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixels=pixels)
    assert model.flops(3, 64) == counter.get_total_flops() > 0
    with pytest.raises(ValueError, match="length is 63; images have 64"):
        model.flops(3, 63)


def test_the_read_out_is_no_matrix_for_the_optimizer() -> None:
    matrices, rest = by_role(classifier(small()))
    assert not matrices
    assert any(p.shape == (10, 20) for p in rest)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"channels is \[8\]; give one width .* here 2"):
        resnet(
            name="resnet18",
            layers=[1, 1, 1, 0],
            channels=[8],
            last_channels=8,
            in_chans=1,
            n_classes=10,
        )
    with pytest.raises(ValueError, match=r"layers is \[1, 1\]; give four"):
        resnet(
            name="resnet18", layers=[1, 1], channels=[8], last_channels=8, in_chans=1, n_classes=10
        )
    with pytest.raises(ValueError, match="no single convolution `conv1`"):
        small_stem(nn.Linear(1, 1), in_chans=1)
