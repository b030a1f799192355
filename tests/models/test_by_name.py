"""Classifiers of timm and denoisers of diffusers by name, by options and by folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.backbones.diffusers_any import DiffusersDenoiser
from models.backbones.timm_any import timm_any

SMALL_VIT = {"patch_size": 2, "embed_dim": 24, "depth": 2, "num_heads": 2}
UNET = {
    "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 4,
}  # fmt: skip
DIT = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "patch_size": 2}


def classifier(name: str, weights: bool = False, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm_any(name=name, options=options, small={}, weights=weights, in_chans=1, n_classes=10,
                    height=8, width=8)  # fmt: skip


def denoiser(name: str, weights: bool = False, **options: Any) -> DiffusersDenoiser:
    torch.manual_seed(0)
    return DiffusersDenoiser(name=name, options=options, small={}, weights=weights, levels=17,
                             n_classes=10, height=8, width=8)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", SMALL_VIT),
        ("convnext_atto", {"patch_size": 1, "dims": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}),
        ("efficientnet_b0", {}),
        ("mobilenetv3_small_050", {}),
    ],
)
def test_networks_of_timm_are_timms_own(name: str, options: dict[str, Any]) -> None:
    ours = classifier(name, **options)
    torch.manual_seed(0)
    sized = {"img_size": (8, 8)} if "vit" in name else {}
    theirs = timm.create_model(name, in_chans=1, num_classes=10, **sized, **options)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert ours.train().training
    head: Any = ours.get_classifier()  # type: ignore[operator]
    assert head.no_orthogonal


def test_a_folder_that_timm_saved(tmp_path: Path) -> None:
    saved = classifier("vit_tiny_patch16_224", **SMALL_VIT).eval()
    timm.models.save_for_hf(
        saved, str(tmp_path), safe_serialization=True,
        model_config={"architecture": "vit_tiny_patch16_224", "num_classes": 10,
                      "model_args": {**SMALL_VIT, "img_size": 8, "in_chans": 1}},
    )  # fmt: skip
    images = torch.randn(3, 1, 8, 8)
    read = classifier(str(tmp_path), weights=True, **SMALL_VIT).eval()
    torch.testing.assert_close(read(images), saved(images))
    torch.manual_seed(3)
    fresh = timm_any(name=str(tmp_path), options=SMALL_VIT, small={}, weights=False, in_chans=1,
                     n_classes=7, height=8, width=8)  # fmt: skip
    assert fresh(images).shape == (3, 7)


@pytest.mark.parametrize(
    ("name", "options"), [("UNet2DModel", UNET), ("DiTTransformer2DModel", DIT)]
)
def test_denoisers_are_the_librarys_own(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    ours = denoiser(name, **options).eval()
    x, t, labels = torch.randn(3, 1, 8, 8), torch.tensor([1, 500, 999]), torch.tensor([0, 4, 9])
    out = ours(x, t, labels)
    assert out.shape == (3, 8, 8, 17)
    theirs = ours.net(x, t, class_labels=labels).sample
    assert torch.equal(out, theirs.permute(0, 2, 3, 1))
    assert not torch.equal(out, ours(x, t, labels.flip(0)))
    assert ours.flops(2, 8, 8) == 2 * ours.flops(1, 8, 8) > 0
    ours.net.save_pretrained(tmp_path)
    again = denoiser(str(tmp_path), weights=True).eval()
    assert type(again.net) is getattr(diffusers, name)
    assert torch.equal(again(x, t, labels), out)
    torch.manual_seed(5)
    fresh = DiffusersDenoiser(name=str(tmp_path), options={}, small={}, weights=False, levels=5,
                              n_classes=3, height=8, width=8)  # fmt: skip
    assert fresh(x, t, labels % 3).shape == (3, 8, 8, 5)


def test_a_pickle_of_other_things_is_not_advised_to_be_run(tmp_path: Path) -> None:
    timm.models.save_for_hf(classifier("resnet18"), tmp_path, safe_serialization=False)
    torch.save({"conv1.weight": Path()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds other things than named tensors") as caught:
        classifier(str(tmp_path), weights=True)
    assert "trust" not in str(caught.value)


def test_every_tensor_of_a_denoisers_folder_is_a_weight(tmp_path: Path) -> None:
    denoiser("UNet2DModel", **UNET).net.save_pretrained(tmp_path)
    [file] = tmp_path.glob("*.safetensors")
    whole = load_file(file)
    save_file({**whole, "conv_in.more": torch.ones(2)}, file)
    with pytest.raises(ValueError, match=r"it holds conv_in\.more, unknown to UNet2DModel"):
        denoiser(str(tmp_path), weights=True)
    del whole["conv_in.bias"]
    save_file(whole, file)
    with pytest.raises(ValueError, match=r"it lacks conv_in\.bias"):
        denoiser(str(tmp_path), weights=True)


@pytest.mark.parametrize(
    ("make", "name", "more", "words"),
    [
        (classifier, "resnet999", {}, "neither a folder with a config.json nor a network of timm"),
        (classifier, "convnext_att", {}, "such as convnext_atto"),
        (
            classifier,
            "vit_tiny_patch16_224",
            {},
            "does not run on images of 8 x 8: .*patch_size: 2",
        ),
        (classifier, "resnet18", {"bogus": 1}, "unexpected keyword argument 'bogus'"),
        (classifier, "resnet18", {"img_size": 8}, "unexpected keyword argument 'img_size'"),
        (classifier, "resnet18", {"weights": True}, "needed is a folder with weights"),
        (denoiser, "UNet3", {}, "allowed are class-conditional denoisers of diffusers"),
        (denoiser, "AutoencoderKL", {}, "allowed are class-conditional denoisers"),
        (denoiser, "UNet2DModel", {"bogus": 1}, r"options\.bogus is no argument of UNet2DModel"),
        (denoiser, "UNet2DModel", {**UNET, "weights": True}, "needed is a folder"),
        (denoiser, "UNet2DModel", {**UNET, "norm_num_groups": 5}, "does not run on 17 levels of 8"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, name: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        make(name, **more)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("conv_out.bias"), r"lacks conv_out\.bias$"),
        (lambda w: w.update(foo=torch.zeros(2)), "holds foo, unknown to UNet2DModel"),
        (lambda w: w.update({"conv_out.bias": torch.zeros(2)}), "conv_out.bias expected shape"),
    ],
)
def test_a_folder_whose_weights_do_not_fit_a_denoiser(
    change: Callable[[dict[str, Tensor]], Any], words: str, tmp_path: Path
) -> None:
    denoiser("UNet2DModel", **UNET).net.save_pretrained(tmp_path)
    rewrite(tmp_path / "diffusion_pytorch_model.safetensors", change)
    with pytest.raises(ValueError, match=f"{tmp_path} gives no network: .*{words}") as caught:
        denoiser(str(tmp_path), weights=True)
    assert "ignore_mismatched_sizes" not in str(caught.value), "advice on the library's arguments"


def test_a_folder_whose_weights_do_not_fit_a_classifier(tmp_path: Path) -> None:
    saved = classifier("vit_tiny_patch16_224", **SMALL_VIT)
    timm.models.save_for_hf(
        saved, str(tmp_path), safe_serialization=True,
        model_config={"architecture": "vit_tiny_patch16_224", "num_classes": 10,
                      "model_args": {**SMALL_VIT, "img_size": 8, "in_chans": 1}},
    )  # fmt: skip
    rewrite(tmp_path / "model.safetensors", lambda weights: weights.pop("cls_token"))
    with pytest.raises(ValueError, match=f'{tmp_path} gives no network: Missing .*"cls_token"'):
        classifier(str(tmp_path), weights=True, **SMALL_VIT)


def rewrite(file: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_folder_whose_configuration_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json cannot be read: "):
        denoiser(str(tmp_path))
