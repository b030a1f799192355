"""Write the rates that `scenario=tune` found into `configs/model/*.yaml`.

    python -m bench scenario=tune results=RESULTS
    python scripts/commit_rates.py RESULTS

`tuned` says at which size: a rate that was not searched for at a size is marked in the table.
Tasks that the results do not hold keep what they had. Refused, with exit code 2 and before any file
is written: results without a finished search, and a model without a place for its rate.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a file, this one's own folder stands there

from bench.store import StoreError, read_paths  # noqa: E402

CONFIGS = ROOT / "configs" / "model"
Rates = dict[str, dict[tuple[str, str], float]]  # model -> (task, size) -> rate


class Refused(ValueError):
    """The rates cannot be written; the message is one sentence."""


def rates(results: Path) -> Rates:
    """The last search of each model, task and size; each is told."""
    records, problems, _ = read_paths([results])
    for problem in problems:
        print(problem, file=sys.stderr)
    found: Rates = {}
    for record in sorted(records, key=lambda r: r["created"]):
        cell: Any = record["cell"]
        if cell["scenario"] != "tune" or record["status"] != "ok":
            continue
        rate = float(record["figures"]["best_lr"])
        found.setdefault(cell["model"], {})[cell["task"], str(cell["size"])] = rate
        tried: Any = record["tuning"]["trials"]
        listed = ", ".join(f"{trial['lr']}: {trial['value']}" for trial in tried)
        print(f"{cell['model']} {cell['task']}: {rate} of {listed}")
        grid = [trial["lr"] for trial in tried]
        if rate in (min(grid), max(grid)):
            print(f"{cell['model']} {cell['task']}: {rate} is an end of the grid", file=sys.stderr)
    if not found:
        raise Refused(f"{results} holds no finished cell of scenario=tune.")
    return found


def rewritten(text: str, found: dict[tuple[str, str], float], name: str) -> str:
    """The YAML of a model with its rates; `Refused` where it has no line or entry for one."""
    tuned = (yaml.safe_load(text) or {}).get("tuned")
    if tuned is None or not re.search(r"(?m)^tuned: \{.*\}$", text):
        raise Refused(f"{name} has no line 'tuned: {{…}}' for the rates.")
    for (task, size), rate in found.items():
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
    for name, found in rates(results).items():
        path = configs / f"{name}.yaml"
        if not path.is_file():
            raise Refused(f"{path} does not exist; model={name} is not one of this repository.")
        texts[path] = rewritten(path.read_text(), found, path.name)
    for path, text in texts.items():
        path.write_text(text)
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
