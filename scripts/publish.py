"""Make a finished run of a suite the published one; that of `quick` stands in the README too.

    python -m bench results=RESULTS
    python scripts/publish.py RESULTS

Kept are the records, and of the quality cells the scores of the test items and the learning curve;
logs and checkpoints are not. What was published before is replaced. Suite `quick` goes to
results/published, another one to results/published-NAME.
"""

import datetime
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published"
IN_README = "quick"
KEPT = ("items.npy", "curve.json")


def suite_of(results: Path) -> str:
    """The one suite that all records of `results` belong to."""
    records = [json.loads(path.read_text()) for path in (results / "records").glob("*.json")]
    suites = {record["cell"]["suite"] for record in records}
    if len(suites) != 1:
        raise SystemExit(f"{results} holds records of {sorted(suites) or 'no suite'}, not of one")
    return suites.pop()


def copy(results: Path, published: Path) -> None:
    """Replace `published` by what is kept of `results`."""
    if results.resolve().is_relative_to(published.resolve()):
        raise SystemExit(f"{results} is what stands published; give the folder of a run")
    shutil.rmtree(published, ignore_errors=True)
    (published / "records").mkdir(parents=True)
    for source in sorted((results / "records").glob("*.json")):
        shutil.copy(source, published / "records")
        record = json.loads(source.read_text())
        for name in KEPT:
            artefact = results / "artefacts" / record["id"] / name
            if record["cell"]["scenario"] == "quality" and artefact.exists():
                target = published / "artefacts" / record["id"]
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(artefact, target)


def span() -> tuple[str, str]:
    """Day of the last record, and the wall time from the first cell's start to the last's end."""
    records = [json.loads(path.read_text()) for path in PUBLISHED.glob("records/*.json")]
    ends = [datetime.datetime.fromisoformat(record["created"]) for record in records]
    first = min(range(len(records)), key=ends.__getitem__)
    seconds = (max(ends) - ends[first]).total_seconds() + records[first]["wall_s"]
    minutes, rest = divmod(round(seconds), 60)
    return max(ends).date().isoformat(), f"{minutes} min {rest} s"


def print_in_readme() -> None:
    """Put the table as `bench.report` prints it into the README's first text block."""
    command = [sys.executable, "-m", "bench.report", "table", "results/published"]
    table = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    table = "\n".join(line.rstrip() for line in table.strip().splitlines())
    readme = ROOT / "README.md"
    text = readme.read_text()
    day, took = span()
    block = f"```text\n{table}\n```"
    text, blocks = re.subn(r"(?s)```text\n.*?```", lambda _: block, text, count=1)
    text, dates = re.subn(
        r"printed it on [\d-]+, in [^.]+\.", f"printed it on {day}, in {took}.", text, count=1
    )
    if not blocks or not dates:
        raise SystemExit("README.md has no text block or no sentence with the date to replace")
    readme.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/publish.py RESULTS")
    suite = suite_of(Path(sys.argv[1]))
    if suite == IN_README:
        copy(Path(sys.argv[1]), PUBLISHED)
        print_in_readme()
    else:
        copy(Path(sys.argv[1]), PUBLISHED.with_name(f"{PUBLISHED.name}-{suite}"))
