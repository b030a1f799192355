"""What was given on the command line: overrides in Hydra's grammar, sorted by what they are for."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from bench.checks import check_scalar
from bench.config import AXES, GROUPS, RUNNER_KEYS, Optimizer
from bench.errors import BadInput, hint

WHOLE = ("suite", "match")  # groups of which every cell has the same one
# Keys of single cells; all others inside a group are of the whole suite.
INNER = ("model", "objective", "task", "scenario", "size", "optimizer")
MATCH = "params"  # what stands where nothing is given
# What a YAML file says of itself: set by hand, a record would claim to be another cell's.
FIXED = (
    *(f"{group}.name" for group in GROUPS),
    *("model.family", "model.kinds", "model.shapes", "model.objectives", "task.kind"),
    *("objective.kinds", "objective.serves", "objective.targets"),
)


class Overrides:
    """The overrides of one command line; Hydra must be initialised.

    `axes` holds the values of each axis, `runner` and `hydra` overrides as written, `inside` those
    inside a group, each as the points of its sweep.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.axes: dict[str, list[Any]] = {}
        self.suite, self.match = "quick", MATCH
        self.runner: list[str] = []
        self.inside: list[list[str]] = []
        self.hydra: list[str] = []
        self.searchpath: list[str] = []
        self._seen: set[str] = set()
        for text in texts:
            self._take(text)

    def shared(self) -> list[str]:
        """Overrides inside a group that hold for every cell."""
        found = [points for points in self.inside if not _inner(points[0])]
        if any(len(points) > 1 for points in found):
            raise BadInput("keys inside suite, match and device take one value; sweep others.")
        match = [] if self.match == MATCH else [f"match={self.match}"]
        return [*match, *(points[0] for points in found)]

    def variants(self) -> list[list[str]]:
        """Overrides inside a group that belong to single cells, one list a point of the sweep."""
        sweeps = [points for points in self.inside if _inner(points[0])]
        return [list(point) for point in itertools.product(*sweeps)]

    def _take(self, text: str) -> None:
        """Sort one override into axes, runner keys and keys inside a group."""
        text = _opened(_quoted(text))
        override = _parse(text)
        key, values = override.key_or_group, _values(override)
        if key in self._seen and key != "hydra.searchpath":
            lists = key in (*AXES, "lr") or key.startswith(("model.", "task."))
            more = ", values separated by commas" if lists else ""
            raise BadInput(f"{key} is given twice, '{text}' the second time; give it once{more}.")
        self._seen.add(key)
        if override.is_hydra_override():
            if key != "hydra.searchpath":
                raise BadInput(f"{key} cannot be set; of Hydra's own keys only hydra.searchpath.")
            self.searchpath += _folders(override.value())
            self.hydra.append(text)
        elif key in AXES or key in WHOLE:
            if override.package or override.is_add() or override.is_delete() or not values:
                raise BadInput(f"'{text}' cannot be; give {key}=VALUE or {key}=VALUE,VALUE.")
            self._take_axis(key, values)
        elif key in FIXED:
            raise BadInput(f"{key} is what a file of configs/ is, and cannot be set.")
        elif key in RUNNER_KEYS:
            if override.is_sweep_override():
                raise BadInput(f"'{text}': {key} takes one value; axes are {', '.join(AXES)}.")
            self.runner.append(text)
        elif key == "lr" or (key.partition(".")[0] in (*GROUPS, "optimizer") and "." in key):
            prefix = text.partition("=")[0]
            points = [f"{prefix}={value}" for value in values]
            self.inside.append(points if override.is_sweep_override() else [text])
        else:
            known = [*AXES, *WHOLE, "lr", *RUNNER_KEYS]
            raise BadInput(
                f"'{key}' is no key; allowed: {', '.join(known)}, and keys inside "
                f"{', '.join((*GROUPS, 'optimizer'))} such as model.backbone.d_model."
                f"{_meant(key) or hint(key, known)}"
            )

    def _take_axis(self, key: str, values: list[str]) -> None:
        if key in WHOLE:
            if len(values) != 1:
                raise BadInput(f"{key}={','.join(values)} is no single {key}; give one name.")
            setattr(self, key, values[0])
        elif key in GROUPS:
            self.axes[key] = list(values)
        else:
            self.axes[key] = [check_scalar(key, value) for value in values]


def _folders(value: Any) -> list[str]:
    """The folders of hydra.searchpath, each checked."""
    folders = [str(item) for item in (value if isinstance(value, list) else [value])]
    for folder in folders:
        path = folder.removeprefix("file://")
        if not path.startswith("pkg://") and not Path(path).is_dir():
            raise BadInput(f"hydra.searchpath={folder} is no folder; give a folder of YAML.")
    return [folder.removeprefix("file://") for folder in folders]


def _meant(key: str) -> str:
    """A hint where a key of the recipe is looked for elsewhere, as in train.weight_decay."""
    last = key.rpartition(".")[2]
    recipe = [field.name for field in dataclasses.fields(Optimizer)]
    return f" Did you mean 'optimizer.{last}'?" if last in recipe and last != "lr" else ""


def _inner(override: str) -> bool:
    """Whether an override belongs to single cells rather than to the whole suite."""
    key = override.lstrip("+~").partition("=")[0]
    return key == "lr" or key.partition(".")[0] in INNER


def _parse(text: str) -> Any:
    loader = GlobalHydra.instance().config_loader()
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([text])[0]
    except HydraException as error:
        raise BadInput(f"'{text}' cannot be read; give key=value, quoted where needed.") from error


def _quoted(text: str) -> str:
    """The override with its value in quotes where Hydra's grammar cannot read it bare.

    Its words are ASCII alone and have no parentheses, as folders of people do.
    """
    key, equals, value = text.partition("=")
    plain = equals and not set(value) & set("[]{}'\"\\,$") and re.fullmatch(r"[+\w./@]+", key)
    if not plain or not re.search(r"[^ -~]|[()]", value) or "range(" in value:
        return text
    return f"{key}='{value}'"


def _opened(text: str) -> str:
    """The override as one that may add keys, inside `options`: what a library's class takes."""
    return f"++{text}" if re.match(r"model\.[\w.]+\.options[.=]", text) else text


def _values(override: Any) -> list[str]:
    """The values of an override as strings, one unless it sweeps."""
    if override.is_sweep_override():
        try:
            return list(override.sweep_string_iterator())
        except HydraException as error:
            raise BadInput(f"'{override.input_line}' cannot be listed; use commas.") from error
    value = override.value()
    values = value if isinstance(value, list) else [value]
    return ["null" if item is None else str(item) for item in values]
