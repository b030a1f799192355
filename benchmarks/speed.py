"""Every row of the speed table, each against its target: one table and one JSON document.

    python -m benchmarks.speed [--rows ROW ...] [--length 512 2048] [--seconds 15]
                               [--mambapy PATH] [--mamba-ssm PATH] [--fla PATH] [--nanogpt PATH]
                               [--markdown FILE]

A row's two sides alternate in one process, and every row has a process of its own, started like
those of the suite. Each prints a line as it ends, then the table follows, and the last line is the
JSON document with all samples. `--markdown` also puts the table into a file, between two markers
(docs/speed.md has them), in the place of the one that a processor of that name had there. A rival
that is not given is said to be missing, and its row is left open. The exit code is 1 where a row is
missed or fails.
"""

import importlib.metadata
import json
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from bench.machine.environment import describe, load
from bench.machine.variables import environment_set, worker_environment
from benchmarks import mamba, mamba2, moe, rwkv7, transformer
from benchmarks.ab import THREADS
from benchmarks.rows import table
from benchmarks.rows.command import cases, make_parser
from benchmarks.rows.rivals import revision
from benchmarks.rows.row import Result, Row, Setting

ROWS = (*mamba.ROWS, *mamba2.ROWS, *rwkv7.ROWS, *transformer.ROWS, *moe.ROWS)
PACKAGED = ("transformers", "mambapy", "rwkv", "numba", "torch")


def measure(key: str, setting: Setting) -> Result:
    """The row of that name, in this process."""
    (row,) = (row for row in ROWS if row.key == key)
    return row.measure(setting)


def measure_apart(row: Row, setting: Setting) -> Result:
    """The row in a fresh process; one that dies is a failure of that row alone."""
    variables, spawn = worker_environment(THREADS), multiprocessing.get_context("spawn")
    with environment_set(variables), ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            return pool.submit(measure, row.key, setting).result()
        except BrokenProcessPool:
            return Result(row, setting.length, problem="failed: its process was killed")


def versions(checkouts: Mapping[str, Path]) -> dict[str, str]:
    """Of the rivals and of what runs ours: packages, and commits of checkouts."""
    found = {}
    for name in PACKAGED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {name: revision(path) for name, path in checkouts.items()}


def caption(environment: Mapping[str, Any], used: Mapping[str, str], busy: float | None) -> str:
    """The machine, the date and the versions, in a sentence each."""
    packages = ", ".join(f"{name} {version}" for name, version in used.items())
    return (
        f"{environment['cpu']}, {environment['cores']} cores, {environment['memory_gib']} GiB, "
        f"{THREADS} threads, {time.strftime('%Y-%m-%d')}; load at the start {busy}. {packages}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = make_parser(__doc__, ROWS)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="to put the table into")
    options = parser.parse_args(arguments)
    if options.markdown:
        try:
            table.check_place(options.markdown)
        except ValueError as error:
            parser.error(str(error))
    environment, busy = describe(THREADS), load()
    chosen = list(cases(options, ROWS))
    used = versions(chosen[0][1].checkouts)
    heading = caption(environment, used, busy)
    results: list[Result] = []
    for row, setting in chosen:
        results.append(measure_apart(row, setting))
        print(results[-1], flush=True)
        if options.markdown:  # at once: an interrupted run leaves what it has
            text = f"{heading}\n\n{table.markdown(results)}"
            table.write(options.markdown, environment["cpu"], text)
    print(f"\n{heading}\n\n{table.markdown(results)}\n")
    document = {
        "benchmark": "speed",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "load_at_start": busy,
        "environment": environment,
        "versions": used,
        "rows": [result.as_json() for result in results],
    }
    print(json.dumps(document), flush=True)
    failed = [r for r in results if r.reached is False or (r.problem or "").startswith("failed")]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
