"""A sweep of fake cells that is watched from outside, and the account of what it left.

A record is *finished* once a reader saw it in the store or its line was printed. It is *lost* if
it is gone or has changed later, and *invented* if no worker drew the word that it holds (workers
note theirs in a ledger), if another record holds the same, or if no such cell was asked for.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.store import Store
from tests.runner.conftest import ROOT, Done, arguments, environment
from tests.runner.fakes import LEDGER

LINE = re.compile(r"^\[ *\d+/\d+\] (.+?)   [\d.,]+ tokens/s")
SCENARIOS = ("prefill", "train")
PATIENCE_S = 120.0


@dataclass
class Trial:
    """What one fault did: cells finished before it, and what was found after it."""

    before: int = 0
    lost: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    to_name: int = 0  # files and failures that must be named
    unnamed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # anything else that must not be

    @property
    def faults(self) -> list[str]:
        return [*self.lost, *self.invented, *self.unnamed, *self.wrong]

    def expect(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.wrong.append(sentence)

    def names(self, texts: Sequence[str], where: str) -> None:
        """Every one of `texts` must be on some line of `where`."""
        self.to_name += len(texts)
        self.unnamed += [f"unnamed: {t} in {where[-300:]!r}" for t in texts if t not in where]

    def one_sentence(self, done: Done, *texts: str) -> None:
        """stderr is one line that begins with "error:" and names `texts`."""
        self.names(texts, done.err)
        lines = done.err.splitlines()
        good = len(lines) == 1 and lines[0].startswith("error: ")
        self.expect(good, f"not one sentence: {done.err[-500:]!r}")


class Unavailable(Exception):
    """The fault cannot be made on this machine; the message says why."""


class Sweep:
    """Cells of the fake model (`SCENARIOS` times `seeds`) into a store of their own."""

    def __init__(self, folder: Path, seeds: int = 6, results: Path | None = None) -> None:
        self.folder, self.seeds = folder, seeds
        self.results = results or folder / "results"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.noted = folder / "ledger"
        self.noted.touch()
        self.seen: dict[str, bytes] = {}  # records by file name, as first read
        self._outputs: dict[int, tuple[Path, Path]] = {}

    def cells(self, seeds: int | None = None) -> set[str]:
        """The names of all cells, enumerated."""
        pairs = itertools.product(SCENARIOS, range(seeds or self.seeds))
        return {f"fake · fake · {scenario} · nano · seed {seed}" for scenario, seed in pairs}

    def start(
        self,
        *words: str,
        seeds: int | None = None,
        prepare: Callable[[], None] | None = None,
        stdout: int | None = None,
        module: Sequence[str] = ("tests.runner.command",),
        **more: str,
    ) -> "subprocess.Popen[bytes]":
        """The sweep as the leader of a session of its own; `prepare` runs before its program."""
        numbers = ",".join(map(str, range(seeds or self.seeds)))
        given = ["model=fake", f"scenario={','.join(SCENARIOS)}", f"seed={numbers}",
                 "suite.baselines=false"]  # fmt: skip
        command = [sys.executable, "-m", *module]
        if len(module) == 1:
            command += arguments(self.results, *given, *words)
        number = len(self._outputs)
        paths = self.folder / f"out.{number}", self.folder / f"err.{number}"
        more = {LEDGER: str(self.noted), "TMPDIR": str(self.temporary), **more}
        with open(paths[0], "wb") as out, open(paths[1], "wb") as err:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(**more), stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout, stderr=err,
                start_new_session=True, preexec_fn=prepare,
            )  # fmt: skip
        self._outputs[process.pid] = paths
        return process

    def run(self, *words: str, **options: Any) -> Done:
        """The sweep from beginning to end."""
        process = self.start(*words, **options)
        self.watch(process, PATIENCE_S)
        return self.done(process)

    def report(self, *words: str, **options: Any) -> Done:
        """`python -m bench.report` with `words`."""
        return self.run(module=("bench.report", *words), **options)

    def watch(self, process: "subprocess.Popen[bytes]", seconds: float) -> bool:
        """Read the store as it fills, at most for `seconds`; whether the sweep still runs then."""
        deadline = time.monotonic() + seconds
        while (running := process.poll() is None) and time.monotonic() < deadline:
            self.look()
            time.sleep(0.005)
        self.look()
        return running

    def look(self) -> None:
        """Keep what a reader sees now; a record appears whole or not at all."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            for entry in os.scandir(self.results / "records"):
                if entry.name.endswith(".json") and entry.name not in self.seen:
                    self.seen[entry.name] = Path(entry.path).read_bytes()

    def done(self, process: "subprocess.Popen[bytes]") -> Done:
        """What a sweep that has ended printed; it is killed where it does not end."""
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        out, err = (path.read_text(errors="replace") for path in self._outputs[process.pid])
        return Done(code, out, err)

    def ledger(self) -> list[tuple[str, str]]:
        """The words that workers drew and the cells that they drew them for, in order."""
        return [
            (line.partition(" ")[0], line.partition(" ")[2])
            for line in self.noted.read_text().splitlines()
        ]

    def finished(self) -> set[str]:
        """Names of the cells that have a result in the store."""
        return {name_of(r) for r in Store(self.results).read_all()[0] if r["status"] == "ok"}

    def printed(self, done: Done) -> set[str]:
        """Names of the cells whose line with a figure was printed, without their overrides."""
        found = [match[1] for line in done.out.splitlines() if (match := LINE.match(line))]
        return {" · ".join(name.split(" · ")[:5]) for name in found}


def name_of(record: Any) -> str:
    cell = record["cell"]
    names = [cell[key] for key in ("model", "task", "scenario", "size")]
    return " · ".join([*names, f"seed {cell['seed']}"])


def account(
    sweep: Sweep, trial: Trial, printed: set[str] = frozenset(), *, failures: int = 0,
    bad: Sequence[str] = (), seeds: int | None = None, whole: bool = False, once: bool = True,
) -> None:  # fmt: skip
    """Hold the store against what was finished; more than `failures` failed records are invented.

    `bad` are files that were spoilt on purpose, `whole` whether every cell must have a result now,
    `once` whether it may have one alone.
    """
    store = Store(sweep.results)
    records, problems = store.read_all()
    trial.lost += [f"unreadable: {p}" for p in problems if p.path.name not in bad]
    trial.wrong += [str(p) for p in store.verify() if p.path.suffix != ".json"]
    for name, content in sweep.seen.items():
        path = sweep.results / "records" / name
        if name not in bad and (not path.is_file() or path.read_bytes() != content):
            trial.lost.append(f"lost or changed: {name}")
    results = [record for record in records if record["status"] == "ok"]
    counts = Counter(map(name_of, results))
    trial.lost += [f"printed, no record: {name}" for name in sorted(printed - set(counts))]
    drawn = Counter(sweep.ledger())
    held = Counter((str((r.get("seen") or {}).get("draw")), name_of(r)) for r in results)
    trial.invented += [f"no worker measured {pair}" for pair in (held - drawn)]
    asked = sweep.cells(seeds)
    trial.invented += [f"nobody asked for {name}" for name in counts if name not in asked]
    failed = [r for r in records if r["status"] != "ok"]
    if len(failed) > failures:
        trial.invented += [f"failed: {name_of(r)}: {r['reason']}" for r in failed]
    if once:
        trial.wrong += [f"{count} results of {name}" for name, count in counts.items() if count > 1]
    if whole:
        trial.wrong += [f"no result of {name}" for name in sorted(asked - set(counts))]


def finish(sweep: Sweep, trial: Trial, *words: str, **options: Any) -> None:
    """Run the sweep again: it ends what was left, and measures nothing twice."""
    before, drawn = sweep.finished(), len(sweep.ledger())
    done = sweep.run(*words, seeds=options.get("seeds"))
    trial.expect(done.code == 0, f"the second run ended with {done.code}: {done.err[-500:]}")
    again = {cell for _, cell in sweep.ledger()[drawn:]} & before
    trial.wrong += [f"measured again: {name}" for name in sorted(again)]
    if before:
        said = f"{len(before)} of {len(sweep.cells(options.get('seeds')))} cells are finished"
        trial.expect(said in done.out, f"not said: {said}")
    account(sweep, trial, sweep.printed(done), whole=True, **options)


def survivors(session: int) -> list[int]:
    """Processes of a session that still run; one that waits to be reaped does not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def no_orphans(session: int, trial: Trial, seconds: float = 20.0) -> None:
    """Everything that the sweep started must end soon; what does not is killed and reported."""
    deadline = time.monotonic() + seconds
    while (left := survivors(session)) and time.monotonic() < deadline:
        time.sleep(0.05)
    trial.wrong += [f"process {pid} outlived the sweep" for pid in left]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
