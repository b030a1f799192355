"""One run: one process a cell, one record each, for what is not finished already."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bench.cell import Cell
from bench.conclude import conclude, counted, show_plan
from bench.errors import BadInput
from bench.frontier import FRONTIER, search
from bench.identity import cell_key, code, made_here
from bench.machine.surroundings import (
    Surroundings,
    check_gpu,
    crowded,
    disturbed,
    occupied,
)
from bench.precheck import check_paths
from bench.predict import predict
from bench.process.child import LOG
from bench.process.interrupt import Interrupts
from bench.process.launch import Launcher
from bench.process.limits import check_limit
from bench.process.outcome import Outcome
from bench.process.preload import preloads
from bench.progress import Display, duration, main_figure
from bench.recording import Asked, not_finite, record_of
from bench.remaining import remaining
from bench.store import Record, Store, StoreError
from bench.store.parse import read_record
from bench.store.store import ContentError


@dataclass(frozen=True)
class Settings:
    """How to run; no part of a result."""

    results: Path
    output: str = "table"
    force: bool = False
    plan: bool = False
    budget: float | None = None
    timeout: float = 900.0
    memory_limit_gib: float | None = None
    isolation: str = "server"
    repeats: int = 1
    busy_gpu: str = "record"
    energy: bool = False
    allow_targets: Sequence[str] = ()


def execute(cells: list[Cell], settings: Settings, worker: str) -> int:
    """Run `cells`; returns the exit code."""
    started = time.monotonic()
    as_json = settings.output == "json"
    stream = sys.stderr if as_json else sys.stdout
    check_paths(cells)
    check_gpu(settings.busy_gpu, (cell.part["device"] for cell in cells))
    check_limit(settings.memory_limit_gib, (cell.part["device"] for cell in cells))
    store = Store(settings.results)
    records = _briefs(store)
    for cell in cells:
        cell.key, cell.config_hash = cell_key(cell.config, settings.allow_targets)
    predict(cells, records)
    left = remaining(
        cells, records, repeats=settings.repeats, force=settings.force, energy=settings.energy,
        budget=settings.budget,
    )  # fmt: skip
    if settings.plan:
        show_plan(cells, left, stream, as_json=as_json)
        return 0
    if left.todo:  # what is finished can be shown from a folder that is read-only
        _check_writable(store)
    found = _whole(store, left.found.values())
    frontiers = _whole(store, _frontiers(left.todo, records))
    run = _Run(settings, store, worker, Display(stream, left.todo), frontiers)
    if found:
        kept = {*left.found, *(cell.key for cell in left.todo)}
        run.display.say(
            f"{len(found)} of {len(kept)} cells are finished already; force=true runs them again"
        )
    if left.todo:
        run.each(left.todo)
    if left.left_out:
        run.display.say(f"left out by budget {counted(left.left_out)}")
    if (said := disturbed(run.made)) is not None:
        run.display.say(said)
    place = {cell.key: number for number, cell in enumerate(cells)}
    done = sorted([*found, *run.made], key=lambda record: place[record["key"]])
    exit_code = run.exit_code()
    took = f"{len(run.made)} made in {duration(time.monotonic() - started)}" if run.made else ""
    conclude(
        done, store, stream, exit_code, as_json=as_json, took=took, repeated=settings.repeats > 1
    )
    return exit_code


def _briefs(store: Store) -> list[Record]:
    """What the store holds, in brief; files that cannot be read are named on stderr."""
    records, problems = store.briefs()
    for problem in problems:
        if problem.path == store.records:  # what is finished there cannot be known
            raise BadInput(f"results={store.root}: {problem}; give a folder that can be read")
        print(f"warning: {problem}; it is passed over", file=sys.stderr)
    return records


def _check_writable(store: Store) -> None:
    try:
        store.check_writable()
    except StoreError as error:
        raise BadInput(f"results={store.root}: {error}") from error


def _whole(store: Store, briefs: Iterable[Record]) -> list[Record]:
    """The whole records of those in brief."""
    try:
        return [store.read(record["id"]) for record in briefs]
    except ValueError as error:
        raise BadInput(
            f"results={store.root}: a record changed while it was read ({error}); run it again."
        ) from error


def _frontiers(todo: Sequence[Cell], records: Iterable[Record]) -> list[Record]:
    """Earlier searches for the largest that fits, where another one is to be made."""
    if all(cell.part["scenario"] != FRONTIER for cell in todo):
        return []
    return [record for record in records if record["cell"]["scenario"] == FRONTIER]


class _Run:
    """Runs cells one at a time and keeps their records."""

    def __init__(
        self, settings: Settings, store: Store, worker: str, display: Display,
        frontiers: Sequence[Record],
    ) -> None:  # fmt: skip
        self.settings, self.store, self.worker, self.display = settings, store, worker, display
        self.frontiers = list(frontiers)  # those of earlier runs and of this one
        self.made: list[Record] = []
        self.bad: list[str] = []
        self.warned: set[tuple[str, str]] = set()
        self.bad_tasks: list[Any] = []
        self.bad_checkpoints: list[str] = []

    def each(self, todo: Sequence[Cell]) -> None:
        """Run a process for each of `todo`, and keep what is made."""
        threads = max(cell.part["threads"] for cell in todo)
        launcher = Launcher(
            preload=preloads(todo, energy=self.settings.energy),
            threads=threads,
            worker=self.worker,
            fresh=self.settings.isolation == "fresh",
        )
        cell = todo[0]
        with launcher, self.display, Interrupts(launcher) as interrupts:
            try:
                for cell in todo:
                    if self._shares_fault(cell):
                        self.display.end(cell, "left out: the same bad input", None, good=False)
                    elif self._cannot_be(cell):
                        self.display.end(cell, "left out: unsupported", None, good=True)
                    elif (record := self._one(launcher, cell, interrupts)) is not None:
                        self.made.append(record)
            except KeyboardInterrupt:
                launcher.stop()
                self.display.say(f"stopping at {cell.name}; records kept: {len(self.made)}")
                raise

    def _one(self, launcher: Launcher, cell: Cell, interrupts: Interrupts) -> Record | None:
        self.display.begin(cell)
        with tempfile.TemporaryDirectory(prefix="archbench-") as folder:
            workdir = Path(folder)
            around = Surroundings(cuda=cell.part["device"] == "cuda")
            outcome = self._outcome(launcher, cell, workdir, around)
            interrupts.check()
            if outcome.status == "bad_input":
                self._bad_input(cell, outcome)
                return None
            seen = around.after()
            record = self._record(cell, outcome, seen)
            self._warn(cell, record)
            files = {p.name: p for p in sorted(workdir.iterdir()) if p.is_file()}
            if LOG in files and not files[LOG].stat().st_size:
                del files[LOG]
            try:
                record = self._stored(record, files)
            except ContentError as error:  # the cell's own fault: a task of the user, say
                outcome.status, outcome.reason, outcome.payload = "failed", str(error), {}
                log = {name: path for name, path in files.items() if name == LOG}
                record = self._stored(self._record(cell, outcome, seen), log)
        if record["cell"]["scenario"] == FRONTIER:
            self.frontiers.append(record)
        good = record["status"] != "failed"
        self.display.end(cell, main_figure(cast(dict[str, Any], record)), outcome.wall_s, good=good)
        return record

    def _warn(self, cell: Cell, record: Record) -> None:
        """Say once for a model and a reason that something faster could not run."""
        note = record["cell"].get("fallback")
        if note and (cell.part["model"], note) not in self.warned:
            self.warned.add((cell.part["model"], note))
            self.display.say(f"warning: model={cell.part['model']}: {note}")

    def _stored(self, record: Record, files: Mapping[str, Path]) -> Record:
        """What was stored is what is shown: with its artefacts listed and NaN turned into null."""
        try:
            return read_record(self.store.write(record, files))
        except ContentError:
            raise
        except StoreError as error:
            raise BadInput(f"results={self.store.root}: {error}") from error

    def _outcome(
        self, launcher: Launcher, cell: Cell, workdir: Path, around: Surroundings
    ) -> Outcome:
        if cell.unsupported:
            return Outcome("unsupported", cell.unsupported)
        launcher.ready(self.settings.timeout)
        around.before()
        if self.settings.busy_gpu == "refuse" and (reason := occupied(around.on_gpu)):
            return Outcome("failed", reason)
        request = {
            **cell.part,
            "overrides": list(cell.overrides),
            "allow_targets": list(self.settings.allow_targets),
            "timeout_s": self.settings.timeout,
            "energy": self.settings.energy,
        }
        tick: Callable[[float], None] | None = None
        started = time.monotonic()
        if self.display.live:
            tick = lambda _: self.display.tick(cell, time.monotonic() - started)  # noqa: E731

        def run(config: Mapping[str, Any], seconds: float, gib: float | None) -> Outcome:
            return launcher.run(
                {**request, "config": config}, workdir,
                timeout=seconds, memory_limit_gib=gib, tick=tick,
            )  # fmt: skip

        if cell.part["scenario"] == FRONTIER:
            here = [r for r in self.frontiers if made_here(r, self.settings.allow_targets)]
            outcome = search(cell, here, run, workdir, self.settings.timeout)
        else:
            outcome = run(cell.config, self.settings.timeout, self.settings.memory_limit_gib)
        if outcome.status == "ok" and (where := not_finite(outcome.payload)):
            outcome.status, outcome.reason = "failed", f"{where} is not a finite number"
        return outcome

    def _shares_fault(self, cell: Cell) -> bool:
        """Whether the data or the memory that this cell would have was refused already."""
        limited = any(sentence.startswith("memory_limit_gib") for sentence in self.bad)
        unread = (cell.config.get("model") or {}).get("pretrained") in self.bad_checkpoints
        return limited or unread or cell.config["task"] in self.bad_tasks

    def _cannot_be(self, cell: Cell) -> bool:
        """Whether an earlier process of the cell said that there can be no result."""
        return any(r["key"] == cell.key and r["status"] == "unsupported" for r in self.made)

    def _bad_input(self, cell: Cell, outcome: Outcome) -> None:
        sentence = str(outcome.reason)
        if sentence.startswith("task"):
            self.bad_tasks.append(cell.config["task"])
        if sentence.startswith("model.pretrained:"):
            self.bad_checkpoints.append(cell.config["model"]["pretrained"])
        self.display.end(cell, "bad input", outcome.wall_s, good=False)
        if sentence not in self.bad:
            self.bad.append(sentence)

    def _record(self, cell: Cell, outcome: Outcome, seen: Mapping[str, Any]) -> Record:
        source = code(tuple(self.settings.allow_targets))
        record = record_of(
            Asked(cell.part, cell.key, cell.versions, cell.config, cell.config_hash, source),
            outcome.payload,
            status=outcome.status,
            reason=outcome.reason,
            wall_s=outcome.wall_s,
            environment={**seen, **outcome.process()},
        )
        crowd = crowded(dict(seen), cell.part["threads"], record["environment"]["cores"])
        if crowd and "timing" in record and cell.part["device"] == "cpu":
            known = (record.get("validity") or {}).get("reason")
            reason = "; ".join(part for part in (known, crowd) if part)
            record["validity"] = {"valid": False, "reason": reason}
        return record

    def exit_code(self) -> int:
        """2 where input was bad, 1 where a process failed, else 0."""
        for sentence in self.bad:
            print(f"error: {sentence}", file=sys.stderr)
        if self.bad:
            return 2
        return 1 if any(record["status"] == "failed" for record in self.made) else 0
