"""Whether a value read from JSON is of a type: a scalar, a list, a dictionary, a TypedDict.

Null fits every type, though not as an item of a list, and keys that a TypedDict does not have are
let through. A whole number has 64 bits, and a fraction is one that a float can hold: what is larger
is no measurement, and no table could show it.
"""

import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[object, str], None]


MOST = 2**63 - 1  # whole numbers


@functools.cache
def _plain(kind: Any) -> frozenset[type]:
    """The types that fit `kind` as they stand, so that most values need no call of a check."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return frozenset().union(*map(_plain, typing.get_args(kind)))
    return frozenset((kind,) if kind in (str, bool, float, type(None)) else ())


@functools.cache
def _plain_or_null(kind: Any) -> frozenset[type]:
    return _plain(kind) | {type(None)}


@functools.cache
def checker(kind: Any) -> Check:
    """A function that raises ValueError unless its argument is of `kind`, or null."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value, where: None
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind).items()
        fields = {name: (_plain_or_null(hint), checker(hint)) for name, hint in hints}
        return functools.partial(_check_fields, fields)
    if origin is list:
        return functools.partial(_check_list, _plain(arguments[0]), checker(arguments[0]))
    if origin is dict:
        return functools.partial(_check_dict, _plain_or_null(arguments[1]), checker(arguments[1]))
    if origin in (typing.Union, types.UnionType):
        return functools.partial(_check_scalar, tuple(a for a in arguments if a is not type(None)))
    return functools.partial(_check_scalar, (kind,))


def _check_fields(
    fields: Mapping[str, tuple[frozenset[type], Check]], value: object, where: str
) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise ValueError(f"has {where} = a JSON {kind_of(value)} where an object belongs")
    for name, item in value.items():
        if (field := fields.get(name)) and type(item) not in field[0]:
            field[1](item, f"{where}.{name}" if where else name)


def _check_list(plain: frozenset[type], check: Check, value: object, where: str) -> None:
    if value is None:
        return
    if not isinstance(value, list):
        raise ValueError(f"has {where} = a JSON {kind_of(value)} where a list belongs")
    if plain.issuperset(map(type, value)):
        return
    for index, item in enumerate(value):
        if item is None:
            raise ValueError(f"has {where}[{index}] = null, where a value belongs")
        check(item, f"{where}[{index}]")


def _check_dict(plain: frozenset[type], check: Check, value: object, where: str) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise ValueError(f"has {where} = a JSON {kind_of(value)} where an object belongs")
    if plain.issuperset(map(type, value.values())):
        return
    for name, item in value.items():
        check(item, f"{where}.{name}")


def _check_scalar(kinds: tuple[type, ...], value: object, where: str) -> None:
    if value is None:
        return
    if isinstance(value, bool):  # a bool is an int to Python, but not to a record
        fits = bool in kinds
    else:
        fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
        fits = fits or (int in kinds and isinstance(value, float) and value.is_integer())
        if isinstance(value, int) or (isinstance(value, float) and float not in kinds):
            fits = fits and -MOST <= value <= MOST
    if not fits:
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"has {where} = {str(value)[:40]!r} where {names} belongs")


def kind_of(value: object) -> str:
    """JSON's own word for the type of a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
