"""From a suite and the user's axes to a list of cells, in the order in which they run."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.backends import AUTO
from bench.cell import Cell
from bench.checks import compile_refusal
from bench.composing import BASELINES, CEILINGS, CellBuilder
from bench.errors import BadInput, unknown
from bench.frontier import FRONTIER
from bench.objectives import NONE
from bench.request import Composer, Request

if TYPE_CHECKING:  # Hydra is known to the command line alone
    from omegaconf import DictConfig


def expand(request: Request, composer: Composer, base: "DictConfig") -> list[Cell]:
    """Every cell of the request, in the order in which they run.

    `base` is the configuration of any cell: axes that were not given have its values, or those of
    its suite. BadInput where a name is unknown, a value cannot be, or no cell is left.
    """
    axes = {name: list(dict.fromkeys(values)) for name, values in request.axes.items()}
    suite = base.suite
    axes.setdefault("model", list(suite.models))
    axes.setdefault("task", list(suite.tasks))
    axes.setdefault("objective", list(suite.objectives))
    axes["objective"] = [None if name in (None, NONE) else str(name) for name in axes["objective"]]
    sizes = axes.get("size")
    by_task = {task: sizes or list(suite.sizes.get(task, [suite.size])) for task in axes["task"]}
    axes["size"] = list(dict.fromkeys(itertools.chain(*by_task.values())))
    axes.setdefault("seed", list(suite.seeds))
    axes.setdefault("backend", list(suite.backends) if base.backend == AUTO else [base.backend])
    asked = axes.get("scenario")
    modelless = {BASELINES: suite.baselines, CEILINGS: suite.ceilings}
    scenarios = asked or [*suite.scenarios, *(name for name, on in modelless.items() if on)]
    for group, names in (
        *((g, axes[g]) for g in ("model", "task", "size")),
        ("objective", [name for name in axes["objective"] if name is not None]),
        ("scenario", scenarios),
    ):
        _check_names(
            group, names, composer.options(group), given=group in request.axes, suite=suite
        )
    for key in ("weight_decay", "sizes"):
        for name in suite[key]:
            if name not in composer.options("task"):
                raise unknown(f"suite.{key}: task", name, composer.options("task"))

    builder = CellBuilder(request, composer)
    cells: list[Cell] = []
    points = itertools.product(
        request.variants,
        request.devices,
        axes.get("dtype", [base.dtype]),
        axes.get("threads", [base.threads]),
        axes.get("compile", [base.compile]),
    )
    for variant, device, dtype, threads, compiled in points:
        scalars = {
            "dtype": dtype, "threads": threads or request.cores, "compile": compiled
        }  # fmt: skip
        for size, task, objective, model in itertools.product(
            axes["size"], axes["task"], axes["objective"], axes["model"]
        ):
            if size not in by_task[task]:
                continue
            found = builder.of_model(
                variant, device, str(dtype), size, task, model, objective,
                scenarios, axes["backend"], bool(asked), "objective" in request.axes,
            )  # fmt: skip
            for cell in found:
                cell.unsupported = cell.unsupported or compile_refusal(compiled, device)
                cells += [_with(cell, seed=seed, **scalars) for seed in axes["seed"]]
        if BASELINES in scenarios:
            for name in axes["task"]:
                rivals = builder.baselines(variant, device, name, axes["model"][0])
                cells.append(_with(rivals, seed=0, **scalars))
        if CEILINGS in scenarios:
            ceilings = builder.ceilings(variant, device, axes["task"][0], axes["model"][0])
            cells.append(_with(ceilings, seed=0, **scalars))
    cells = _unique(cells)
    if not cells:
        raise BadInput(
            f"suite={request.suite} with what was given leaves no cell to run; "
            "see `python -m bench list` for what each model can do."
        )
    return sorted(cells, key=_place)


def _check_names(
    group: str, names: Sequence[str], options: Sequence[str], *, given: bool, suite: "DictConfig"
) -> None:
    """BadInput for a name that is no option, said of the suite where the user did not give it."""
    for name in names:
        if name not in options:
            raise unknown(group if given else f"suite={suite.name}: {group}", name, options)


def _place(cell: Cell) -> tuple[float, int]:
    """Cheap scenarios first, and of frontiers the small sizes: they bound those of larger ones."""
    bounded = cell.part["scenario"] == FRONTIER
    return cell.order, cell.config["size"]["parameters"] if bounded else 0


def _with(cell: Cell, **values: Any) -> Cell:
    """The cell at other values of the scalar axes."""
    part, config = {**cell.part, **values}, {**cell.config, **values}
    return Cell(
        part, config, cell.preload, cell.order, cell.versions, cell.overrides, cell.unsupported
    )


def _unique(cells: Sequence[Cell]) -> list[Cell]:
    """Without cells that are the same one twice, as baselines of a sweep over sizes are."""
    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    kept: list[Cell] = []
    for cell in cells:
        if (cell.part, cell.config) not in seen:
            seen.append((cell.part, cell.config))
            kept.append(cell)
    return kept
