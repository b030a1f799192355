"""A data set of the Hugging Face hub, or a local folder of one, as text for shards.

`datasets` fetches it and keeps it as memory-mapped Arrow files, whose rows each process reads by
their numbers; rows are documents.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.shards.jobs import Group, Job, Span, named
from bench.tasks.hub import load_hub
from bench.tasks.splits import SPLITS

GROUP = 4096  # rows that are hashed as one; shards end where a group does
ROWS = 64  # read at once


class Hub:
    """The text column of a data set, split as the set is.

    Validation and test, where it has none, are taken from train: a row's split is decided by the
    hash of its text, so that no text stands in two.
    """

    def __init__(self, hub: str, config: str | None, column: str, shares: Sequence[float]) -> None:
        found = load_hub(hub, config)
        self.hub, self.config, self.column = hub, config, column
        own = {split: rows for split, rows in found.items() if split in SPLITS and len(rows)}
        if "train" not in own:
            raise ValueError(
                f"--hub {hub} has the splits {', '.join(found)}; allowed is one with train"
            )
        for rows in own.values():
            if column not in rows.column_names:
                raise ValueError(
                    f"--column {column} is not in {hub}; allowed are {', '.join(rows.column_names)}"
                )
            if getattr(rows.features[column], "dtype", None) not in ("string", "large_string"):
                raise ValueError(
                    f"--column {column} of {hub} holds no text; allowed is a column of strings"
                )
        self.rows = {split: rows.select_columns([column]) for split, rows in own.items()}
        self.taken = [split for split in SPLITS if split not in own]
        ratio = dict(zip(SPLITS, shares, strict=True))
        kept = ratio["train"] + sum(ratio[split] for split in self.taken)
        self.shares = {split: ratio[split] / kept for split in self.taken}
        self.name = f"hub-{Path(hub).name}" + (f"-{config}" if config else "")
        self.split = "the data set's own"
        if self.taken:
            parts = " and ".join(f"{100 * self.shares[s]:.3g} % are {s}" for s in self.taken)
            self.split += f"; of the rows of train, by the hash of their text, {parts}"

    def facts(self) -> dict[str, Any]:
        return {
            "hub": self.hub,
            "config": self.config,
            "column": self.column,
            "rows": {split: [len(rows), rows._fingerprint] for split, rows in self.rows.items()},
        }

    def jobs(self, shard_bytes: int) -> list[Job]:
        return [job for split in SPLITS for job in named(split, self._spans(split, shard_bytes))]

    def groups(self, job: Job) -> Iterator[Group]:
        for span in job.spans:
            ends = [*range(span.begin, span.end, GROUP), span.end]
            for begin, end in itertools.pairwise(ends):
                yield self._texts(job.split, span.name, begin, end)

    def _spans(self, split: str, shard_bytes: int) -> Iterator[tuple[Span, ...]]:
        """Ranges of rows that hold about `shard_bytes` of the split."""
        name = "train" if split in self.taken else split
        rows, share = self.rows[name], self.shares.get(split, 1.0)
        size = max(rows.data.nbytes / len(rows) * share, 1e-9)
        step = max(round(shard_bytes / size / GROUP), 1) * GROUP
        for begin in range(0, len(rows), step):
            yield (Span(name, begin, min(begin + step, len(rows))),)

    def _texts(self, split: str, name: str, begin: int, end: int) -> Iterator[bytes]:
        for first in range(begin, end, ROWS):
            for value in self.rows[name][first : min(first + ROWS, end)][self.column]:
                if value is None:
                    continue
                # Wikitext's rows are lines that carry their line break; other sets' rows do not.
                text = (value if value.endswith("\n") else value + "\n").encode()
                if name != "train" or self._of(text) == split:
                    yield text

    def _of(self, text: bytes) -> str:
        """The split of a row of train."""
        number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
        for split, share in self.shares.items():
            if number < share:
                return split
            number -= share
        return "train"
