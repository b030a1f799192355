"""Text as the symbols of a checkpoint's own tokenizer.

Bits per byte stay comparable with those of bytes: the windows are the same ones, moved to the
characters that hold their ends, and their nats are divided by their bytes.
"""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:  # processes that encode alone load no torch
    import torch
    from torch import Tensor

WORLD = "rwkv_vocab_v20230424"  # the name under which the rwkv package brings its vocabulary
LOGITS = 2**26  # at once, 256 MB of fp32


class Tokenizer(Protocol):
    """Text to symbols and back, which are numbers below `vocab_size`."""

    vocab_size: int

    def encode(self, text: str) -> list[int]: ...
    def decode(self, symbols: Sequence[int]) -> str: ...


class Bytes:
    """Text as its bytes, as models without a tokenizer see it."""

    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, symbols: Sequence[int]) -> str:
        return bytes(symbols).decode(errors="replace")


class _OfTransformers:
    """A tokenizer of transformers, without symbols of its own around the text."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer

        self._own: Any = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=Path(folder).exists()
        )
        self.vocab_size = _rows(self._own.get_vocab())

    def encode(self, text: str) -> list[int]:
        return list(self._own.encode(text, add_special_tokens=False, verbose=False))

    def decode(self, symbols: Sequence[int]) -> str:
        return str(self._own.decode(symbols, clean_up_tokenization_spaces=False))


class _World:
    """The tokenizer of RWKV's "World" models, from the rwkv package's own table."""

    def __init__(self) -> None:
        from rwkv.rwkv_tokenizer import TRIE_TOKENIZER

        spec = importlib.util.find_spec("rwkv")
        assert spec is not None
        assert spec.origin is not None
        self._own: Any = TRIE_TOKENIZER(str(Path(spec.origin).parent / f"{WORLD}.txt"))
        self.vocab_size = 65536

    def encode(self, text: str) -> list[int]:
        return list(self._own.encode(text))

    def decode(self, symbols: Sequence[int]) -> str:
        return str(self._own.decode(list(symbols)))


class _OfFile:
    """A tokenizer.json of the tokenizers library."""

    def __init__(self, path: str) -> None:
        from tokenizers import Tokenizer as Library

        self._own: Any = Library.from_file(path)
        self.vocab_size = _rows(self._own.get_vocab())

    def encode(self, text: str) -> list[int]:
        return list(self._own.encode(text, add_special_tokens=False).ids)

    def decode(self, symbols: Sequence[int]) -> str:
        return str(self._own.decode(list(symbols), skip_special_tokens=False))


def _rows(vocabulary: Mapping[str, int]) -> int:
    """Rows that a table needs for all symbols, whose numbers may have gaps."""
    return 1 + max(vocabulary.values(), default=-1)


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer in a folder or a file, or the one called `WORLD`; ValueError where none is."""
    try:
        if name == WORLD:
            return _World()
        if Path(name).expanduser().is_file():
            return _OfFile(str(Path(name).expanduser()))
        return _OfTransformers(str(Path(name).expanduser()))
    except Exception as error:  # the libraries raise plain exceptions, and KeyError, and OSError
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"task.tokenizer={name} cannot be read: {said}; allowed are a folder with a "
            f"tokenizer.json, such a file, {WORLD} (pip install rwkv), or null for bytes"
        ) from error


def characters(part: Any, context: int, chosen: Iterable[int] | None = None) -> list[str]:
    """Windows of `context` bytes as text, each end moved back to where its character begins.

    `part` are bytes, or an array of them; only the windows `chosen` are read, by default all.
    """
    count = len(part) // context
    first = _begin(part, 0)  # of bytes before it, inside a character that is cut, nothing is left
    texts = []
    for n in range(count) if chosen is None else map(int, chosen):
        begin, end = (max(first, _begin(part, at * context)) for at in (n, n + 1))
        try:
            texts.append(bytes(part[begin:end]).decode())
        except UnicodeDecodeError as error:
            raise ValueError(
                f"task.tokenizer needs text in UTF-8, and byte {error.start} of a window is none; "
                "allowed here is task.tokenizer=null"
            ) from error
    return texts


def _begin(part: Any, at: int) -> int:
    """Where the character begins that byte `at` belongs to; of cut ones at both ends, past them."""
    if at == 0:
        while at < len(part) and _inside(part[at]):
            at += 1
        return at
    first = min(at, len(part) - 1)
    while first > 0 and _inside(part[first]):
        first -= 1
    if at < len(part):
        return first
    lead = int(part[first])
    length = 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0)
    return at if first + length <= at else first


def _inside(byte: int) -> bool:
    """Whether a byte is none that a character of UTF-8 begins with."""
    return int(byte) & 0xC0 == 0x80


@dataclass(frozen=True)
class Scored:
    """-log p of each window, nats (N,); its symbols (N,); how many are not what these stand for."""

    nats: np.ndarray
    counts: np.ndarray
    lost: int


def window_nats(
    model: Any, tokenizer: Tokenizer, texts: Sequence[str], device: "torch.device"
) -> Scored:
    """Score every window.

    Windows of about the same number of symbols go together, padded on the right, where nothing
    that counts can see it.
    """
    symbols = [tokenizer.encode(text) for text in texts]
    lost = sum(tokenizer.decode(ids) != text for ids, text in zip(symbols, texts, strict=True))
    order = sorted(range(len(symbols)), key=lambda n: len(symbols[n]))
    nats = np.zeros(len(symbols))
    at = 0
    while at < len(order):
        # What follows is at least as long as the first, so that the last one decides.
        size = 1
        while at + size < len(order) and size < 64:
            longest = len(symbols[order[at + size]])
            if (size + 1) * longest * tokenizer.vocab_size > LOGITS:
                break
            size += 1
        chosen = order[at : at + size]
        tokens, counted = padded([symbols[n] for n in chosen], device)
        if tokens.shape[1]:
            nats[chosen] = -model.log_prob(tokens, counted).nats.double().cpu().numpy()
        at += size
    return Scored(nats, np.array([len(ids) for ids in symbols]), lost)


def padded(rows: Sequence[Sequence[int]], device: "torch.device") -> "tuple[Tensor, Tensor]":
    """Rows of different lengths as (B, T), zeros behind them, and which symbols are real."""
    import torch

    length = max(map(len, rows))
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    counted = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        counted[number, : len(row)] = True
    return tokens.to(device), counted.to(device)
