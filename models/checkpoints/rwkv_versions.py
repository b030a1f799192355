"""Which RWKV a dictionary of tensors is, and whether it is whole: names and shapes by version.

Names and shapes are those of BlinkDL's modules: RWKV-v4neo/src/model.py (4), RWKV-v5/src/model.py
(`RWKV_Tmix_x052` is 5.2, `RWKV_Tmix_x060` 6.0) and RWKV-v7/rwkv_v7_demo.py (7) of BlinkDL/RWKV-LM;
of 5.0 and 5.1, those that the `rwkv` package reads (`RWKV` in its model.py).

Shapes: V vocabulary, D width, A attention width, F hidden width of the channel mix, H heads, N head
size; M, P, W, I, G, S ranks, where P holds five of M.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models.checkpoints.blinkdl import layers_of
from models.checkpoints.checkpoint import START, some

Shapes = dict[str, str]  # by name, the sides separated by blanks


def _each(names: str, shape: str) -> Shapes:
    return dict.fromkeys(names.split(), shape)


OUTSIDE: Shapes = {
    "emb.weight": "V D", "head.weight": "V D", "ln_out.weight": "D", "ln_out.bias": "D",
    "blocks.0.ln0.weight": "D", "blocks.0.ln0.bias": "D",
}  # fmt: skip
NORMS = _each("ln1.weight ln1.bias ln2.weight ln2.bias", "D")
TIME_MIX = _each(
    "att.receptance.weight att.key.weight att.value.weight att.output.weight", "D D"
) | _each("att.ln_x.weight att.ln_x.bias", "D")
CHANNEL = {"ffn.key.weight": "F D", "ffn.value.weight": "D F"}
GATED_CHANNEL = CHANNEL | {"ffn.receptance.weight": "D D"}
SHIFTED = GATED_CHANNEL | _each("ffn.time_mix_k ffn.time_mix_r", "1 1 D")
MIXED = _each("att.time_mix_k att.time_mix_v att.time_mix_r", "1 1 D")
GATE = {"att.time_mix_g": "1 1 D", "att.gate.weight": "D D"}
# Of one block; versions by what they share.
BLOCKS: dict[str, Shapes] = {
    "4": NORMS | SHIFTED | MIXED | _each("att.time_decay att.time_first", "A")
    | _each("att.receptance.weight att.key.weight att.value.weight", "A D")
    | {"att.output.weight": "D A"},
    "5.0": NORMS | SHIFTED | MIXED | TIME_MIX | _each("att.time_decay att.time_first", "H"),
    "5.1": NORMS | SHIFTED | MIXED | TIME_MIX | GATE
    | _each("att.time_decay att.time_first", "H"),
    "5.2": NORMS | SHIFTED | MIXED | TIME_MIX | GATE
    | _each("att.time_decay att.time_first", "H N"),
    "6.0": NORMS | GATED_CHANNEL | TIME_MIX
    | _each("ffn.time_maa_k ffn.time_maa_r", "1 1 D")
    | _each("att.time_maa_x att.time_maa_w att.time_maa_k att.time_maa_v att.time_maa_r "
            "att.time_maa_g att.time_decay", "1 1 D")
    | {"att.gate.weight": "D D", "att.time_faaaa": "H N", "att.time_maa_w1": "D P",
       "att.time_maa_w2": "5 M D", "att.time_decay_w1": "D W", "att.time_decay_w2": "W D"},
    "7": NORMS | CHANNEL | TIME_MIX | {"ffn.x_k": "1 1 D", "att.r_k": "H N"}
    | _each("att.x_r att.x_w att.x_k att.x_v att.x_a att.x_g", "1 1 D")
    | _each("att.w0 att.a0 att.v0 att.k_k att.k_a", "1 1 D")
    | {"att.w1": "D W", "att.w2": "W D", "att.a1": "D I", "att.a2": "I D",
       "att.g1": "D G", "att.g2": "G D", "att.v1": "D S", "att.v2": "S D"},
}  # fmt: skip
UNUSED = tuple(f"blocks.0.att.{name}" for name in ("v0", "v1", "v2"))  # of 7; files hold them
FIRST, FAAAA = "att.time_first", "att.time_faaaa"  # the bonus of 5, its logarithm or itself
TUNED = {"att.time_state": "H N N"}  # a tuned first state, of 5 and 6, which a file may hold


def version_of(weights: Mapping[str, Tensor]) -> str | None:
    """The version by its marks, as the package tells them; None for another family's tensors."""
    att = "blocks.0.att."
    if f"{att}r_k" in weights:
        return "7"
    if f"{att}time_maa_x" in weights:
        return "6.0"
    decay = weights.get(f"{att}time_decay")
    if decay is None:
        return None
    if f"{att}ln_x.weight" not in weights:
        return "4"
    if f"{att}gate.weight" not in weights:
        return "5.0"
    return "5.2" if decay.ndim > 1 and decay.shape[1] > 1 else "5.1"


def sizes_of(path: Path, weights: Mapping[str, Tensor], version: str) -> dict[str, int]:
    """The side of each letter; `ValueError` for tensors that are missing, unknown or do not fit."""
    named = _named(path, weights, version)
    missing = [name for name in named if name not in weights]
    unknown = sorted(weights.keys() - named.keys() - set(UNUSED if version == "7" else ()))
    if missing or unknown:
        kind = f"checkpoint of RWKV-{version}"
        raise ValueError(
            f"{path} lacks {some(missing)}, which a {kind} has"
            if missing
            else f"{path} holds {some(unknown)}, which no {kind} has"
        )
    sides: dict[str, int] = {}
    for name, letters in named.items():
        _fit(path, name, weights[name], letters.split(), sides)
    width, heads = sides["D"], sides.get("H")
    if heads and (width % heads or sides.get("N", width // heads) * heads != width):
        raise ValueError(f"{path}: {heads} heads do not make up its width of {width}")
    if "P" in sides and sides["P"] != 5 * sides["M"]:
        raise ValueError(
            f"{path}: time_maa_w1 has {sides['P']} columns; needed is {5 * sides['M']}"
        )
    return sides


def _named(path: Path, weights: Mapping[str, Tensor], version: str) -> Shapes:
    """Every tensor that a file of `version` holds, with its shape."""
    named = dict(OUTSIDE)
    if START in weights:  # in our own files
        named[START] = "1 D"
    for layer in range(layers_of(path, weights)):
        block = f"blocks.{layer}."
        shapes = dict(BLOCKS[version])
        if version.startswith("5") and f"{block}{FAAAA}" in weights:
            shapes[FAAAA] = shapes.pop(FIRST)
        if version[0] in "56" and f"{block}att.time_state" in weights:
            shapes |= TUNED
        named |= {f"{block}{name}": letters for name, letters in shapes.items()}
    if version == "7":
        for name in UNUSED:
            del named[name]
    return named


def _fit(path: Path, name: str, value: Tensor, letters: list[str], sides: dict[str, int]) -> None:
    shape = tuple(value.shape)
    if len(shape) == len(letters):
        for letter, side in zip(letters, shape, strict=True):
            sides.setdefault(letter, int(letter) if letter.isdigit() else side)
    needed = tuple(sides.get(letter, letter) for letter in letters)
    if shape != needed or not value.is_floating_point():
        said = f"of shape {shape}" if value.is_floating_point() else f"of {value.dtype}"
        raise ValueError(f"{path}: {name} is {said}; needed are floats of shape {needed}")
