"""What a run says when it ends: the plan that it only showed, or the table of what it made."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TextIO, cast

from bench.cell import Cell
from bench.console import make_console
from bench.progress import duration
from bench.store import Record, Store, plain


def show_plan(
    cells: Sequence[Cell],
    left_out: Sequence[Cell],
    finished: Mapping[str, Record],
    stream: TextIO,
    *,
    as_json: bool,
) -> None:
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
    if as_json:
        document = [
            {
                **cell.part,
                "state": state,
                "config": cell.config,
                "versions": cell.versions,
                "predicted_s": cell.predicted_s,
                "predicted_bytes": cell.predicted_bytes,
            }
            for cell, state in rows
        ]
        print(one_document({"plan": document, "seconds": total}))


def conclude(
    records: Sequence[Record], store: Store, stream: TextIO, exit_code: int, *, as_json: bool
) -> None:
    """The table, and the JSON document where it was asked for."""
    from bench.report.commands import context, frontier
    from bench.report.table import build, to_json
    from bench.report.terminal import show

    table = build(records, store.artefacts)
    if records:
        console = make_console(stream)
        if table.blocks:
            show(table, console)
        context.show_sheets(records, console)
        frontier.show_sheets(records, console)
    failed = [record for record in records if record["status"] == "failed"]
    if failed:
        print(f"{len(failed)} of {len(records)} cells failed:", file=stream)
    for record in failed:
        part = record["cell"]
        names = [part["model"], part["task"], part["scenario"], *(part.get("overrides") or [])]
        print(f"  {' · '.join(names)}: {record['reason']}", file=stream)
    print(f"records: {store.root}", file=stream)
    if as_json:
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
