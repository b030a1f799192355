"""The U-Net wrapper equals the bare diffusers module, conditions on class and time."""

import pytest
import torch
from diffusers import UNet2DModel

from models.backbones.unet import UNet


def build(**changes: int) -> UNet:
    given: dict = {
        "levels": 5, "n_classes": 3, "width": 8, "deep_multiple": 3, "n_scales": 2,
        "layers_per_block": 1, "groups": 4, "scale_shift": False,
    }  # fmt: skip
    torch.manual_seed(0)
    return UNet(**(given | changes))


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(3, 1, 8, 8), torch.tensor([0.0, 10.5, 999.0]), torch.arange(3)


def test_equals_the_bare_module() -> None:
    model = build()
    torch.nn.init.normal_(model.unet.conv_out.weight)
    bare = UNet2DModel.from_config(model.unet.config)
    bare.load_state_dict(model.unet.state_dict())
    x, t, y = batch()
    torch.testing.assert_close(
        model(x, t, y), bare(x, t, class_labels=y).sample.permute(0, 2, 3, 1)
    )


def test_untrained_logits_are_zero_and_shaped() -> None:
    logits = build()(*batch())
    assert logits.shape == (3, 8, 8, 5)
    assert not logits.any()


def test_class_and_time_reach_the_logits() -> None:
    model = build()
    torch.nn.init.normal_(model.unet.conv_out.weight)
    x, t, y = batch()
    logits = model(x, t, y)
    assert float((model(x, t + 50, y) - logits).abs().max()) > 1e-4
    assert float((model(x, t, (y + 1) % 3) - logits).abs().max()) > 1e-4


def test_flops_are_those_of_the_convolutions() -> None:
    model = build(n_scales=1, layers_per_block=1)
    counted = model.flops(2, 8, 8)
    # At one resolution every convolution sees 64 pixels; attention works on 64 pixels of 8
    # channels, its projections, and the embeddings of time see one vector an image.
    matrices = {n: m.weight.numel() for n, m in model.named_modules() if hasattr(m, "weight")}
    kinds = {n: type(m) for n, m in model.named_modules()}
    flops = 0
    for name, size in matrices.items():
        if kinds[name] is torch.nn.Conv2d:
            flops += 2 * 64 * size
        elif kinds[name] is torch.nn.Linear:
            flops += 2 * (64 if "attentions" in name else 1) * size
    flops += 2 * 2 * 64 * 64 * 8  # queries with keys, weights with values
    assert counted == pytest.approx(2 * flops, rel=1e-3)
    assert model.flops(4, 8, 8) == 2 * counted


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="groups"):
        build(width=10)
    with pytest.raises(ValueError, match="n_scales"):
        build(n_scales=0)
    with pytest.raises(ValueError, match="halved"):
        build(n_scales=3)(torch.randn(1, 1, 6, 6), torch.zeros(1), torch.zeros(1).long())
