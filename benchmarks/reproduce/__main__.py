"""Run published statements on probes, and say of each: holds here, does not, cannot be told.

    python -m benchmarks.reproduce [STUDY ...] [--results FOLDER] [--seeds 3] [--jobs 2]
                                   [--markdown docs/probes.md]

Every rival of a study is tuned over the same rates by one `scenario=tune` on validation, then
trained from as many seeds at the best, each cell on one thread; `--jobs` of them run side by side,
so that seconds are no figures of speed. Cells that are finished are not run again: an interrupted
study goes on. Tables go to stdout and, by `--markdown`, between the study's two markers in a file.
The exit code is 1 where a cell failed.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.machine.environment import describe
from bench.store import Store
from benchmarks.reproduce.judging import Found, judge, provisional, sentence, shown
from benchmarks.reproduce.studies import STUDIES, VALUE, Rival, Study

COMMON = (
    "suite=probes-quick", "suite.baselines=false", "suite.validation_items=256",
    "suite.test_items=512", "size=micro", "threads=1", "timeout=3600",
)  # fmt: skip


class Failed(RuntimeError):
    """A cell of a rival has no score; the message says which, and why."""


def find(study: Study, rival: Rival, folder: Path, seeds: int) -> Found:
    """Tune one rival, train it from every seed, and read what it reached."""
    words = (*COMMON, f"task={study.task}", *study.words, *rival.words, f"results={folder}")
    rates = ",".join(map(str, study.rates))
    (search,) = _run(folder, *words, "scenario=tune", f"scenario.grid=[{rates}]")
    trials, rate = search["tuning"]["trials"], float(search["figures"]["best_lr"])
    numbers = ",".join(map(str, range(seeds)))
    made = _run(folder, *words, "scenario=quality", f"lr={rate}", f"seed={numbers}")
    made.sort(key=lambda record: record["cell"]["seed"])
    qualities = [record["quality"] for record in made]
    return Found(
        rival=rival,
        rate=rate,
        tried=", ".join(f"{trial['lr']:g}: {_short(trial['value'])}" for trial in trials),
        scores={
            name: [q["value"] if name == VALUE else q["secondary"][name] for q in qualities]
            for name in study.scores
        },
        seconds=sum(q["train_seconds"] for q in qualities) / len(qualities),
        state=(made[0].get("figures") or {}).get("state_bytes"),
    )


def _run(folder: Path, *words: str) -> list[Any]:
    """The records of cells, which are run where they are not finished yet."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words, "output=json"], capture_output=True, text=True
    )
    if done.returncode:
        raise Failed(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")
    store = Store(folder)
    listed = json.loads(done.stdout.splitlines()[-1])["records"]
    records: list[Any] = [store.read(entry["id"]) for entry in listed]
    for record in records:
        if record["status"] != "ok":
            raise Failed(f"{' '.join(words)}: {record['status']}, {record['reason']}")
    return records


def _short(value: float | None) -> str:
    return "no score" if value is None else f"{value:.3f}"


def table(study: Study, found: Mapping[str, Found], seeds: int) -> str:
    """The study as Markdown."""
    names = {VALUE: "in training's length"} | {
        name: f"at {name.removeprefix('at_')}" for name in study.scores if name != VALUE
    }
    heads = [
        "rival", *(names[name] for name in study.scores), "state, bytes", "rate",
        "validation by rate",
    ]  # fmt: skip
    rows = [
        [
            f.rival.name, *(shown(f.scores[name]) for name in study.scores),
            "" if f.state is None else f"{f.state:,}", _rate(f, study.rates), f.tried,
        ]
        for f in found.values()
    ]  # fmt: skip
    verdicts = [[sentence(s), *judge(s, found)] for s in study.says]
    setting = " ".join((f"task={study.task}", *study.words))
    return "\n".join([
        f"### {study.title}", "", f"Published: {study.published}", "",
        f"Here: `python -m benchmarks.reproduce {study.name} --seeds {seeds}` (`{setting}`, size "
        f"micro: 0.07 M parameters), {_machine()}; mean over {seeds} seeds ± 95 % interval by "
        f"Student's t{provisional(seeds)}.", "",
        *_lines(heads, rows), "", *_lines(["published", "here", "figure"], verdicts), "",
        *([study.note, ""] if study.note else []),
    ])  # fmt: skip


def _rate(found: Found, tried: Sequence[float]) -> str:
    """The rate; one at an end of those that were tried might not be the best there is."""
    return f"{found.rate:g}" + (" (an end)" if found.rate in (min(tried), max(tried)) else "")


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    made = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(row)} |" for row in made]


def _machine() -> str:
    seen = describe(threads=1)
    return f"{seen['cpu']}, torch {seen['packages']['torch']}"


def put(path: Path, study: Study, text: str) -> None:
    """Between the study's markers in a file; ValueError where it has none."""
    begin, end = f"<!-- {study.name} -->", f"<!-- /{study.name} -->"
    old = path.read_text()
    pattern = re.compile(rf"(?s){re.escape(begin)}.*?{re.escape(end)}")
    if not pattern.search(old):
        raise ValueError(f"{path} has no lines '{begin}' and '{end}' for the table")
    path.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old))


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    names = [study.name for study in STUDIES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(names)}")
    parser.add_argument("--results", type=Path, default=Path("results/reproduce"))
    parser.add_argument("--seeds", type=int, default=3, help="2 or more (default: 3)")
    parser.add_argument("--jobs", type=int, default=2, help="rivals side by side (default: 2)")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    for name in options.studies:
        if name not in names:
            parser.error(f"{name} is no study; allowed: {', '.join(names)}")
    for key, least in (("seeds", 2), ("jobs", 1)):
        if getattr(options, key) < least:
            parser.error(f"--{key} {getattr(options, key)} is too few; allowed: {least} or more")
    code = 0
    for study in STUDIES:
        if options.studies and study.name not in options.studies:
            continue
        try:
            found = _every(study, options)
        except Failed as error:
            print(f"{study.name}: {error}", file=sys.stderr)
            code = 1
            continue
        text = table(study, found, options.seeds)
        print(text, flush=True)
        if options.markdown is not None:
            put(options.markdown, study, text)
    return code


def _every(study: Study, options: Any) -> dict[str, Found]:
    """Every rival of a study, in its order."""

    def one(number: int) -> Found:
        rival = study.rivals[number]
        folder = options.results / study.name / re.sub(r"\W+", "-", rival.name.lower()).strip("-")
        found = find(study, rival, folder, options.seeds)
        print(f"{study.name} · {rival.name}: rate {found.rate:g}, "
              + ", ".join(f"{k} {shown(v)}" for k, v in found.scores.items())
              + f" ({found.seconds:.0f} s a training)", file=sys.stderr, flush=True)  # fmt: skip
        return found

    with ThreadPoolExecutor(options.jobs) as pool:
        made = list(pool.map(one, range(len(study.rivals))))
    return {found.rival.name: found for found in made}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
