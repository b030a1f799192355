"""Small files of RWKV-4 to 7 with random weights, and what their papers say that these compute.

Names and shapes are BlinkDL's: RWKV-v4neo/src/model.py, RWKV-v5/src/model.py (`RWKV_Tmix_x052`),
RWKV-v5/rwkv_v6_demo.py (`RWKV_Tmix_x060`) and RWKV-v7/rwkv_v7_demo.py of BlinkDL/RWKV-LM. Of 5.0
and 5.1 they are those that the rwkv package reads.

Shapes: T time, V vocabulary, D width, H heads, N head size, F hidden width, R a rank.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

HEADS, SIZE, HIDDEN, RANK = 2, 16, 56, 3
WIDTH = HEADS * SIZE
VERSIONS = ("4", "5.0", "5.1", "5.2", "6.0", "7")
Weights = dict[str, Tensor]


def rwkv_weights(version: str, *, vocab: int = 41, layers: int = 2, seed: int = 0) -> Weights:
    """Every tensor of a model, all off the values that hide mistakes."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return std * torch.randn(shape, generator=g)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=g)

    def matrix(rows: int, columns: int) -> Tensor:
        return normal(rows, columns, std=columns**-0.5)

    found: Weights = {"emb.weight": normal(vocab, WIDTH, std=1.0)}

    def norm(name: str) -> None:
        found[f"{name}.weight"] = between(0.6, 1.4, WIDTH)
        found[f"{name}.bias"] = normal(WIDTH, std=0.2)

    norm("blocks.0.ln0")
    for layer in range(layers):
        at = f"blocks.{layer}."
        norm(f"{at}ln1")
        norm(f"{at}ln2")
        mixes = {"4": "kvr", "5.0": "kvr", "5.1": "kvrg", "5.2": "kvrg"}.get(version, "")
        for mix in mixes:
            found[f"{at}att.time_mix_{mix}"] = between(0, 1, 1, 1, WIDTH)
        if version == "6.0":
            for mix in "xwkvrg":
                found[f"{at}att.time_maa_{mix}"] = between(0, 1, 1, 1, WIDTH)
            found[f"{at}att.time_maa_w1"] = normal(WIDTH, 5 * RANK, std=0.3)
            found[f"{at}att.time_maa_w2"] = normal(5, RANK, WIDTH, std=0.3)
            found[f"{at}att.time_decay_w1"] = normal(WIDTH, 2 * RANK, std=0.3)
            found[f"{at}att.time_decay_w2"] = normal(2 * RANK, WIDTH, std=0.3)
        if version == "7":
            for mix in "rwkvag":
                found[f"{at}att.x_{mix}"] = between(0, 1, 1, 1, WIDTH)
            for name, rank in {"w": 4, "a": 5, "v": 3, "g": 6}.items():
                found[f"{at}att.{name}1"] = normal(WIDTH, rank, std=0.3)
                found[f"{at}att.{name}2"] = normal(rank, WIDTH, std=0.3)
            for name in ("w0", "a0", "v0", "k_k", "k_a"):
                found[f"{at}att.{name}"] = between(-1, 1, 1, 1, WIDTH)
            found[f"{at}att.r_k"] = normal(HEADS, SIZE, std=0.3)
        else:
            heads = {"5.0": (HEADS,), "5.1": (HEADS,), "5.2": (HEADS, SIZE)}
            decay = {"4": (WIDTH,), "6.0": (1, 1, WIDTH), **heads}[version]
            first = {"4": (WIDTH,), "6.0": (HEADS, SIZE), **heads}[version]
            found[f"{at}att.time_decay"] = between(-4, 1, *decay)
            name = "time_first" if version in ("4", "5.0") else "time_faaaa"
            found[f"{at}att.{name}"] = between(-1, 1, *first)
        for name in ("receptance", "key", "value", "output"):
            found[f"{at}att.{name}.weight"] = matrix(WIDTH, WIDTH)
        if version in ("5.1", "5.2", "6.0"):
            found[f"{at}att.gate.weight"] = matrix(WIDTH, WIDTH)
        if version != "4":
            norm(f"{at}att.ln_x")
        for mix in "k" if version == "7" else "kr":
            name = {"6.0": f"time_maa_{mix}", "7": f"x_{mix}"}.get(version, f"time_mix_{mix}")
            found[f"{at}ffn.{name}"] = between(0, 1, 1, 1, WIDTH)
        found[f"{at}ffn.key.weight"] = matrix(HIDDEN, WIDTH)
        if version != "7":
            found[f"{at}ffn.receptance.weight"] = matrix(WIDTH, WIDTH)
        found[f"{at}ffn.value.weight"] = matrix(WIDTH, HIDDEN)
    norm("ln_out")
    found["head.weight"] = matrix(vocab, WIDTH)
    return found


def rwkv_file(path: Path, version: str, **options: int) -> Path:
    """A .pth of `rwkv_weights`."""
    torch.save(rwkv_weights(version, **options), path)
    return path


class Eagle:
    """RWKV-5 and 6 by the equations of arXiv:2404.05892, one symbol after the other, in float64.

    The group norm's epsilon is that of the released models, 1e-5 times 8 squared. Of 5.0, which the
    paper does not have, there is no gate and the file holds the logarithm of u; there and in 5.1 a
    head's w and u are one number.
    """

    def __init__(self, weights: Weights, version: str) -> None:
        self.p = {name: value.double() for name, value in weights.items()}
        self.version = version
        self.layers = 1 + max(int(n.split(".")[1]) for n in weights if n.startswith("blocks."))

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """(T, V)."""
        zeros = torch.zeros(WIDTH, dtype=torch.float64)
        self.before = {(layer, part): zeros for layer in range(self.layers) for part in ("a", "f")}
        self.s = [torch.zeros(HEADS, SIZE, SIZE).double() for _ in range(self.layers)]
        return torch.stack([self._symbol(token) for token in tokens])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), self.p[f"{name}.weight"], self.p[f"{name}.bias"], 1e-5)

    def _symbol(self, token: int) -> Tensor:
        x = self._norm(self.p["emb.weight"][token], "blocks.0.ln0")
        for layer in range(self.layers):
            x = x + self._time_mix(layer, self._norm(x, f"blocks.{layer}.ln1"))
            x = x + self._channel_mix(layer, self._norm(x, f"blocks.{layer}.ln2"))
        return self.p["head.weight"] @ self._norm(x, "ln_out")

    def _time_mix(self, layer: int, x: Tensor) -> Tensor:
        p = {n.removeprefix(f"blocks.{layer}.att."): v for n, v in self.p.items()}
        last = self.before[layer, "a"]
        self.before[layer, "a"] = x

        def mixed(name: str) -> Tensor:
            if self.version != "6.0":  # lerp(a, b) = a + (b - a) mu, where the file holds 1 - mu
                return x + (last - x) * (1 - p[f"time_mix_{name}"].flatten())
            # ddlerp(a, b) = a + (b - a) lora(a + (b - a) mu_x), lora(x) = lambda + tanh(x A) B
            n = "wkvrg".index(name)
            inner = x + (last - x) * p["time_maa_x"].flatten()
            low = torch.tanh(inner @ p["time_maa_w1"][:, n * RANK : (n + 1) * RANK])
            return x + (last - x) * (p[f"time_maa_{name}"].flatten() + low @ p["time_maa_w2"][n])

        r, k, v = (
            (p[f"{name}.weight"] @ mixed(name[0])).view(HEADS, SIZE)
            for name in ("receptance", "key", "value")
        )
        decay = p["time_decay"]
        if self.version == "6.0":  # d_t = lora(ddlerp(x_t, x_{t-1}))
            decay = decay + torch.tanh(mixed("w") @ p["time_decay_w1"]) @ p["time_decay_w2"]
        w = torch.exp(-torch.exp(decay.reshape(HEADS, -1))).expand(HEADS, SIZE)  # (H, N)
        u = p["time_first"].exp() if "time_first" in p else p["time_faaaa"]
        u = u.reshape(HEADS, -1).expand(HEADS, SIZE)
        kv = k[:, :, None] * v[:, None, :]  # (H, N, N)
        wkv = self.s[layer] + u[:, :, None] * kv
        self.s[layer] = w[:, :, None] * self.s[layer] + kv
        out = torch.einsum("hn,hnm->hm", r, wkv)  # (H, N)
        spread = out.var(1, correction=0, keepdim=True)
        out = ((out - out.mean(1, keepdim=True)) / (spread + 64e-5).sqrt()).flatten()
        out = out * p["ln_x.weight"] + p["ln_x.bias"]
        if "gate.weight" in p:
            out = F.silu(p["gate.weight"] @ mixed("g")) * out
        return p["output.weight"] @ out

    def _channel_mix(self, layer: int, x: Tensor) -> Tensor:
        p = {n.removeprefix(f"blocks.{layer}.ffn."): v for n, v in self.p.items()}
        last = self.before[layer, "f"]
        self.before[layer, "f"] = x

        def mixed(name: str) -> Tensor:
            if self.version == "6.0":
                return x + (last - x) * p[f"time_maa_{name}"].flatten()
            return x + (last - x) * (1 - p[f"time_mix_{name}"].flatten())

        k = torch.relu(p["key.weight"] @ mixed("k")) ** 2
        return torch.sigmoid(p["receptance.weight"] @ mixed("r")) * (p["value.weight"] @ k)
