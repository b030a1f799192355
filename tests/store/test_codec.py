"""orjson is taken only where it gives what the standard library gives."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.store.codec import decode

LONG = 10**19
SCALARS = (
    st.none() | st.booleans() | st.integers(-LONG, LONG) | st.integers() | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


def alike(one: Any, other: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are equal to Python, 0.0 and -0.0 too."""
    return repr(one) == repr(other)


@settings(max_examples=50, deadline=None)
@given(value=VALUES, compact=st.booleans(), escaped=st.booleans())
def test_any_value_is_read_and_written_without_loss(
    value: Any, compact: bool, escaped: bool
) -> None:
    whole = {"value": value}
    separators = (",", ":") if compact else None
    text = json.dumps(whole, ensure_ascii=escaped, separators=separators).encode()
    found, encode = decode(text)
    assert alike(found, whole)
    assert alike(decode(encode(found))[0], whole)


@pytest.mark.parametrize(
    "text",
    [
        "[9223372036854775807,9223372036854775808,18446744073709551615,18446744073709551616]",
        "[-9223372036854775808, -9223372036854775809]",
        '{"a":123456789012345678901234567890}',
        "[1e999, -1e999, NaN, Infinity, -Infinity]",
        '["a\\ud800b", "\\ud83d\\ude00"]',
        '{"a": 1, "a": 2}',
        "[0.12345678901234567890123, 12345678901234567890.5, 1e22, 5e-324, -0, -0.0, 1E5]",
        "[" * 600 + "]" * 600,
        "\ufeff[1]",
    ],
)
def test_what_others_write_is_read_as_the_standard_library_reads_it(text: str) -> None:
    content = text.encode()
    found, encode = decode(content)
    assert alike(found, json.loads(content))
    assert alike(decode(encode(found))[0], found)


def test_a_constant_is_told() -> None:
    told: list[str] = []
    assert decode(b"[NaN, -Infinity]", told.append)[0] == [None, None]
    assert told == ["NaN", "-Infinity"]
    assert math.isinf(decode(b"[Infinity]")[0][0])


@pytest.mark.parametrize("text", [b'{"a": 1', b"[1,]", b"['a']", b"[01]", b'["\t"]', b"[1] 2"])
def test_a_wrong_text_is_told_in_the_words_of_the_standard_library(text: bytes) -> None:
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as found:
        decode(text)
    assert str(found.value) == str(expected.value)
