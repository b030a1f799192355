"""Write the rates that `scenario=tune` found into `configs/model/*.yaml`.

    python -m bench scenario=tune results=RESULTS
    python scripts/commit_rates.py RESULTS

`tuned` says at which size: a rate that was not searched for at a size is marked in the table.
Tasks that the results do not hold keep what they had. Refused, with exit code 2 and before any file
is written: results without a finished search, a search of a changed model or recipe (another grid
is none), several searches that disagree, and a model without a place for its rate.
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

from bench.store import StoreError, read_paths  # noqa: E402

CONFIGS = ROOT / "configs" / "model"
GRID = "scenario.grid="  # the one override that leaves model and recipe as they are


@dataclass(frozen=True)
class Search:
    """The best rate, and what was tried."""

    rate: float
    trials: Any


Searches = dict[tuple[str, str], Search]  # by task and size


class Refused(ValueError):
    """The rates cannot be written; the message is one sentence."""


def rates(results: Path) -> dict[str, Searches]:
    """What was found for each model, task and size; `Refused` where that is not one rate."""
    records, problems, _ = read_paths([results])
    for problem in problems:
        print(problem, file=sys.stderr)
    found: dict[str, Searches] = {}
    for record in sorted(records, key=lambda r: r["created"]):
        cell: Any = record["cell"]
        if cell["scenario"] != "tune" or record["status"] != "ok":
            continue
        search = Search(float(record["figures"]["best_lr"]), record["tuning"]["trials"])
        name = f"{cell['model']} · {cell['task']} · {cell['size']}"
        changes = [text for text in cell.get("overrides") or [] if not text.startswith(GRID)]
        if changes:
            raise Refused(
                f"{results} holds a search of {name} with {' '.join(changes)}, which is not what "
                "the defaults run; give a folder without it."
            )
        of_model = found.setdefault(cell["model"], {})
        earlier = of_model.setdefault((cell["task"], str(cell["size"])), search)
        if earlier.rate != search.rate:
            raise Refused(
                f"{results} holds searches of {name} that found {earlier.rate:g} and "
                f"{search.rate:g}; give a folder with the one to be written."
            )
    if not found:
        raise Refused(f"{results} holds no finished cell of scenario=tune.")
    return found


def tell(model: str, found: Searches) -> None:
    """Say which rates of a model were written, and which lie at an end of what was tried."""
    for (task, size), search in found.items():
        tried = ", ".join(f"{trial['lr']}: {trial['value']}" for trial in search.trials)
        print(f"{model} {task} {size}: {search.rate} of {tried}")
        rates_tried = [trial["lr"] for trial in search.trials]
        if search.rate in (min(rates_tried), max(rates_tried)):
            print(f"{model} {task} {size}: {search.rate} is an end of the grid", file=sys.stderr)


def rewritten(text: str, found: Searches, name: str) -> str:
    """The YAML of a model with its rates; `Refused` where it has no line or entry for one."""
    tuned = (yaml.safe_load(text) or {}).get("tuned")
    if tuned is None or not re.search(r"(?m)^tuned: \{.*\}$", text):
        raise Refused(f"{name} has no line 'tuned: {{…}}' for the rates.")
    for (task, size), search in found.items():
        rate = search.rate
        text, count = re.subn(
            rf"(?m)^(lr: \{{(?:.*[ ,])?{re.escape(task)}: )[\d.e+-]+", rf"\g<1>{rate:g}", text
        )
        if not count:
            raise Refused(f"{name} has no entry '{task}' in its line 'lr: {{…}}'; add one.")
        tuned.setdefault(task, {})[size] = rate
    listed = ", ".join(
        f"{task}: {{{', '.join(f'{size}: {rate:g}' for size, rate in sizes.items())}}}"
        for task, sizes in tuned.items()
    )
    return re.sub(r"(?m)^tuned: \{.*\}$", f"tuned: {{{listed}}}", text)


def commit(results: Path, configs: Path = CONFIGS) -> list[Path]:
    """Write every rate, or none; returns the files."""
    texts: dict[Path, str] = {}
    searches = rates(results)
    for name, found in searches.items():
        path = configs / f"{name}.yaml"
        if not path.is_file():
            raise Refused(f"{path} does not exist; model={name} is not one of this repository.")
        texts[path] = rewritten(path.read_text(), found, path.name)
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
