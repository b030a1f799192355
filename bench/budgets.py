"""What families are made equal in, as plain values: `match=NAME` with its target.

Free of torch: planning, records and reports read it; `bench.matching` acts by it.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from bench.errors import BadInput, unknown

PARAMS, FLOPS, TIME, STATE = "params", "flops", "time", "state"
TRAINING, SYMBOL = "training", "symbol"  # what FLOPs are of
UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}
OWN = {FLOPS: ("of",), STATE: ("context",)}  # keys that one of them alone reads
DEFAULT = {"of": TRAINING, "context": None}


def parse_duration(key: str, text: str | None) -> float | None:
    """Seconds of '90', '90s', '30min', '1h', '1.5h'."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|m|min|h)?\s*", text)
    if match is None or float(match[1]) == 0:
        raise BadInput(f"{key}={text} is no duration; allowed: such as 90s, 30min or 1.5h.")
    return float(match[1]) * UNITS[match[2] or ""]


def check(match: Mapping[str, Any]) -> None:
    """BadInput for a target that no model could meet, and for a key that is not read."""
    name, target = match["name"], match["target"]
    if name == TIME:
        if target is None:
            raise BadInput("match.target=null is no duration; allowed: such as 90s or 3min.")
        parse_duration("match.target", str(target))
    else:
        number = type(target) in (int, float) and 0 < target < math.inf
        if not number and not (name == PARAMS and target is None):
            more = ", or null: of the size" if name == PARAMS else ""
            raise BadInput(f"match.target={target} cannot be; allowed: numbers above 0{more}.")
    for owner, keys in OWN.items():
        for key in keys:
            if name != owner and match[key] != DEFAULT[key]:
                raise BadInput(f"match.{key} is read by match={owner} alone; leave it out.")
    if match["of"] not in (TRAINING, SYMBOL):
        raise unknown("match.of", match["of"], (TRAINING, SYMBOL))
    context = match["context"]
    if context is not None and not (type(context) is int and context >= 1):
        raise BadInput(f"match.context={context} is no length; allowed: integers from 1.")


def plain(match: Mapping[str, Any]) -> dict[str, Any]:
    """Name, target and what else is read of it: one spelling for one budget."""
    name, target = match["name"], match["target"]
    if name == TIME:
        target = parse_duration("match.target", str(target))
    kept = {key: match[key] for key in OWN.get(name, ())}
    return {"name": name, "target": None if target is None else float(target), **kept}


def shapes(match: Mapping[str, Any]) -> bool:
    """Whether shapes are solved for another quantity than the size's parameters."""
    name = match["name"]
    of_symbol = name == FLOPS and match["of"] == SYMBOL
    return name == STATE or of_symbol or (name == PARAMS and match["target"] is not None)


def words(match: Mapping[str, Any] | None) -> str | None:
    """As a record's cell and a table's title have it; None: parameters of the size."""
    if match is None or match["target"] is None:
        return None
    name, target = match["name"], f"{match['target']:.12g}"
    if name == TIME:
        return f"time {target} s"
    if name == FLOPS:
        return f"flops {target} of {'all training' if match['of'] == TRAINING else 'a symbol'}"
    if name == STATE:
        return f"state {target} bytes" + (f" at {match['context']}" if match["context"] else "")
    return f"params {target}"
