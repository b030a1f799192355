"""Make a finished run of a suite the published one; that of `quick` stands in the README too.

    python -m bench results=RESULTS
    python scripts/publish.py RESULTS

Kept are the records, and of the quality cells the scores of the test items and the learning curve;
logs and checkpoints are not. What was published before is replaced. Suite `quick` goes to
results/published, another one to results/published-NAME.

Refused, with exit code 2 and before anything is replaced: records of several suites, machines or
sources or that do not name theirs, of a source with uncommitted changes or of which git could not
say, cells that failed, a checkout with uncommitted changes, and a README without a place for the
table. A failed cell that was run again is judged by
its last record, and the failed one is not published.
"""

import datetime
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a file, this one's own folder stands there

from bench.store import Record, StoreError, read_paths  # noqa: E402

IN_README = "quick"
KEPT = ("items.npy", "curve.json")
BLOCK = re.compile(r"(?s)```text\n.*?```")
DATE = re.compile(r"printed it on [\d-]+, [^.]+\.")


class Refused(ValueError):
    """What was given cannot be published; the message is one sentence."""


def read(results: Path) -> list[Record]:
    """The records to publish, checked to be one finished run."""
    if not (results / "records").is_dir():
        raise Refused(f"{results} has no folder of records; give the results=FOLDER of a run.")
    records, problems, _ = read_paths([results])
    if problems:
        raise Refused(f"{problems[0]}; {len(problems)} of the files of {results} are no records.")
    if not records:
        raise Refused(f"{results} holds no record; give the results=FOLDER of a run.")
    records = sorted(records, key=lambda record: record["created"])
    last = {record["key"]: record for record in records}
    failed = [record for record in last.values() if record["status"] == "failed"]
    if failed:
        names = "; ".join(f"{_cell(record)}: {record['reason']}" for record in failed[:3])
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise Refused(f"{len(failed)} cells of {results} failed ({names}{more}); run them again.")
    _one(results, "suite", records, "cell", "suite")
    _one(results, "version of the suite", records, "versions", "suite")
    _one(results, "machine", records, "environment", "machine_key")
    _one(results, "source", records, "code", "source_sha256")
    changed = [r for r in records if (r.get("code") or {}).get("dirty") is not False]
    if changed:
        raise Refused(
            f"{len(changed)} records of {results}, such as {_cell(changed[0])}, were measured with "
            "uncommitted changes, outside of git or where git failed; commit what is changed and "
            "run the suite again."
        )
    return [record for record in records if record["status"] != "failed"]


def _one(results: Path, name: str, records: list[Record], section: str, key: str) -> None:
    """Refuse records that differ in a key of a section, which they need not have, or lack it."""
    values = [(cast(dict[str, Any], r).get(section) or {}).get(key) for r in records]
    if None in values:
        raise Refused(
            f"{results} holds a record, {_cell(records[values.index(None)])}, that names no {name}."
        )
    found = sorted({str(value) for value in values})
    if len(found) > 1:
        raise Refused(
            f"{results} holds records of more than one {name}: {', '.join(found)}; "
            "give a folder with one run alone."
        )


def _cell(record: Record) -> str:
    cell = record["cell"]
    return f"{cell['model']} · {cell['task']} · {cell['scenario']} · seed {cell['seed']}"


def check_tree(root: Path) -> None:
    """Refuse a checkout in which a commit of what is published would take something else along."""
    command = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused(f"{root} is no checkout of git, so nothing can be published into it.")
    if done.stdout:
        first = done.stdout.splitlines()[0][3:]
        raise Refused(f"{root} has uncommitted changes, such as in {first}; commit them first.")


def check_readme(text: str) -> None:
    """Refuse a README without the text block and the sentence that `print_in_readme` replaces."""
    if not BLOCK.search(text) or not DATE.search(text):
        raise Refused("README.md has no text block or no sentence with the date to replace.")


def copy(results: Path, records: list[Record], published: Path) -> None:
    """Replace `published` by what is kept of `results`."""
    shutil.rmtree(published, ignore_errors=True)
    (published / "records").mkdir(parents=True)
    for record in records:
        name = record["id"]
        shutil.copy(results / "records" / f"{name}.json", published / "records")
        for file in KEPT if record["cell"]["scenario"] == "quality" else ():
            artefact = results / "artefacts" / name / file
            if artefact.exists():
                target = published / "artefacts" / name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(artefact, target)


def span(records: list[Record]) -> tuple[str, str]:
    """Day of the last record, and the time of all cells: a run may have been broken off between."""
    day = max(datetime.datetime.fromisoformat(record["created"]) for record in records).date()
    minutes, rest = divmod(round(sum(record.get("wall_s") or 0.0 for record in records)), 60)
    return day.isoformat(), f"{minutes} min {rest} s"


def print_in_readme(root: Path, published: Path, records: list[Record]) -> None:
    """Put the table as `bench.report` prints it into the README's first text block."""
    command = [sys.executable, "-m", "bench.report", "table", str(published.relative_to(root))]
    table = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    table = "\n".join(line.rstrip() for line in table.strip().splitlines())
    readme = root / "README.md"
    day, took = span(records)
    text = BLOCK.sub(lambda _: f"```text\n{table}\n```", readme.read_text(), count=1)
    readme.write_text(DATE.sub(f"printed it on {day}, from cells that took {took}.", text, count=1))


def publish(results: Path, root: Path = ROOT) -> Path:
    """Publish a run; returns the folder. Raises `Refused` before anything is touched."""
    records = read(results)
    suite = str(records[0]["cell"]["suite"])
    published = root / "results" / "published"
    if suite != IN_README:
        published = published.with_name(f"{published.name}-{suite}")
    if results.resolve().is_relative_to(published.resolve()):
        raise Refused(f"{results} is what stands published; give the folder of a run.")
    check_tree(root)
    if suite == IN_README:
        check_readme((root / "README.md").read_text())
    copy(results, records, published)
    if suite == IN_README:
        print_in_readme(root, published, records)
    return published


def main(arguments: Sequence[str]) -> int:
    """Run the script; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python scripts/publish.py RESULTS", file=sys.stderr)
        return 2
    try:
        print(f"published: {publish(Path(arguments[0]))}")
    except (Refused, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
