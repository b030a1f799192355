"""Matched shapes: solve integers of a model so that a quantity of it meets a target.

A model's configuration names, for each size, the values that are given (`shapes`) and the one
integer that is solved for (`solve`, by which parameters are met). Under another quantity that has a
rule of its own, such as `solve_state`, that one is met by the rule's integer while `solve` keeps
the parameters. Models are built on the meta device, so that solving costs no memory and little
time.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bench.constants import TOLERANCE
from bench.parameters import Count, count

CLOSE = 0.002  # no search for nearer ones
FIRST = 16  # steps above the lowest value, for a first slope
Tree = dict[str, Any]


@dataclass(frozen=True)
class Solve:
    """The dotted `key` that may take the values low, low + step, … up to high.

    These are multiples of the value at `unit`, such as heads of which a width is so many. `tied`
    keys keep their ratio to it. Where no value brings the model to its target, that of `depth`
    gives way, those near the size's before others.
    """

    key: str
    low: int
    high: int
    step: int
    unit: str | None = None
    tied: Sequence[str] = ()
    depth: str | None = None

    def within(self, tree: Tree) -> "Solve":
        """The rule in values of the key itself."""
        if self.unit is None:
            return self
        unit = get_dotted(tree, self.unit)
        low, high, step = (unit * value for value in (self.low, self.high, self.step))
        return replace(self, low=low, high=high, step=step, unit=None)

    def put(self, tree: Tree, value: int) -> Tree:
        """The same tree with the key set, and what is tied to it."""
        if self.tied:
            before = get_dotted(tree, self.key)
            for key in self.tied:
                set_dotted(tree, key, get_dotted(tree, key) * value // before)
        set_dotted(tree, self.key, value)
        return tree


@dataclass(frozen=True)
class Quantity:
    """What models are made equal in: its name, the key of the rule in a model's YAML, its value."""

    words: str
    rule: str
    measure: Callable[[nn.Module], int]


PARAMETERS = Quantity("parameters", "solve", lambda model: count(model).matched)


class Unmet(ValueError):
    """No shape brings the model within the tolerance of the target."""


class NoRule(ValueError):
    """The model's YAML does not say how the quantity is met."""


def get_dotted(tree: Tree, key: str) -> Any:
    """`tree["a"]["b"]` for key "a.b"."""
    node: Any = tree
    for part in key.split("."):
        node = node[part]
    return node


def set_dotted(tree: Tree, key: str, value: Any) -> None:
    """Set `tree["a"]["b"]` for key "a.b"; every part but the last must exist."""
    *path, last = key.split(".")
    node: Any = tree
    for part in path:
        if not isinstance(node, dict) or part not in node:
            raise ValueError(f"model.{key} names no value: there is no {part!r}")
        node = node[part]
    node[last] = value


def count_on_meta(build: Callable[[], nn.Module]) -> Count:
    with torch.device("meta"):
        return count(build())


def nearest(measure_at: Callable[[int], int], target: int, rule: Solve) -> tuple[int, int]:
    """The value of the solved key whose measure is nearest to `target`, and that measure.

    `measure_at` must not decrease by more than rounding.
    """
    seen: dict[int, int] = {}

    def at(index: int) -> int:
        if index not in seen:
            seen[index] = measure_at(rule.low + index * rule.step)
        return seen[index]

    # Counts are close to linear in the key, so a line through two points needs few builds: the
    # nearest on both sides of the target, or the last two while none beyond it is known.
    last = (rule.high - rule.low) // rule.step
    first = min(FIRST, last)
    before, low, high = (0, first, None) if at(first) < target else (0, 0, first)
    while at(0) < target and low < (last if high is None else high - 1):
        left, right = (before, low) if high is None else (low, high)
        rise = max(at(right) - at(left), 1)
        middle = left + round((right - left) * (target - at(left)) / rise)
        middle = min(max(middle, low + 1), last if high is None else high - 1)
        if at(middle) < target:
            before, low = low, middle
        else:
            high = middle
        if abs(at(middle) - target) <= CLOSE * target:
            break
    best = min(seen, key=lambda index: abs(seen[index] - target))
    return rule.low + best * rule.step, seen[best]


def solve(
    measure_at: Callable[[int], int], target: int, rule: Solve, words: str = PARAMETERS.words
) -> int:
    """The value of the solved key whose measure is nearest to `target`.

    Raises `Unmet` when the nearest lies outside the tolerance.
    """
    value, found = nearest(measure_at, target, rule)
    if abs(found - target) > TOLERANCE * target:
        raise Unmet(
            f"no value of {rule.key} between {rule.low} and {rule.high} brings the model within "
            f"{TOLERANCE:.0%} of {target:,} {words}; the nearest, {value}, gives {found:,}"
        )
    return value


def fit(
    model: Tree,
    kind: str,
    size: str,
    target: int,
    instantiate: Callable[[Tree], nn.Module],
    quantity: Quantity = PARAMETERS,
    parameters: int | None = None,
) -> Tree:
    """The configuration of `model` for one kind of task with its shape set and its keys solved.

    `model` is the resolved model group. Returns the node to instantiate, whose `quantity` is within
    the tolerance of `target`. Without `shapes` (a user's own module) the configuration is taken as
    it stands. `parameters` are kept where the quantity has a rule of its own.
    """
    own, name = _form(model, kind), model.get("name")
    shapes = own.get("shapes", model.get("shapes"))
    if not shapes:
        if quantity.rule != PARAMETERS.rule:
            raise NoRule(f"model={name} has no 'shapes', so that nothing of it can be solved for")
        return copy.deepcopy(own["model"])
    if size not in shapes:
        raise ValueError(
            f"size={size} is not known to model={model.get('name')}; it has: {', '.join(shapes)}"
        )

    def tree() -> Tree:
        made = copy.deepcopy(model)
        _share(made.get("backbone"), made["kinds"][kind]["model"])
        for key, given in shapes[size].items():
            set_dotted(made, key, given)
        return made

    def measure(made: Tree, of: Quantity) -> int:
        with torch.device("meta"):
            return of.measure(instantiate(made["kinds"][kind]["model"]))

    def solved(rule: Solve | None, of: Quantity, to: int) -> Tree:
        found = tree()
        if rule is None:
            return found
        value = solve(
            lambda value: measure(rule.put(tree(), value), of), to, rule.within(found), of.words
        )
        return rule.put(found, value)

    rule = _rule(own.get(PARAMETERS.rule, model.get(PARAMETERS.rule)))
    if quantity.rule == PARAMETERS.rule:
        found = solved(rule, quantity, target)
    elif (key := quantity.rule) in (own if key in own else model) and not own.get(
        key, model.get(key)
    ):
        raise Unmet(f"model={name}: the value that {quantity.words} are solved by was given itself")
    elif (outer := _rule(own.get(quantity.rule, model.get(quantity.rule)))) is None:
        found = solved(rule, PARAMETERS, parameters or 0)
        measure(found, quantity)  # whose sentence tells more where the model has no such quantity
        raise NoRule(
            f"model={name} has no key '{quantity.rule}' that says by which integer "
            f"its {quantity.words} are met"
        )
    else:
        inner = None if rule is None or rule.key == outer.key else rule
        wanted = None if inner is None else parameters
        found = _both(tree, measure, outer, inner, quantity, target, wanted)
    node: Tree = found["kinds"][kind]["model"]
    return node


def _both(
    tree: Callable[[], Tree],
    measure: Callable[[Tree, Quantity], int],
    outer: Solve,
    inner: Solve | None,
    quantity: Quantity,
    target: int,
    parameters: int | None,
) -> Tree:
    """A tree whose quantity and whose parameters are met, at the depth nearest to the size's."""

    def with_parameters(made: Tree) -> tuple[Tree, int]:
        """By the inner rule, and how many there are."""
        if inner is None or parameters is None:
            return made, 0
        value, count_ = nearest(
            lambda value: measure(inner.put(copy.deepcopy(made), value), PARAMETERS),
            parameters, inner.within(made),
        )  # fmt: skip
        return inner.put(made, value), count_

    def shape(depth: int | None, value: int) -> tuple[Tree, int]:
        made = tree()
        if depth is not None and outer.depth is not None:
            set_dotted(made, outer.depth, depth)
        return with_parameters(outer.put(made, value))

    said: list[tuple[float, str]] = []
    within = outer.within(tree())
    for depth in _depths(tree(), outer):

        def measure_at(value: int, depth: int | None = depth) -> int:
            return measure(shape(depth, value)[0], quantity)

        value, found = nearest(measure_at, target, within)
        made, held = shape(depth, value)
        layers = "" if depth is None else f" in {depth} layers"
        if abs(found - target) > TOLERANCE * target:
            apart, what = abs(found / target - 1), f"gives {found:,}"
        elif parameters is not None and abs(held - parameters) > TOLERANCE * parameters:
            apart, what = abs(held / parameters - 1), f"meets them with {held:,} parameters"
        else:
            return made
        said.append((apart, f"{outer.key}={value}{layers} {what}"))
    asked = "" if parameters is None else f" and {parameters:,} parameters"
    raise Unmet(
        f"no value of {outer.key} between {within.low} and {within.high} brings the model within "
        f"{TOLERANCE:.0%} of {target:,} {quantity.words}{asked}; the nearest, {min(said)[1]}"
    )


def _depths(tree: Tree, rule: Solve) -> Iterator[int | None]:
    """The size's own depth, then its neighbours, one less before one more."""
    if rule.depth is None:
        yield None
        return
    own = get_dotted(tree, rule.depth)
    yield own
    for apart in range(1, own):
        yield from (own - apart, own + apart)


def _rule(given: Mapping[str, Any] | None) -> Solve | None:
    return None if given is None else Solve(**given)


def _form(model: Tree, kind: str) -> Tree:
    kinds = model.get("kinds", {})
    if kind not in kinds:
        allowed = ", ".join(kinds) or "none"
        raise ValueError(f"model={model.get('name')} has no kind {kind!r}; it has: {allowed}")
    form: Tree = kinds[kind]
    return form


def _share(backbone: object, node: object) -> None:
    """Make the form's backbone the model's own again: resolving interpolations copied it.

    It stands below `node`, in another part of the form where the objective wraps it.
    """
    if not isinstance(backbone, dict) or not isinstance(node, dict):
        return
    inner = node.get("backbone")
    if isinstance(inner, dict) and inner.get("_target_") == backbone.get("_target_"):
        # A form may override single values of the shared backbone; they win.
        backbone.update(inner)
        node["backbone"] = backbone
        return
    for part in node.values():
        _share(backbone, part)
