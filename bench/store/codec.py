"""JSON, read and written by orjson wherever it keeps what the standard library keeps.

It does not everywhere: it reads whole numbers beyond 64 bits as fractions, and it takes no infinite
number, no half of a surrogate pair, no other encoding than UTF-8. Such texts go to `json`, which is
three times slower, and so do texts that are wrong, for the sentence that says where.
"""

import json
from collections.abc import Callable
from typing import Any

import orjson

Encode = Callable[[Any], bytes]
Constant = Callable[[str], Any]

# Digits become "0", what may stand before a number " ", all else "x": a whole number of so many
# digits as one of 64 bits may have is then found by a search, many times faster than by a pattern.
_KINDS = bytes(
    ord("0" if chr(byte).isdigit() and byte < 128 else " " if chr(byte) in " \t\r\n:,[-" else "x")
    for byte in range(256)
)
_LONG = b" " + b"0" * 19

# A record has no cycles, and looking for them takes time. What JSON reads as infinite stays so.
_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def decode(content: bytes, constant: Constant | None = None) -> tuple[Any, Encode]:
    """The value in a JSON text, and what writes it, or parts of it, without loss.

    `constant` is called for NaN and Infinity, which are no JSON but which `json` writes.
    """
    if _LONG not in content.translate(_KINDS):
        try:
            return orjson.loads(content), _fast
        except orjson.JSONDecodeError:
            pass
    return json.loads(content, parse_constant=constant), _exact


def _fast(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # nested more deeply than it writes
        return _exact(value)


def _exact(value: Any) -> bytes:
    return _json(value).encode()
