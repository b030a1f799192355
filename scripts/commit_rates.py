"""Write what `scenario=tune` found into `configs/model/*.yaml`, and keep the records beside it.

    python -m bench scenario=tune results=RESULTS
    python scripts/commit_rates.py RESULTS

`lr` and `weight_decay` of a model's YAML are its defaults by task, `tuned` says at which size they
were searched for: what was not is marked in the table. A weight decay is written where more than
one was tried. The searches' records go to `results/tuned`. Tasks that the results do not hold keep
what they had. Refused, with exit code 2 and before any file is written: results without a finished
search, a search of a changed model or recipe (another grid is none), several searches that
disagree, families with unequal numbers of trials on a task, and a model without a place for it.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a file, this one's own folder stands there

from bench.store import Store, StoreError, read_paths  # noqa: E402
from bench.store.merge import merge  # noqa: E402

CONFIGS = ROOT / "configs" / "model"
KEPT = ROOT / "results" / "tuned"
# Overrides that leave model and recipe as they are.
GRID = ("scenario.grid=", "scenario.weight_decay=", "suite.test_items=")


@dataclass(frozen=True)
class Search:
    """The best rate and weight decay, what was tried, and the record that says so."""

    rate: float
    decay: float | None  # None: a single one was tried
    trials: Any
    record: str


Searches = dict[tuple[str, str], Search]  # by task and size


class Refused(ValueError):
    """The rates cannot be written; the message is one sentence."""


def searches_in(results: Path) -> dict[str, Searches]:
    """What was found for each model, task and size; `Refused` where that is not one answer."""
    records, problems, _ = read_paths([results])
    for problem in problems:
        print(problem, file=sys.stderr)
    found: dict[str, Searches] = {}
    for record in sorted(records, key=lambda r: r["created"]):
        cell: Any = record["cell"]
        if cell["scenario"] != "tune" or record["status"] != "ok":
            continue
        search = _search(record)
        name = f"{cell['model']} · {cell['task']} · {cell['size']}"
        changes = [text for text in cell.get("overrides") or [] if not text.startswith(GRID)]
        changes += [f"{key}={cell[key]}" for key in ("objective", "match") if cell.get(key)]
        if changes:
            raise Refused(
                f"{results} holds a search of {name} with {' '.join(changes)}, which is not what "
                "the defaults run; give a folder without it."
            )
        of_model = found.setdefault(cell["model"], {})
        earlier = of_model.setdefault((cell["task"], str(cell["size"])), search)
        if (earlier.rate, earlier.decay) != (search.rate, search.decay):
            raise Refused(
                f"{results} holds searches of {name} that found {earlier.rate:g} and "
                f"{search.rate:g}; give a folder with the one to be written."
            )
    if not found:
        raise Refused(f"{results} holds no finished cell of scenario=tune.")
    _check_effort(found)
    return found


def _search(record: Any) -> Search:
    trials, figures = record["tuning"]["trials"], record["figures"]
    several = len({trial.get("weight_decay") for trial in trials}) > 1
    decay = float(figures["best_weight_decay"]) if several else None
    return Search(float(figures["best_lr"]), decay, trials, record["id"])


def _check_effort(found: dict[str, Searches]) -> None:
    """`Refused` where one family had more trials than another on the same task and size."""
    efforts: dict[tuple[str, str], dict[int, str]] = {}
    for model, searches in found.items():
        for place, search in searches.items():
            efforts.setdefault(place, {}).setdefault(len(search.trials), model)
    for (task, size), models in efforts.items():
        if len(models) > 1:
            (few, less), (many, more) = sorted(models.items())[:: len(models) - 1]
            raise Refused(
                f"{task} · {size}: {less} had {few} trials and {more} {many}; the same number for "
                "each family is a fair search."
            )


def tell(model: str, found: Searches) -> None:
    """Say what of a model was written, and which rates lie at an end of what was tried."""
    for (task, size), search in found.items():
        tried = ", ".join(f"{_point(trial)}: {trial['value']}" for trial in search.trials)
        decay = "" if search.decay is None else f" with weight decay {search.decay:g}"
        print(f"{model} {task} {size}: {search.rate}{decay} of {tried} ({search.record})")
        rates_tried = [trial["lr"] for trial in search.trials]
        if search.rate in (min(rates_tried), max(rates_tried)):
            print(f"{model} {task} {size}: {search.rate} is an end of the grid", file=sys.stderr)


def _point(trial: Any) -> str:
    decay = trial.get("weight_decay")
    return str(trial["lr"]) if decay is None else f"{trial['lr']}/{decay:g}"


def rewritten(text: str, found: Searches, name: str) -> str:
    """The YAML of a model with what was found; `Refused` where it has no lines for it."""
    model = yaml.safe_load(text) or {}
    for key in ("lr", "tuned"):
        if not re.search(_line(key), text):
            raise Refused(f"{name} has no line '{key}: {{…}}' for the rates.")
    rates, tuned = model["lr"], model["tuned"]
    decays = dict(model.get("weight_decay") or {})
    for (task, size), search in found.items():
        rates[task] = search.rate
        tuned.setdefault(task, {})[size] = search.rate
        if search.decay is not None:
            decays[task] = search.decay
    lines = [f"lr: {_flow(rates)}"]
    if decays:
        lines.append(f"weight_decay: {_flow(decays)}")
    text = re.sub(_line("weight_decay") + "\n", "", text)
    text = re.sub(_line("lr"), "\n".join(lines), text)
    return re.sub(_line("tuned"), f"tuned: {_flow(tuned)}", text)


def _line(key: str) -> str:
    """A mapping on one line of its own; what a comment behind it said of the old one goes."""
    return rf"(?m)^{key}: \{{.*\}}(?: +#.*)?$"


def _flow(values: Any) -> str:
    """A mapping on one line, numbers as short as they are read."""
    if not isinstance(values, dict):
        return f"{values:g}" if isinstance(values, int | float) else str(values)
    return "{" + ", ".join(f"{key}: {_flow(value)}" for key, value in values.items()) + "}"


def commit(results: Path, configs: Path = CONFIGS, kept: Path = KEPT) -> list[Path]:
    """Write everything that was found, or nothing; returns the files of the models."""
    texts: dict[Path, str] = {}
    searches = searches_in(results)
    for name, found in searches.items():
        path = configs / f"{name}.yaml"
        if not path.is_file():
            raise Refused(f"{path} does not exist; model={name} is not one of this repository.")
        texts[path] = rewritten(path.read_text(), found, path.name)
    ids = {search.record for found in searches.values() for search in found.values()}
    for problem in merge([Store(results)], Store(kept), only=ids).problems:
        print(problem, file=sys.stderr)
    for path, text in texts.items():
        path.write_text(text)
    for name, found in searches.items():
        tell(name, found)
    return list(texts)


def main(arguments: Sequence[str]) -> int:
    """Run the script; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python scripts/commit_rates.py RESULTS", file=sys.stderr)
        return 2
    try:
        commit(Path(arguments[0]))
    except (Refused, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
