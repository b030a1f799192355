"""Conditions on records, `KEY=VALUE`: over the columns of the index, by short or dotted names."""

import operator
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow

from bench.errors import BadInput, hint
from bench.store.tables import SHORT

PATTERN = re.compile(r"([A-Za-z_][^=!<>\s]*)\s*(!=|<=|>=|=|<|>)\s*(.*)", re.DOTALL)
OPERATORS = ("=", "!=", "<", "<=", ">", ">=")
NULL = "null"
# Hashes and ids: the first characters are enough, as for git.
PREFIXES = ("code.commit", "code.source_sha256", "config_hash", "data.sha256", "key")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """One condition as it was given."""

    key: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.value}"


def parse(texts: Iterable[str]) -> list[Condition]:
    """Conditions out of arguments, each with one or several; BadInput where one is none."""
    found = []
    for whole in texts:
        try:
            words = shlex.split(whole)
        except ValueError as error:
            raise BadInput(f"'{whole}' is no condition: {error}.") from error
        for word in words:
            match = PATTERN.fullmatch(word)
            if match is None:
                raise BadInput(
                    f"'{word}' is no condition; allowed: KEY and one of {' '.join(OPERATORS)} and "
                    "VALUE without spaces, such as task=text."
                )
            found.append(Condition(*match.groups()))
    return found


def select(table: pyarrow.Table, conditions: Sequence[Condition]) -> pyarrow.Table:
    """The rows that meet all conditions; BadInput for a key that no record has."""
    kept = [True] * table.num_rows
    for condition in conditions:
        name = column_of(table, condition.key)
        if name is None:  # a known short name that none of these records states
            test, values = _absent(condition), [None] * table.num_rows
        else:
            test = _test(condition, name, table.schema.field(name).type)
            values = table.column(name).to_pylist()
        kept = [k and test(value) for k, value in zip(kept, values, strict=True)]
    return table.filter(pyarrow.array(kept, pyarrow.bool_()))


def column_of(table: pyarrow.Table, key: str) -> str | None:
    """The column that a key names; None for a short name without one."""
    if key in table.column_names:
        return key
    if key in SHORT:
        return SHORT[key] if SHORT[key] in table.column_names else None
    top = sorted(name for name in table.column_names if "." not in name)
    names = [*sorted(SHORT), *top]
    raise BadInput(
        f"{key} is no column of these records; allowed: {', '.join(names)}, and the dotted names "
        f"that `records index --columns` lists.{hint(key, [*names, *table.column_names])}"
    )


def _absent(condition: Condition) -> Callable[[Any], bool]:
    met = (condition.operator == "=") == (condition.value == NULL)
    return lambda value: met and condition.operator in ("=", "!=")


def _test(condition: Condition, name: str, kind: pyarrow.DataType) -> Callable[[Any], bool]:
    """Whether a value meets the condition; a record without one meets `!=` and `=null` alone."""
    if condition.operator in ("=", "!="):
        any_of = [_equal(condition, name, kind, word) for word in condition.value.split(",")]
        wanted = condition.operator == "="
        return lambda value: any(test(value) for test in any_of) == wanted
    if pyarrow.types.is_boolean(kind):
        raise BadInput(f"{condition}: {condition.key} is true or false; allowed: = and !=.")
    compare = ORDER[condition.operator]
    if pyarrow.types.is_timestamp(kind):
        first, last = _moments(condition, condition.value)
        moment = last if condition.operator in ("<=", ">") else first
        return lambda value: value is not None and compare(value, moment)
    bound = _number(condition, condition.value) if _numeric(kind) else condition.value
    return lambda value: value is not None and compare(value, bound)


def _equal(
    condition: Condition, name: str, kind: pyarrow.DataType, word: str
) -> Callable[[Any], bool]:
    if word == NULL:
        return lambda value: value is None
    if pyarrow.types.is_boolean(kind):
        if word.lower() not in ("true", "false"):
            raise BadInput(f"{condition}: '{word}' is no value of {condition.key}; allowed: true, "
                           "false, null.")  # fmt: skip
        flag = word.lower() == "true"
        return lambda value: value is flag
    if pyarrow.types.is_timestamp(kind):
        first, last = _moments(condition, word)
        return lambda value: value is not None and first <= value <= last
    if _numeric(kind):
        number = _number(condition, word)
        return lambda value: bool(value == number)
    if name in PREFIXES and word:
        return lambda value: value is not None and value.startswith(word)
    return lambda value: bool(value == word)


def _numeric(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind))


def _number(condition: Condition, word: str) -> float:
    try:
        return int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)
    except ValueError:
        raise BadInput(
            f"{condition}: '{word}' is no number, {condition.key} holds numbers."
        ) from None


def _moments(condition: Condition, word: str) -> tuple[datetime, datetime]:
    """First and last moment that a word means: a day is all of it (UTC)."""
    try:
        first = datetime.fromisoformat(word)
    except ValueError:
        raise BadInput(
            f"{condition}: '{word}' is no time; allowed: 2026-11-25 or 2026-11-25T10:00:00Z."
        ) from None
    first = first if first.tzinfo else first.replace(tzinfo=UTC)
    day = timedelta(days=1) - timedelta(microseconds=1)
    return first, first + day if DAY.fullmatch(word) else first
