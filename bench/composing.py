"""The cells of one request, composed from the configurations."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench import budgets
from bench.backends import ALL, chosen, fallback, lacking, others, own, refusal
from bench.cell import MACHINE, Cell
from bench.checks import check_numbers
from bench.config import check_model, finish, finish_task, tree_of
from bench.defaults import check_types, differs, set_shapes, stated
from bench.errors import BadInput
from bench.objectives import NONE, Under, lay
from bench.request import Composer, Request

if TYPE_CHECKING:  # Hydra is known to the command line alone
    from omegaconf import DictConfig

BASELINE = "baseline"
BASELINES = "baselines"
CEILINGS = "ceilings"
MODELLESS = (BASELINES, CEILINGS)
OWN_FORM = ("model.kinds.", "model.lr", "model.tuned")


# One of a group, with the overrides inside that group.
Option = tuple[str, str, tuple[str, ...]]


class CellBuilder:
    """Composes the cells of one request; what those of models share is composed once."""

    def __init__(self, request: Request, composer: Composer) -> None:
        self.request, self.composer = request, composer
        self._composed: dict[tuple[str, tuple[str, ...]], tuple[DictConfig, dict[str, Option]]] = {}
        self._options: dict[Option, Any] = {}
        self._references: dict[str, DictConfig] = {}

    def of_model(
        self,
        variant: Sequence[str],
        device: str,
        dtype: str,
        size: str,
        task: str,
        model: str,
        objective: str | None,
        scenarios: Sequence[str],
        backends: Sequence[str],
        asked: bool,
        asked_objective: bool,
    ) -> list[Cell]:
        """The cells of one model on one task: one for each of its scenarios by each backend.

        `scenarios` that are without a model are passed over. `backends` are values of the axis, of
        which auto and all mean other ones for each model. `asked` says whether the user named the
        scenarios: then what the model cannot do is a cell too, which says why. Where not, it is
        left out, but for the last scenario of a model without a form for the task. The same holds
        of an `objective` that no one expects of the model, if the user did not name it.

        BadInput where values are of the wrong type or cannot be, or a backend that was named is not
        installed.
        """
        names = [*self._names(model, task), *_chosen("objective", objective), f"size={size}"]
        wanted = [name for name in scenarios if name not in MODELLESS]
        cells: list[Cell] = []
        for scenario in wanted:
            picked = {"model": model, "objective": objective or NONE, "task": task}
            config = self._compose({**picked, "scenario": scenario}, size, variant)
            check_numbers(config)
            check_model(config)
            self._check_types(variant, names, size, config)
            tree = tree_of(config)
            found = lay(tree, self.composer.options("objective"))
            form = (tree["model"].get("kinds") or {}).get(str(config.task.kind))
            telling = self._telling(variant, names, size, config)
            if reason := found.refused or _refusal(form, config, model, task, scenario):
                # Unasked, a model is passed over in silence where it cannot do one scenario, but
                # told of, once, where it has no form for the task.
                once = scenario == wanted[-1] and (form is None or bool(found.refused))
                if asked or (once and (asked_objective or found.expected)):
                    refused = self._refused(tree, device, reason)
                    refused.part["overrides"] = telling
                    cells.append(refused)
                continue
            _check_inside(found, variant, model)
            overridden = [_key(text, "model.") for text in variant if _key(text, "model.")]
            plain = finish(tree, overridden, self.request.allow_targets)
            kind = plain["task"]["kind"]
            for wish in backends:
                for backend in chosen(plain["model"], kind, device, dtype, wish):
                    cell = self._by(backend, wish, plain, device, dtype, variant, asked)
                    if cell is not None:
                        cell.part["overrides"] = telling
                        cells.append(cell)
        return cells

    def _by(
        self,
        backend: str,
        wish: str,
        plain: dict[str, Any],
        device: str,
        dtype: str,
        variant: Sequence[str],
        asked: bool,
    ) -> Cell | None:
        """The cell by one implementation of the model, with the reason where that cannot do it.

        None where `wish` is all, the implementation is installed and cannot do the scenario, and
        nobody `asked` for that. BadInput where `wish` names it and it is not installed, which is
        the user's to mend.
        """
        model, kind = plain["model"], plain["task"]["kind"]
        needs = plain["scenario"].get("needs") or plain["scenario"]["name"]
        reason = refusal(model, kind, backend, needs)
        there = others(model, kind)
        if reason is not None and wish == backend and lacking(there.get(backend, {})):
            raise BadInput(reason)
        does_others = wish == ALL and backend in there and not lacking(there[backend])
        if reason is not None and does_others and not asked:
            return None
        config = copy.deepcopy(plain)
        config["backend"] = backend
        config["model"]["backends"] = {
            name: entry for name, entry in there.items() if name == backend
        }
        cell = self._cell(config, device, tuple(variant))
        cell.part["backend"] = backend
        cell.unsupported = reason
        if (note := fallback(model, kind, device, dtype, wish)) is not None:
            cell.part["fallback"] = note
        return cell

    def _compose(
        self, picked: Mapping[str, str], size: str, variant: Sequence[str]
    ) -> "DictConfig":
        """The configuration with the option that is picked of each group.

        Composing takes Hydra a seventh of a second, so it is done once, and other options are put
        where the first ones stood: read from their own file, or, with overrides inside their group
        or of several files, composed once for each of their overrides. The same configuration is
        given back, with other options in it, until `size` or the overrides outside these groups
        change: what is kept of it has to be copied.
        """
        inside = {g: tuple(x for x in variant if _key(x, f"{g}.")) for g in picked}
        outside = tuple(x for x in variant if not any(x in texts for texts in inside.values()))
        options = {g: (g, name, inside[g]) for g, name in picked.items()}
        if (size, outside) in self._composed and all(map(self._known, options.values())):
            config, there = self._composed[size, outside]
            for group, option in options.items():
                if there[group] != option:
                    config[group], there[group] = self._options[option], option
            return config
        names = [text for group, name in picked.items() for text in _chosen(group, name)]
        overrides = [*names, f"size={size}", f"suite={self.request.suite}"]
        config = self.composer.compose([*overrides, *self.request.shared, *variant])
        self._composed[size, outside] = config, options
        for group, option in options.items():
            self._options[option] = config[group]
        return config

    def _known(self, option: Option) -> bool:
        """Whether the option is there without composing anything."""
        group, name, inside = option
        if option not in self._options and not inside:
            found = self.composer.alone(group, name)
            if found is not None:
                self._options[option] = found
        return option in self._options

    def _check_types(
        self, variant: Sequence[str], names: Sequence[str], size: str, config: "DictConfig"
    ) -> None:
        """Hold what the user gave against the value that it replaces."""
        if not variant:
            return
        keys = [_key(text, "") for text in variant]
        check_types(keys, config, self._reference(names, size))

    def _reference(self, names: Sequence[str], size: str) -> "DictConfig":
        """What the user would have got without overrides that belong to single cells."""
        where = " ".join(names)
        if where not in self._references:
            found = self.composer.compose([*names, *self.request.shared])
            set_shapes(found, size)
            self._references[where] = found
        return self._references[where]

    def _telling(
        self, variant: Sequence[str], names: Sequence[str], size: str, config: "DictConfig"
    ) -> list[str]:
        """The overrides that make the cell another one than the defaults would.

        One that repeats a default is none: its result is that of the default cell.
        """
        shared = [text for text in self.request.shared if _measured(text)]
        if not variant:
            return shared
        reference = self._reference(names, size)
        keys = dict.fromkeys(_key(text, "") for text in variant)
        inside = [stated(key, config) for key in keys if differs(key, config, reference)]
        return [*inside, *shared]

    def baselines(self, variant: Sequence[str], device: str, task: str, model: str) -> Cell:
        """The plain rivals of a task; `model` only completes the composition."""
        kept, config, cell = self._without_model(BASELINES, "task.", variant, device, task, model)
        cell.part["overrides"] = self._telling(kept, self._names(model, task), "", config)
        return cell

    def ceilings(self, variant: Sequence[str], device: str, task: str, model: str) -> Cell:
        """The machine's own ceilings; task and model only complete the composition."""
        kept, _, cell = self._without_model(CEILINGS, "scenario.", variant, device, task, model)
        cell.part |= {"family": MACHINE, "model": MACHINE, "backend": "torch"}
        cell.part["overrides"] = list(kept)
        return cell

    def _without_model(
        self, scenario: str, group: str, variant: Sequence[str], device: str, task: str, model: str
    ) -> "tuple[list[str], DictConfig, Cell]":
        """The overrides inside the one group that matters, the configuration and the cell."""
        kept = [text for text in variant if _key(text, group)]
        names = [*self._names(model, task), f"scenario={scenario}"]
        config = self.composer.compose([*names, *self.request.shared, *kept])
        plain = finish_task(tree_of(config), self.request.allow_targets)
        if scenario == CEILINGS:
            plain["task"] = {"name": MACHINE, "kind": MACHINE}
            del plain["match"]  # nothing of the machine's own hangs on it
        return kept, config, self._cell(plain, device, tuple(kept))

    def _names(self, model: str, task: str) -> list[str]:
        """The overrides that pick the model, the task and the request's suite."""
        return [f"model={model}", f"task={task}", f"suite={self.request.suite}"]

    def _refused(self, tree: dict[str, Any], device: str, reason: str) -> Cell:
        """The cell that will not run, with the names alone of its model, which is not built."""
        model, size, objective = tree["model"], tree["size"], tree["objective"]
        plain = finish_task(tree, self.request.allow_targets)
        plain["model"] = {key: model.get(key) for key in ("name", "family", "backend")}
        plain["size"] = {key: size[key] for key in ("name", "parameters")}
        if objective is not None:
            plain["objective"] = objective["name"]
        cell = self._cell(plain, device, ())
        cell.unsupported = reason
        return cell

    def _cell(self, config: dict[str, Any], device: str, overrides: tuple[str, ...]) -> Cell:
        """The cell of a resolved configuration, into which the device's name is written."""
        model, task = config.get("model") or {}, config["task"]
        config["device"]["name"] = device
        part = {
            "suite": config["suite"]["name"],
            "family": model.get("family", BASELINE),
            "model": model.get("name", BASELINE),
            "size": "own" if model.get("pretrained") else (config.get("size") or {}).get("name"),
            "task": task["name"],
            "kind": task["kind"],
            "scenario": config["scenario"]["name"],
            "seed": config["seed"],
            "device": device,
            "dtype": config["dtype"],
            "threads": config["threads"],
            "compile": config["compile"],
            "backend": own(model, task["kind"]) if model else None,
            "kernel": model.get("kernel"),
        }
        if (match := budgets.words(config.get("match"))) is not None:
            part["match"] = match
        if "objective" in config:  # none but another one than the family's own
            part["objective"] = config["objective"]
        versions = {"suite": config["suite"]["version"], "task": task.get("version", 1)}
        order = float(config["scenario"].get("order", 99))
        preload = tuple(model.get("preload") or ())
        return Cell(part, config, preload, order, versions, overrides)


def _refusal(
    form: Mapping[str, Any] | None, config: "DictConfig", model: str, task: str, scenario: str
) -> str | None:
    """Why a model cannot be in this scenario of the task, or None where it can."""
    if config.model.get("pretrained") and config.task.kind != "language":
        return (
            f"model.pretrained is a language model, and task={task} is of kind '{config.task.kind}'"
        )
    if config.model.get("pretrained") and config.match.name != budgets.PARAMS:
        return (
            f"match={config.match.name} needs a model whose size is free; model.pretrained is not"
        )
    if form is None:
        return f"model={model} has no form for tasks of kind '{config.task.kind}' (task={task})"
    brought = config.task.get("form")
    if brought is not None and (reason := _refusal_of_objective(form, config, model, task)):
        return reason
    if config.task.get("causal") and form.get("causal") is False:
        return (
            f"model={model} reads from both sides, without the symbols at which it is asked, and "
            f"task={task} asks at symbols that have to be read"
        )
    reasons = form.get("reasons") or {}
    if scenario in reasons:  # also of what it could by what the scenario needs
        return str(reasons[scenario])
    scenarios = form["scenarios"] if brought is None else brought.scenarios
    if (config.scenario.get("needs") or scenario) in scenarios:
        return None
    can = ", ".join(scenarios)
    return f"model={model} on task={task} cannot {scenario}; it can: {can}"


def _refusal_of_objective(
    form: Mapping[str, Any], config: "DictConfig", model: str, task: str
) -> str | None:
    """Why a model cannot be under the objective that the task brings along, or None."""
    if config.model.get("pretrained"):
        return f"model.pretrained is a language model, and task={task} trains another objective"
    if form.get("causal") is False:
        return (
            f"model={model} fills in what is hidden from both sides, and task={task} asks for a "
            "backbone that reads a sequence into its last position"
        )
    return None


def _check_inside(found: Under, variant: Sequence[str], model: str) -> None:
    """BadInput for a value that was given inside a form which another one replaces."""
    for key in (_key(text, "") for text in variant):
        if found.name and key.startswith(OWN_FORM):
            raise BadInput(
                f"{key} is of the own form of model={model}, which objective={found.name} "
                f"replaces; give objective.{key.removeprefix('model.')}."
            )
        if found.own and key.startswith("objective."):
            raise BadInput(
                f"{key} is of the forms of other families: objective={found.own} is the own one of "
                f"model={model}; give model.{key.removeprefix('objective.')}."
            )


def _chosen(group: str, name: str | None) -> list[str]:
    """The override that picks one of a group; Hydra knows none for nothing."""
    return [] if name in (None, NONE) else [f"{group}={name}"]


def _key(override: str, prefix: str) -> str:
    """The dotted key of an override below `prefix`, or nothing."""
    key = override.lstrip("+~").partition("=")[0]
    return key[len(prefix) :] if key.startswith(prefix) else ""


def _measured(override: str) -> bool:
    """Whether an override of the whole suite changes what a figure means."""
    told = ("items", "test_items", "weight_decay")
    return _key(override, "suite.").startswith(told)
