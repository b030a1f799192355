"""Write the rates that `scenario=tune` found into `configs/model/*.yaml`.

    python -m bench scenario=tune results=RESULTS
    python scripts/commit_rates.py RESULTS

`tuned` says at which size: a rate that was not searched for at a size is marked in the table.
Tasks that the results do not hold keep what they had.
"""

import re
import sys
from pathlib import Path

import yaml

from bench.store import read_paths

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "model"


def main(results: Path) -> None:
    records, problems, _ = read_paths([results])
    for problem in problems:
        print(problem, file=sys.stderr)
    found: dict[str, dict[str, tuple[float, str]]] = {}  # model, task -> rate, size
    for record in sorted(records, key=lambda r: r["created"]):
        cell = record["cell"]
        if cell["scenario"] == "tune" and record["status"] == "ok":
            rate = float(record["figures"]["best_lr"])
            found.setdefault(cell["model"], {})[cell["task"]] = (rate, str(cell["size"]))
            trials = ", ".join(f"{t['lr']}: {t['value']}" for t in record["tuning"]["trials"])
            print(f"{cell['model']} {cell['task']}: {rate} of {trials}")
    for name, tasks in found.items():
        path = CONFIGS / f"{name}.yaml"
        text = path.read_text()
        for task, (rate, _) in tasks.items():
            text = re.sub(rf"(?m)^(lr: \{{.*\b{task}: )[\d.e-]+", rf"\g<1>{rate:g}", text)
        merged = yaml.safe_load(text)["tuned"]
        for task, (rate, size) in tasks.items():
            merged.setdefault(task, {})[size] = rate
        tuned = ", ".join(
            f"{task}: {{{', '.join(f'{size}: {rate:g}' for size, rate in sizes.items())}}}"
            for task, sizes in merged.items()
        )
        text = re.sub(r"(?m)^tuned: .*$", f"tuned: {{{tuned}}}", text)
        path.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/commit_rates.py RESULTS")
    main(Path(sys.argv[1]))
