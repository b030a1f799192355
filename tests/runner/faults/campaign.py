"""Every fault with the number of its trials, two trials at a time, and their table."""

import itertools
import random
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.runner.faults import disks, files, kills
from tests.runner.faults.sweep import Trial, Unavailable

WHOM = ("group", "parent", "worker", "fork server")
AT_ONCE = 2


@dataclass
class Row:
    """A fault and what its trials came to; `skipped` says why some could not be made."""

    fault: str
    trials: list[Trial] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [sentence for trial in self.trials for sentence in trial.faults]

    @property
    def reasons(self) -> list[str]:
        """Why trials were skipped, each once."""
        return [*dict.fromkeys(self.skipped)]

    def cells(self) -> list[str]:
        """Columns of the table."""
        if not self.trials:
            return [self.fault, "0", "", "", "", "", f"skipped: {'; '.join(self.reasons)}"]
        named = sum(trial.to_name for trial in self.trials)
        unnamed = sum(len(trial.unnamed) for trial in self.trials)
        counts = [
            len(self.trials), *(sum(values) for values in zip(
                *((t.before, len(t.lost), len(t.invented)) for t in self.trials), strict=True
            )),
        ]  # fmt: skip
        verdict = "ok" if not self.faults else f"{len(self.faults)} FAULTS"
        verdict += f" ({len(self.skipped)} skipped)" if self.skipped else ""
        return [self.fault, *map(str, counts), f"{named - unnamed} of {named}", verdict]


HEADS = ["fault", "trials", "finished before", "lost", "invented", "named", "verdict"]

Plan = list[tuple[str, Callable[[Path], Trial]]]


def plan(count: int, seed: int, span: float) -> Plan:
    """`count` kills of a sweep that takes `span` seconds, and what goes with them.

    Every trial has random numbers of its own, so that the order of their ends does not matter.
    """
    source = random.Random(seed)

    def draw() -> random.Random:
        return random.Random(source.random())

    found: Plan = []
    for number in range(count):
        whom = WHOM[number % len(WHOM)]
        trial = partial(kills.kill, whom=whom, draw=draw(), span=span)
        found.append((f"SIGKILL of the {whom}", trial))
    for _ in range(max(count // 10, 1)):
        for sent, group in itertools.product((signal.SIGINT, signal.SIGTERM), (False, True)):
            trial = partial(kills.interrupt, number=sent, group=group, draw=draw(), span=span)
            found.append((f"{sent.name} to the {'group' if group else 'parent'}", trial))
        found += [
            ("stdout closed after a line", kills.reader_gone),
            ("two sweeps, one store", partial(kills.two_at_once, delay=draw().uniform(0, span))),
            ("disk full (tmpfs)", partial(disks.full_disk, draw=draw())),
            ("files limited (RLIMIT_FSIZE)", partial(disks.size_limit, draw=draw())),
            ("truncated records", partial(files.truncated, draw=draw())),
            ("foreign files", partial(files.foreign, draw=draw())),
        ]
    return [
        *found,
        ("worker's folder full (tmpfs)", disks.full_temporary_folder),
        ("worker's files limited", disks.large_file_of_worker),
        ("read-only mount", partial(disks.read_only, how="mount")),
        ("read-only by permission", partial(disks.read_only, how="permission")),
        ("folder that cannot be listed", disks.unlistable),
        ("no readable file at all", files.nothing_readable),
    ]


def execute(trials: Plan, folder: Path, told: Callable[[str], None] | None = None) -> list[Row]:
    """Run the trials in folders of their own; one row a fault, in the order of first mention."""
    rows = {name: Row(name) for name, _ in trials}

    def one(name: str, trial: Callable[[Path], Trial]) -> None:
        try:
            found = trial(Path(tempfile.mkdtemp(dir=folder)))
        except Unavailable as error:
            rows[name].skipped.append(str(error))
            return
        rows[name].trials.append(found)
        if told is not None:
            told(f"{name}: {'; '.join(found.faults) or 'ok'}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for future in [pool.submit(one, name, trial) for name, trial in trials]:
            future.result()
    return list(rows.values())


def table(rows: Sequence[Row]) -> str:
    """The rows in columns."""
    lines = [HEADS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS) - 1)]
    return "\n".join(
        "  ".join([
            line[0].ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(line[1:-1], widths[1:], strict=True)),
            line[-1],
        ])
        for line in lines
    )  # fmt: skip
