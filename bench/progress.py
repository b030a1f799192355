"""What a run says while it runs: a live line on a terminal, plain lines elsewhere."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bench.cell import Cell
from bench.console import make_console


def duration(seconds: float) -> str:
    """'0.4 s', '12 s', '3 min 20 s', '1 h 5 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def main_figure(record: dict[str, Any]) -> str:
    """The one figure of a record that its line shows."""
    if record["status"] != "ok":
        return f"{record['status']}: {record.get('reason')}"
    quality = record.get("quality") or {}
    if quality.get("value") is not None:
        bound = "≤ " if quality.get("bound") else ""
        return f"{bound}{quality['value']:.4g} {str(quality.get('metric')).replace('_', ' ')}"
    unit = (record.get("timing") or {}).get("unit") or "items"
    for name, value in (record.get("figures") or {}).items():
        if name.endswith("_per_s") and value is not None:
            return f"{value:,.0f} {unit}/s" if value >= 100 else f"{value:.3g} {unit}/s"
    sweep = record.get("sweep") or {}
    if sweep.get("largest") is not None:
        return f"{sweep['axis']} up to {sweep['largest']:,}, limited by {sweep['limited_by']}"
    if scores := (record.get("harness") or {}).get("scores"):
        return ", ".join(f"{s['task']} {s['metric']} {s['value']:.4g}" for s in scores)
    if record.get("baselines"):
        return ", ".join(_rival(entry) for entry in record["baselines"])
    return "ok"


def _rival(entry: dict[str, Any]) -> str:
    value = (entry.get("quality") or entry).get("value")
    return f"{entry.get('name')} {value:.3g}" if value is not None else str(entry.get("name"))


class Display:
    """Cells done, the running one and the time left."""

    def __init__(self, stream: TextIO, cells: Sequence[Cell]) -> None:
        self.console = make_console(stream)
        self.live = self.console.is_terminal
        self.left = sum(cell.predicted_s or 0.0 for cell in cells)
        self.total, self.done = len(cells), 0
        # Nothing redraws on a clock of its own: a thread that wakes disturbs what is measured.
        self.progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            console=self.console,
            auto_refresh=False,
            transient=True,
            disable=not self.live,
        )
        self.task = self.progress.add_task("starting", total=self.total)

    def __enter__(self) -> "Display":
        self.progress.start()
        self.progress.refresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def say(self, text: str, style: str | None = None) -> None:
        """A plain line, above the live one."""
        self.console.print(text, style=style, soft_wrap=True)

    def begin(self, cell: Cell) -> None:
        self._describe(cell, 0.0)

    def tick(self, cell: Cell, elapsed: float) -> None:
        self._describe(cell, elapsed)

    def _describe(self, cell: Cell, elapsed: float) -> None:
        left = max(self.left - elapsed, 0.0)
        text = f"{cell.name}   about {duration(left)} left"
        self.progress.update(self.task, description=text, refresh=self.live)

    def end(self, cell: Cell, text: str, wall_s: float | None, *, good: bool) -> None:
        """One line for a finished cell."""
        self.done += 1
        self.left = max(self.left - (cell.predicted_s or 0.0), 0.0)
        took = f"   ({duration(wall_s)})" if wall_s is not None else ""
        width = len(str(self.total))
        line = f"[{self.done:>{width}}/{self.total}] {cell.name}   {text}{took}"
        self.say(line, None if good else "red")
        self.progress.update(self.task, completed=self.done, refresh=self.live)
