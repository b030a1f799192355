"""Any class-conditional denoiser of diffusers by its class, or by a folder of `save_pretrained`.

The network sees one grey channel and gives a logit for each level of a pixel, see
`models.objectives.diffusion.ImageDenoiser`. Weights are drawn anew by the library's own rule, or
read from the folder with `weights`.

Shapes: B batch, L grey levels, H and W image sides.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ModelMixin
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.foreign import refusing
from models.checkpoints.checkpoint import readable, some

# What a class calls the number of classes.
CLASSES = ("num_class_embeds", "num_embeds_ada_norm")


class DiffusersDenoiser(nn.Module):
    """`name` is a class such as "UNet2DModel" or "DiTTransformer2DModel", or a folder.

    `options` are arguments of its constructor, `small` those of them by class that take the place
    of the library's defaults, which are for large images. `ValueError` for a class that does not
    exist, is not conditioned on classes, does not know an option or cannot see such images.
    """

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, Any],
        small: Mapping[str, Mapping[str, Any]],
        weights: bool,
        levels: int,
        n_classes: int,
        height: int,
        width: int,
    ) -> None:
        super().__init__()
        folder = Path(name).expanduser()
        is_folder = (folder / "config.json").is_file()
        kind = _class(_class_name(folder) if is_folder else name)
        taken = inspect.signature(kind.__init__).parameters
        if unknown := next((key for key in options if key not in taken), None):
            raise ValueError(f"options.{unknown} is no argument of {kind.__name__}")
        if weights and not is_folder:
            raise ValueError(f"weights is true, and name is {name!r}; needed is a folder with some")
        ours = {"in_channels": 1, "out_channels": levels, "sample_size": height}
        ours |= {key: n_classes for key in CLASSES if key in taken}
        unseen = f"name is {name!r}, which does not run on {levels} levels of {height} x {width}"
        if is_folder:
            with refusing(f"{folder} gives no network"):
                net = kind.from_config({**kind.load_config(folder), **options, **ours})
                if weights:
                    net.load_state_dict(_weights(kind, folder))
        else:
            with refusing(unseen):
                net = kind(**{**small.get(name, {}), **options, **ours})
        self.levels, self.net = levels, net
        with refusing(unseen):
            self._check(height, width, n_classes)

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(B, 1, H, W), (B,), (B,) -> (B, H, W, L)."""
        logits = self.net(x_t, t, class_labels=condition, return_dict=False)[0]  # (B, L, H, W)
        return logits.permute(0, 2, 3, 1)  # (B, H, W, L)

    def flops(self, batch: int, height: int, width: int) -> int:
        """Convolutions and matrix products of one forward pass, as torch counts its operators."""
        weight = next(self.parameters())
        x = torch.zeros(1, 1, height, width, device=weight.device, dtype=weight.dtype)
        zero = torch.zeros(1, device=weight.device, dtype=torch.long)
        training = self.training
        self.eval()
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                self(x, zero, zero)
        finally:
            self.train(training)
        return batch * int(counter.get_total_flops())

    @torch.no_grad()
    def _check(self, height: int, width: int, n_classes: int) -> None:
        labels = torch.arange(2) % n_classes
        self.eval()
        out = self(torch.zeros(2, 1, height, width), torch.zeros(2, dtype=torch.long), labels)
        self.train()
        if out.shape != (2, height, width, self.levels):
            raise ValueError(f"it gives {tuple(out.shape)}")


def _class_name(folder: Path) -> str:
    with readable(folder / "config.json"):
        found = json.loads((folder / "config.json").read_text())
        if not isinstance(found, dict):
            raise ValueError("needed is an object of keys, as save_pretrained writes it")
    return str(found.get("_class_name"))


def _weights(kind: Any, folder: Path) -> dict[str, Tensor]:
    """Those of a folder; `ValueError` where it lacks some or holds others besides."""
    net, seen = kind.from_pretrained(folder, output_loading_info=True)
    if lacking := list(seen["missing_keys"]):
        raise ValueError(f"it lacks {some(lacking)}")
    if unknown := list(seen["unexpected_keys"]):
        raise ValueError(f"it holds {some(unknown)}, unknown to {kind.__name__}")
    weights: dict[str, Tensor] = net.state_dict()
    return weights


def _class(name: str) -> Any:
    """The class of diffusers of that name, which takes a sample, a time and a class."""
    kind: Any = getattr(diffusers, name, None)
    if isinstance(kind, type) and issubclass(kind, ModelMixin):
        members: Any = kind
        forward = inspect.signature(members.forward).parameters
        taken = inspect.signature(members.__init__).parameters
        if "class_labels" in forward and any(key in taken for key in CLASSES):
            return kind
    raise ValueError(
        f"name is {name!r}; allowed are class-conditional denoisers of diffusers, such as "
        "UNet2DModel or DiTTransformer2DModel, and folders of them"
    )
