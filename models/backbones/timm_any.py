"""Any image classifier of timm by its name, or by a folder that `timm.models.save_for_hf` wrote.

Weights are drawn anew by timm's own rule, or read from the folder with `weights`; where it was made
for other channels or classes, timm adapts its first and draws its last layer. Nothing else is
changed, so many networks need `options` to see images of 8 x 8: a patch of 2, a stem of stride 1.

Shapes: B batch, C channels, H and W image sides.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from models.backbones.foreign import refusing


def timm_any(
    *,
    name: str,
    options: Mapping[str, Any],
    small: Mapping[str, Mapping[str, Any]],
    weights: bool,
    in_chans: int,
    n_classes: int,
    height: int,
    width: int,
) -> nn.Module:
    """timm's network, (B, C, H, W) -> (B, n_classes); `options` go to `timm.create_model`.

    Those of `small`, by name, stand in for them where they say nothing.

    `ValueError` for a name that timm does not know, a folder that it cannot read, options that the
    network does not take, and images that it cannot see.
    """
    folder = Path(name).expanduser()
    is_folder = (folder / "config.json").is_file()
    if not is_folder and not timm.is_model(name):
        like = ", ".join(timm.list_models(f"*{name}*")[:3]) or "resnet18, convnext_atto, test_vit"
        raise ValueError(
            f"name is {name!r}, neither a folder with a config.json nor a network of timm, such as "
            f"{like}"
        )
    if weights and not is_folder:
        raise ValueError(f"weights is true, and name is {name!r}; needed is a folder with weights")
    given: dict[str, Any] = {"in_chans": in_chans, "num_classes": n_classes}
    given |= {**small.get(name, {}), **options}
    source = f"local-dir:{folder}" if is_folder else name
    sized = {"img_size": (height, width), **given}
    unseen = (
        f"name is {name!r}, which does not run on images of {height} x {width}",
        "; options such as {patch_size: 2} or {img_size: 8} may help",
    )
    with refusing(f"{folder} gives no network") if is_folder else refusing(*unseen):
        network = _create(source, weights, sized, given)
    with torch.no_grad(), refusing(*unseen):
        out = network.eval()(torch.zeros(2, in_chans, height, width))
    if out.shape != (2, n_classes):
        raise ValueError(
            f"name is {name!r}, which gives {tuple(out.shape)} and no {n_classes} classes"
        )
    head = network.get_classifier()
    if isinstance(head, nn.Module):
        head.no_orthogonal = True  # type: ignore[assignment]  # a read-out is a head, not a matrix between hidden vectors
    return network.train()


def _create(source: str, weights: bool, sized: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """With the size of the images where the network asks for it."""
    try:
        return timm.create_model(source, pretrained=weights, **sized)
    except (pickle.UnpicklingError, RuntimeError) as error:  # which advise to run what it holds
        if not isinstance(error.__cause__ or error, pickle.UnpicklingError):
            raise
        raise ValueError("its file holds other things than named tensors") from error
    except TypeError as error:
        if "img_size" not in str(error) or sized is given:
            raise
        return _create(source, weights, given, given)
