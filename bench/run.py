"""One run: what is finished already, what is left, one process a cell, one record each."""

import contextlib
import importlib.util
import json
import math
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from bench.environment import describe, load
from bench.errors import BadInput
from bench.identity import cell_key, code
from bench.launch import LOG, Launcher, Outcome
from bench.plan import Cell, preloads
from bench.predict import fit_budget, predict
from bench.progress import Display, duration, main_figure
from bench.store import Record, Store, StoreError, new_id, plain
from bench.store.store import read_record

ROOT = Path(__file__).resolve().parents[1]
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
    allow_targets: Sequence[str] = ()


def warn_of_shadows(*, refuse: bool) -> None:
    """Say so where a `models` or `configs` of the working directory stands before ours."""
    here = Path.cwd()
    advice = "run the command `archbench`, which does not look in the working directory"
    spec = importlib.util.find_spec("models")
    origin = Path(spec.origin).parent if spec is not None and spec.origin else None
    if origin is not None and origin.resolve() != ROOT / "models":
        sentence = f"the folder '{origin}' shadows Archbench's own package models; {advice}."
        if refuse:
            raise BadInput(sentence)
        print(f"warning: {sentence}", file=sys.stderr)
    looks_here = bool(sys.path) and Path(sys.path[0] or ".").resolve() == here
    if looks_here and here != ROOT and (here / "configs").is_dir():
        print(
            f"warning: '{here / 'configs'}' is not Archbench's and is not read "
            f"(hydra.searchpath=[configs] adds it); to be clear of the folder, {advice}.",
            file=sys.stderr,
        )


def execute(cells: list[Cell], settings: Settings, worker: str) -> int:
    """Run `cells`; returns the exit code."""
    stream = sys.stderr if settings.output == "json" else sys.stdout
    check_paths(cells)
    store = Store(settings.results)
    try:
        if not settings.plan:
            store.check_writable()
    except StoreError as error:
        raise BadInput(f"results={settings.results}: {error}") from error
    records, problems = store.read_all()
    for problem in problems:
        print(f"warning: {problem}; it is passed over", file=sys.stderr)
    for cell in cells:
        cell.key, cell.config_hash = cell_key(cell.config, settings.allow_targets)
    predict(cells, records)
    finished = {} if settings.force else _finished(records)
    kept, left_out = cells, list[Cell]()
    if settings.budget is not None:
        todo = [cell for cell in cells if cell.key not in finished]
        fitting, left_out = fit_budget(todo, settings.budget)
        kept = [cell for cell in cells if cell.key in finished or cell in fitting]
    if settings.plan:
        return _show_plan(kept, left_out, finished, settings, stream)
    run = _Run(settings, store, worker, Display(stream, [c for c in kept if c.key not in finished]))
    done = run.all(kept, finished)
    if left_out:
        names = "; ".join(cell.name for cell in left_out)
        run.display.say(f"left out by budget ({len(left_out)} cells): {names}")
    exit_code = run.exit_code(done)
    _conclude(done, store, settings, stream, exit_code)
    return exit_code


def _finished(records: Sequence[Record]) -> dict[str, Record]:
    """Results that need not be taken again, by key; a later one wins."""
    return {r["key"]: r for r in records if r["status"] in ("ok", "unsupported")}


def check_paths(cells: Sequence[Cell]) -> None:
    """Refuse a data file that is missing, unreadable or empty before anything starts."""
    allowed = "allowed: a readable file, a folder of files, or a glob"
    given = [(cell.config.get("task") or {}).get("path") for cell in cells]
    for text in given:
        if isinstance(text, list | dict):
            raise BadInput(f"task.path={text} is no path; {allowed}.")
    for text in dict.fromkeys(given):
        if text is None:
            continue
        place = Path(str(text)).expanduser()
        found = [place] if place.exists() else sorted(place.parent.glob(place.name or "*"))
        if not str(text).strip() or not found:
            raise BadInput(f"task.path={text} does not exist; {allowed}.")
        files = [p for path in found for p in (path.rglob("*") if path.is_dir() else [path])]
        sizes = []
        for path in files:
            if path.is_file():
                try:
                    with open(path, "rb") as stream:
                        stream.read(1)
                    sizes.append(path.stat().st_size)
                except OSError as error:
                    raise BadInput(
                        f"task.path={text} cannot be read ({path}: {error.strerror}); {allowed}."
                    ) from error
        if not sizes:
            raise BadInput(
                f"task.path={text} holds no file (pipes and devices are none); {allowed}."
            )
        if not sum(sizes):
            raise BadInput(f"task.path={text} is empty; {allowed} that hold data.")


class _Run:
    """Runs cells one at a time and keeps their records."""

    def __init__(self, settings: Settings, store: Store, worker: str, display: Display) -> None:
        self.settings, self.store, self.worker, self.display = settings, store, worker, display
        self.bad: list[str] = []
        self.bad_tasks: list[Any] = []

    def all(self, cells: Sequence[Cell], finished: Mapping[str, Record]) -> list[Record]:
        """Every cell's record in the order of the cells, those found and those made now."""
        made = {cell.key: finished[cell.key] for cell in cells if cell.key in finished}
        todo = [cell for cell in cells if cell.key not in made]
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
        launcher = Launcher(preload=preloads(todo), threads=threads, worker=self.worker)
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


def _show_plan(
    cells: Sequence[Cell],
    left_out: Sequence[Cell],
    finished: Mapping[str, Record],
    settings: Settings,
    stream: Any,
) -> int:
    """List what would run; run nothing."""
    rows = []
    for cell in cells:
        state = "finished" if cell.key in finished else "to run"
        if cell.unsupported and cell.key not in finished:
            state = f"unsupported: {cell.unsupported}"
        rows.append((cell, state))
    rows += [(cell, "left out by budget") for cell in left_out]
    width = max(len(cell.name) for cell, _ in rows)
    for cell, state in rows:
        mark = " " if cell.known else "~"
        gib = (cell.predicted_bytes or 0) / 2**30
        cost = f"{mark}{duration(cell.predicted_s or 0.0):>12}  {mark}{gib:5.1f} GiB"
        print(f"{cell.name:<{width}}  {cost}  {state}", file=stream)
    todo = [cell for cell, state in rows if state == "to run"]
    total = sum(cell.predicted_s or 0.0 for cell in todo)
    print(
        f"{len(todo)} cells to run, about {duration(total)}; "
        "~ is a guess, the others come from earlier records; nothing was run",
        file=stream,
    )
    if settings.output == "json":
        document = [
            {
                **c.part,
                "state": s,
                "predicted_s": c.predicted_s,
                "predicted_bytes": c.predicted_bytes,
            }
            for c, s in rows
        ]
        print(one_document({"plan": document, "seconds": total}))
    return 0


def _conclude(
    records: Sequence[Record], store: Store, settings: Settings, stream: Any, exit_code: int
) -> None:
    """The table, and the JSON document where it was asked for."""
    from bench.report.table import build, to_json
    from bench.report.terminal import show

    table = build(records, store.artefacts)
    if records:
        show(table, Console(file=stream, highlight=False))
    failed = [record for record in records if record["status"] == "failed"]
    if failed:
        print(f"{len(failed)} of {len(records)} cells failed:", file=stream)
    for record in failed:
        part = record["cell"]
        names = [part["model"], part["task"], part["scenario"], *(part.get("overrides") or [])]
        print(f"  {' · '.join(names)}: {record['reason']}", file=stream)
    print(f"records: {settings.results}", file=stream)
    if settings.output == "json":
        document = {
            "records": [_summary(record) for record in records],
            "table": to_json(table),
            "exit_code": exit_code,
        }
        print(one_document(document), flush=True)


def one_document(value: dict[str, Any]) -> str:
    """Strict JSON on one line: what JSON cannot hold (NaN, infinity) is null, as in the records."""
    return json.dumps(plain(value, "document"), ensure_ascii=False, allow_nan=False)


def _summary(record: Record) -> dict[str, Any]:
    """What a pipeline wants of a record; the whole stands in its file."""
    names = ("id", "status", "reason", "key", "cell", "figures", "quality", "memory", "parameters")
    whole = cast(dict[str, Any], record)
    return {name: whole.get(name) for name in (*names, "baselines", "wall_s")}
