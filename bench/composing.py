"""The cells of one request, composed from the configurations."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.backends import ALL, chosen, fallback, lacking, others, own, refusal
from bench.cell import MACHINE, Cell
from bench.checks import check_numbers
from bench.config import check_model, finish, finish_task
from bench.defaults import check_types, differs, stated
from bench.errors import BadInput
from bench.request import Composer, Request

if TYPE_CHECKING:  # Hydra is known to the command line alone
    from omegaconf import DictConfig

BASELINE = "baseline"
BASELINES = "baselines"
CEILINGS = "ceilings"
MODELLESS = (BASELINES, CEILINGS)


class CellBuilder:
    """Composes the cells of one request."""

    def __init__(self, request: Request, composer: Composer) -> None:
        self.request, self.composer = request, composer
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._scenarios: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._references: dict[str, DictConfig] = {}

    def of_model(
        self,
        variant: Sequence[str],
        device: str,
        size: str,
        task: str,
        model: str,
        scenarios: Sequence[str],
        backends: Sequence[str],
        asked: bool,
    ) -> list[Cell]:
        names = [f"model={model}", f"task={task}", f"size={size}", f"suite={self.request.suite}"]
        wanted = [name for name in scenarios if name not in MODELLESS]
        cells: list[Cell] = []
        for scenario in wanted:
            config = self._compose(names, scenario, variant)
            check_numbers(config)
            check_model(config)
            self._check_types(variant, names, size, config)
            form = (config.model.get("kinds") or {}).get(str(config.task.kind))
            if reason := _refusal(form, config, model, task, scenario):
                # Unasked, a model is passed over in silence where it cannot do one scenario, but
                # told of, once, where it can do none.
                if asked or (form is None and scenario == wanted[-1]):
                    cells.append(self._refused(config, device, reason))
                continue
            overridden = [_key(text, "model.") for text in variant if _key(text, "model.")]
            plain = finish(config, overridden, self.request.allow_targets)
            telling = self._telling(variant, names, size, config)
            for wish in backends:
                for backend in chosen(plain["model"], plain["task"]["kind"], device, wish):
                    cell = self._by(backend, wish, plain, device, variant, asked)
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
        variant: Sequence[str],
        asked: bool,
    ) -> Cell | None:
        """The cell by one implementation of the model; None where nobody asked for what cannot be.

        A backend that was named and is not installed is the user's to mend.
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
        if (note := fallback(model, kind, device, wish)) is not None:
            cell.part["fallback"] = note
        return cell

    def _compose(self, names: Sequence[str], scenario: str, variant: Sequence[str]) -> "DictConfig":
        """Composing takes Hydra a tenth of a second, so scenarios share what they do not change."""
        where = (*names, *variant)
        inside = tuple(text for text in variant if _key(text, "scenario."))
        node = self._scenarios.get((scenario, inside))
        if node is not None and where in self._composed:
            config = self._composed[where]
            config.scenario = node
            return config
        overrides = [*names, f"scenario={scenario}", *self.request.shared, *variant]
        config = self.composer.compose(overrides)
        self._composed[where] = config
        self._scenarios[scenario, inside] = config.scenario
        return config

    def _check_types(
        self, variant: Sequence[str], names: Sequence[str], size: str, config: "DictConfig"
    ) -> None:
        """Hold what the user gave against the value that it replaces."""
        if not variant:
            return
        keys = [_key(text, "") for text in variant]
        check_types(keys, config, self._reference(names), size)

    def _reference(self, names: Sequence[str]) -> "DictConfig":
        """What the user would have got without overrides inside a group."""
        where = " ".join(names)
        if where not in self._references:
            self._references[where] = self.composer.compose([*names, *self.request.shared])
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
        reference = self._reference(names)
        keys = dict.fromkeys(_key(text, "") for text in variant)
        inside = [stated(key, config) for key in keys if differs(key, config, reference, size)]
        return [*inside, *shared]

    def baselines(self, variant: Sequence[str], device: str, task: str, model: str) -> Cell:
        """The plain rivals of a task; `model` only completes the composition."""
        kept = [text for text in variant if _key(text, "task.")]
        names = [f"model={model}", f"task={task}", f"suite={self.request.suite}"]
        scenario = f"scenario={BASELINES}"
        config = self.composer.compose([*names, scenario, *self.request.shared, *kept])
        plain = finish_task(config, self.request.allow_targets)
        cell = self._cell(plain, device, tuple(kept))
        cell.part["overrides"] = self._telling(kept, names, "", config)
        return cell

    def ceilings(self, variant: Sequence[str], device: str, task: str, model: str) -> Cell:
        """The machine's own ceilings; task and model only complete the composition."""
        kept = [text for text in variant if _key(text, "scenario.")]
        names = [f"model={model}", f"task={task}", f"suite={self.request.suite}"]
        scenario = f"scenario={CEILINGS}"
        config = self.composer.compose([*names, scenario, *self.request.shared, *kept])
        plain = finish_task(config, self.request.allow_targets)
        plain["task"] = {"name": MACHINE, "kind": MACHINE}
        cell = self._cell(plain, device, tuple(kept))
        cell.part |= {"family": MACHINE, "model": MACHINE, "backend": "torch"}
        cell.part["overrides"] = list(kept)
        return cell

    def _refused(self, config: "DictConfig", device: str, reason: str) -> Cell:
        plain = finish_task(config, self.request.allow_targets)
        plain["model"] = {key: config.model.get(key) for key in ("name", "family", "backend")}
        plain["size"] = {"name": config.size.name, "parameters": config.size.parameters}
        cell = self._cell(plain, device, ())
        cell.unsupported = reason
        return cell

    def _cell(self, config: dict[str, Any], device: str, overrides: tuple[str, ...]) -> Cell:
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
        versions = {"suite": config["suite"]["version"], "task": task.get("version", 1)}
        order = float(config["scenario"].get("order", 99))
        preload = tuple(model.get("preload") or ())
        return Cell(part, config, preload, order, versions, overrides)


def _refusal(
    form: "DictConfig | None", config: "DictConfig", model: str, task: str, scenario: str
) -> str | None:
    """Why a model cannot be in this scenario of the task, or None where it can."""
    if config.model.get("pretrained") and config.task.kind != "language":
        return (
            f"model.pretrained is a language model, and task={task} is of kind '{config.task.kind}'"
        )
    if form is None:
        return f"model={model} has no form for tasks of kind '{config.task.kind}' (task={task})"
    reasons = form.get("reasons") or {}
    if scenario in reasons:  # also of what it could by what the scenario needs
        return str(reasons[scenario])
    if (config.scenario.get("needs") or scenario) in form.scenarios:
        return None
    can = ", ".join(form.scenarios)
    return f"model={model} on task={task} cannot {scenario}; it can: {can}"


def _key(override: str, prefix: str) -> str:
    """The dotted key of an override below `prefix`, or nothing."""
    key = override.lstrip("+~").partition("=")[0]
    return key[len(prefix) :] if key.startswith(prefix) else ""


def _measured(override: str) -> bool:
    """Whether an override of the whole suite changes what a figure means."""
    return _key(override, "suite.").startswith(("items", "test_items", "weight_decay"))
