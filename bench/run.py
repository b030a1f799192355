"""One run: what is finished already, what is left, one process a cell, one record each."""

import contextlib
import math
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from bench.cell import Cell
from bench.conclude import conclude, show_plan
from bench.environment import describe, load
from bench.errors import BadInput
from bench.identity import cell_key, code
from bench.launch import LOG, Launcher, Outcome
from bench.plan import preloads
from bench.precheck import check_paths
from bench.predict import fit_budget, predict
from bench.progress import Display, main_figure
from bench.store import Record, Store, StoreError, new_id
from bench.store.parse import read_record

# Parts of a worker's answer that are merged with what the runner knows.
MERGED = ("cell", "config", "environment", "kernel")


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
    allow_targets: Sequence[str] = ()


def execute(cells: list[Cell], settings: Settings, worker: str) -> int:
    """Run `cells`; returns the exit code."""
    as_json = settings.output == "json"
    stream = sys.stderr if as_json else sys.stdout
    check_paths(cells)
    store = Store(settings.results)
    try:
        if not settings.plan:
            store.check_writable()
    except StoreError as error:
        raise BadInput(f"results={settings.results}: {error}") from error
    records, problems = store.briefs()
    for problem in problems:
        print(f"warning: {problem}; it is passed over", file=sys.stderr)
    for cell in cells:
        cell.key, cell.config_hash = cell_key(cell.config, settings.allow_targets)
    predict(cells, records)
    finished = {} if settings.force else _finished(records, settings.repeats)
    kept, left_out = cells, list[Cell]()
    if settings.budget is not None:
        todo = [cell for cell in cells if cell.key not in finished]
        fitting, left_out = fit_budget(todo, settings.budget)
        kept = [cell for cell in cells if cell.key in finished or cell in fitting]
    if settings.plan:
        show_plan(kept, left_out, finished, stream, as_json=as_json)
        return 0
    todo = _rounds([c for c in kept if c.key not in finished], records, settings)
    run = _Run(settings, store, worker, Display(stream, todo))
    done = run.all(kept, todo, _whole(store, finished, kept))
    if left_out:
        names = "; ".join(cell.name for cell in left_out)
        run.display.say(f"left out by budget ({len(left_out)} cells): {names}")
    exit_code = run.exit_code(done)
    conclude(done, store, stream, exit_code, as_json=as_json)
    return exit_code


def _finished(records: Sequence[Record], repeats: int) -> dict[str, Record]:
    """Results that need not be taken again, by key; a later one wins.

    A cell that is to be repeated has its number of results, one that cannot be has one.
    """
    results = [r for r in records if r["status"] in ("ok", "unsupported")]
    counts = Counter(r["key"] for r in results)
    return {r["key"]: r for r in results if r["status"] != "ok" or counts[r["key"]] >= repeats}


def _whole(store: Store, found: Mapping[str, Record], cells: Sequence[Cell]) -> dict[str, Record]:
    """Of records in brief the whole ones of `cells`, by key."""
    return {c.key: store.read(found[c.key]["id"]) for c in cells if c.key in found}


def _rounds(cells: Sequence[Cell], records: Sequence[Record], settings: Settings) -> list[Cell]:
    """What is left to run: every cell as often as it lacks results, in rounds over all cells.

    Rounds spread what drifts on a machine over all cells alike.
    """
    counts = Counter(r["key"] for r in records if r["status"] == "ok" and not settings.force)
    left = {
        cell.key: 1 if cell.unsupported else settings.repeats - counts[cell.key] for cell in cells
    }
    return [cell for number in range(settings.repeats) for cell in cells if left[cell.key] > number]


class _Run:
    """Runs cells one at a time and keeps their records."""

    def __init__(self, settings: Settings, store: Store, worker: str, display: Display) -> None:
        self.settings, self.store, self.worker, self.display = settings, store, worker, display
        self.bad: list[str] = []
        self.bad_tasks: list[Any] = []

    def all(
        self, cells: Sequence[Cell], todo: Sequence[Cell], finished: Mapping[str, Record]
    ) -> list[Record]:
        """Every cell's newest record in the order of the cells, those found and those made now."""
        made = {cell.key: finished[cell.key] for cell in cells if cell.key in finished}
        if made:
            self.display.say(
                f"{len(made)} of {len(cells)} cells are finished already; "
                "force=true runs them again"
            )
        if todo:
            with _ended_by_sigterm():
                self._run_all(todo, made)
        return [made[cell.key] for cell in cells if cell.key in made]

    def _run_all(self, todo: Sequence[Cell], made: dict[str, Record]) -> None:
        threads = max(cell.part["threads"] for cell in todo)
        launcher = Launcher(
            preload=preloads(todo), threads=threads, worker=self.worker,
            fresh=self.settings.isolation == "fresh",
        )  # fmt: skip
        with launcher, self.display:
            try:
                for cell in todo:
                    if self._shares_fault(cell):
                        self.display.end(cell, "left out: the same bad input", None, good=False)
                    elif (record := self._one(launcher, cell)) is not None:
                        made[cell.key] = record
            except KeyboardInterrupt:
                launcher.stop()
                self.display.say(
                    f"stopping at {cell.name}; the records of {self.display.done} cells are kept"
                )
                raise

    def _one(self, launcher: Launcher, cell: Cell) -> Record | None:
        self.display.begin(cell)
        with tempfile.TemporaryDirectory(prefix="archbench-") as folder:
            workdir = Path(folder)
            before = load()
            outcome = self._outcome(launcher, cell, workdir)
            if outcome.status == "bad_input":
                self._bad_input(cell, outcome)
                return None
            record = self._record(cell, outcome, before)
            files = {p.name: p for p in sorted(workdir.iterdir()) if p.is_file()}
            if LOG in files and not files[LOG].stat().st_size:
                del files[LOG]
            # What was stored is what is shown: with its artefacts listed and NaN turned into null.
            try:
                record = read_record(self.store.write(record, files))
            except StoreError as error:
                raise BadInput(f"results={self.store.root}: {error}") from error
        good = record["status"] != "failed"
        self.display.end(cell, main_figure(cast(dict[str, Any], record)), outcome.wall_s, good=good)
        return record

    def _outcome(self, launcher: Launcher, cell: Cell, workdir: Path) -> Outcome:
        if cell.unsupported:
            return Outcome("unsupported", cell.unsupported)
        request = {
            **cell.part,
            "config": cell.config,
            "overrides": list(cell.overrides),
            "allow_targets": list(self.settings.allow_targets),
            "timeout_s": self.settings.timeout,
        }
        tick: Callable[[float], None] | None = None
        if self.display.live:
            tick = lambda elapsed: self.display.tick(cell, elapsed)  # noqa: E731
        outcome = launcher.run(
            request,
            workdir,
            timeout=self.settings.timeout,
            memory_limit_gib=self.settings.memory_limit_gib,
            tick=tick,
        )
        if outcome.status == "ok" and (where := not_finite(outcome.payload)):
            outcome.status, outcome.reason = "failed", f"{where} is not a finite number"
        return outcome

    def _shares_fault(self, cell: Cell) -> bool:
        """Whether the data that this cell would read was refused already."""
        return cell.config["task"] in self.bad_tasks

    def _bad_input(self, cell: Cell, outcome: Outcome) -> None:
        sentence = str(outcome.reason)
        if sentence.startswith("task"):
            self.bad_tasks.append(cell.config["task"])
        self.display.end(cell, "bad input", outcome.wall_s, good=False)
        if sentence not in self.bad:
            self.bad.append(sentence)

    def _record(self, cell: Cell, outcome: Outcome, load_before: float | None) -> Record:
        payload = outcome.payload
        now = datetime.now(UTC)
        part = {**cell.part, **(payload.get("cell") or {})}
        part["kernel"] = payload.get("kernel") or part["kernel"]
        record: dict[str, Any] = {
            "schema": 1,
            "id": new_id(cast(Any, part), now),
            "created": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "status": outcome.status,
            "reason": outcome.reason,
            "key": cell.key,
            "cell": part,
            "versions": cell.versions,
            "config": payload.get("config") or cell.config,
            "config_hash": cell.config_hash,
            "code": code(tuple(self.settings.allow_targets)),
            "environment": {
                **describe(cell.part["threads"]),
                "load_before": load_before,
                "load_after": load(),
                "isolation": outcome.isolation,
                "layout": outcome.layout,
                **(payload.get("environment") or {}),
            },
            "wall_s": round(outcome.wall_s, 3),
        }
        record |= {k: v for k, v in payload.items() if k not in MERGED and k not in record}
        return cast(Record, record)

    def exit_code(self, done: Sequence[Record]) -> int:
        """2 where input was bad, 1 where a cell failed, else 0."""
        for sentence in self.bad:
            print(f"error: {sentence}", file=sys.stderr)
        if self.bad:
            return 2
        return 1 if any(record["status"] == "failed" for record in done) else 0


def not_finite(payload: Mapping[str, Any]) -> str | None:
    """The dotted name of a figure that is NaN or infinite, where a result has one."""
    found = {f"figures.{k}": v for k, v in (payload.get("figures") or {}).items()}
    found |= _scores("quality", payload.get("quality") or {})
    for rival in payload.get("baselines") or ():
        found |= _scores(f"baselines.{rival['name']}", rival.get("quality") or {})
    found |= {f"timing.{k}": v for k, v in (payload.get("timing") or {}).items() if k == "median_s"}
    for name, value in found.items():
        if isinstance(value, float) and not math.isfinite(value):
            return name
    return None


def _scores(name: str, quality: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a quality section; `stderr` is none: one item alone has no spread."""
    found = {f"{name}.{k}": quality.get(k) for k in ("value", "validation_value")}
    secondary = quality.get("secondary") or {}
    return found | {f"{name}.secondary.{k}": v for k, v in secondary.items()}


@contextlib.contextmanager
def _ended_by_sigterm() -> Any:
    """Let a polite kill end the running cell too, as an interrupt does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
