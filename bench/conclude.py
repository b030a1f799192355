"""What a run says when it ends: the plan that it only showed, or the table of what it made."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, TextIO, cast

from rich.console import Console
from rich.table import Table

from bench.cell import Cell
from bench.console import make_console
from bench.constants import GIB
from bench.progress import duration
from bench.remaining import Remaining
from bench.store import Record, Store, plain
from bench.store.brief import RAW

TO_RUN, LEFT_OUT = "to run", "left out by budget"
# What a pipeline wants of a record; the whole stands in its file.
SUMMARY = (
    "id", "status", "reason", "key", "cell", "figures", "quality", "memory", "parameters",
    "validity", "energy", "latency", "sweep", "tuning", "harness", "baselines", "wall_s",
)  # fmt: skip


def show_plan(cells: Sequence[Cell], left: Remaining, stream: TextIO, *, as_json: bool) -> None:
    """List what would run; run nothing."""
    todo, out = (Counter(cell.key for cell in part) for part in (left.todo, left.left_out))
    rows = [(cell, _state(cell, left, todo[cell.key])) for cell in cells]
    rows.sort(key=lambda row: row[1] == LEFT_OUT)
    times = {cell.key: todo[cell.key] or out[cell.key] for cell in cells}
    costs = [_cost(cell, times[cell.key]) for cell, _ in rows]
    width, wide = max(len(cell.name) for cell, _ in rows), max(12, *map(len, costs))
    for (cell, state), cost in zip(rows, costs, strict=True):
        mark = " " if cell.known else "~"
        gib = (cell.predicted_bytes or 0) / GIB
        if state == TO_RUN and out[cell.key]:
            state = f"{state}; {out[cell.key]} processes more {LEFT_OUT}"
        line = f"{cell.name:<{width}}  {mark}{cost:>{wide}}  {mark}{gib:5.1f} GiB  {state}"
        print(line, file=stream)
    total = sum(cell.predicted_s or 0.0 for cell in left.todo)
    number = sum(state == TO_RUN for _, state in rows)
    processes = sum(todo[cell.key] for cell, state in rows if state == TO_RUN)
    several = f" in {processes} processes" if processes > number else ""
    print(
        f"{number} cells to run{several}, about {duration(total)}; "
        "~ is a guess, the others come from earlier records; nothing was run",
        file=stream,
    )
    if as_json:
        document = [
            {
                **cell.part,
                "state": state,
                "processes": todo[cell.key],
                "config": cell.config,
                "versions": cell.versions,
                "predicted_s": cell.predicted_s,
                "predicted_bytes": cell.predicted_bytes,
            }
            for cell, state in rows
        ]
        print(one_document({"plan": document, "seconds": total}))


def _state(cell: Cell, left: Remaining, processes: int) -> str:
    if cell.key in left.found:
        return "finished"
    if cell.unsupported:
        return f"unsupported: {cell.unsupported}"
    return TO_RUN if processes else LEFT_OUT


def _cost(cell: Cell, times: int) -> str:
    """What a cell takes: '12 s', of several processes '3 × 12 s'."""
    each = duration(cell.predicted_s or 0.0)
    return f"{times} × {each}" if times > 1 else each


def counted(processes: Sequence[Cell]) -> str:
    """How many cells there are, and their names with the number of processes of each."""
    counts = Counter(cell.name for cell in processes)
    names = (f"{name} ({n} processes)" if n > 1 else name for name, n in counts.items())
    return f"({len(counts)} cells): {'; '.join(names)}"


def conclude(
    records: Sequence[Record], store: Store, stream: TextIO, exit_code: int, *,
    as_json: bool, took: str = "", repeated: bool = False,
) -> None:  # fmt: skip
    """The table, what failed, and the JSON document where it was asked for.

    `took` says what the run did and how long it took. Of a cell with several records the last one
    is shown; `repeated` says so.
    """
    from bench.report.commands import context, frontier
    from bench.report.table import build, to_json
    from bench.report.terminal import show

    shown = list({record["key"]: record for record in records}.values())
    table = build(shown, store.artefacts)
    if records:
        console = make_console(stream)
        if table.blocks:
            show(table, console)
        context.show_sheets(shown, console)
        frontier.show_sheets(shown, console)
        _show_harness(shown, console)
    if repeated:
        print(
            "Each row shows the newest process of its cells; the records hold all of them.",
            file=stream,
        )
    _show_failures(records, "cells" if len(shown) == len(records) else "processes", stream)
    print(f"records: {store.root}{took and f' ({took})'}", file=stream)
    if as_json:
        document = {
            "records": [_summary(record) for record in records],
            "table": to_json(table),
            "exit_code": exit_code,
        }
        print(one_document(document), flush=True)


def _show_harness(records: Sequence[Record], console: Console) -> None:
    """The scores of lm-evaluation-harness, a line each."""
    table = Table("model", "task", "metric", "value", "± 95 %", "items", "shots", box=None)
    for record in records:
        part = record["cell"]
        name = " ".join([part["model"], *(part.get("overrides") or [])])
        for score in (record.get("harness") or {}).get("scores") or []:
            error = score.get("stderr")
            table.add_row(
                name, str(score.get("task")), str(score.get("metric")), f"{score.get('value'):.4g}",
                "" if error is None else f"{1.96 * error:.2g}", str(score.get("items") or ""),
                str(score.get("shots") or 0),
            )  # fmt: skip
    if table.row_count:
        console.print(table)


def _show_failures(records: Sequence[Record], what: str, stream: TextIO) -> None:
    failed = [record for record in records if record["status"] == "failed"]
    if failed:
        print(f"{len(failed)} of {len(records)} {what} failed:", file=stream)
    for line, times in Counter(map(_failure, failed)).items():
        print(f"  {line}{f' ({times} times)' if times > 1 else ''}", file=stream)


def _failure(record: Record) -> str:
    part = record["cell"]
    names = [part["model"], part["task"], part["scenario"], part.get("size")]
    words = [*(name for name in names if name), f"seed {part['seed']}"]
    return f"{' · '.join([*words, *(part.get('overrides') or [])])}: {record['reason']}"


def one_document(value: dict[str, Any]) -> str:
    """Strict JSON on one line: what JSON cannot hold (NaN, infinity) is null, as in the records."""
    return json.dumps(plain(value, "document"), ensure_ascii=False, allow_nan=False)


def _summary(record: Record) -> dict[str, Any]:
    """The parts of a record in `SUMMARY`, without raw samples."""
    whole = cast(dict[str, Any], record)
    found = {name: whole.get(name) for name in SUMMARY}
    for name, raw in RAW.items():
        if part := found.get(name):
            found[name] = {key: value for key, value in part.items() if key not in raw}
    return found
