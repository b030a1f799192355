"""The options that all scripts with rows share, and a line for each row."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.rows.rivals import RIVALS
from benchmarks.rows.row import Row, Setting

LENGTHS = (512, 2048)


def make_parser(doc: str | None, rows: Sequence[Row]) -> argparse.ArgumentParser:
    """Which rows, at what lengths, for how long, and where the rivals are."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    keys = [row.key for row in rows]
    parser.add_argument(
        "--rows", nargs="+", choices=keys, default=keys, metavar="ROW",
        help=f"all by default: {', '.join(keys)}",
    )  # fmt: skip
    parser.add_argument("--length", nargs="+", type=int, default=LENGTHS, help="of the sequences")
    parser.add_argument("--seconds", type=float, default=15.0, help="about, for each row")
    for rival in RIVALS:
        parser.add_argument(
            f"--{rival.option}", type=Path, metavar="PATH", dest=rival.option,
            help=f"a checkout of github.com/{rival.repository}",
        )  # fmt: skip
    return parser


def cases(options: argparse.Namespace, rows: Sequence[Row]) -> Iterator[tuple[Row, Setting]]:
    """Every chosen row at every length, or at the one length that it is about."""
    given = {rival.option: getattr(options, rival.option) for rival in RIVALS}
    checkouts = {option: path.resolve() for option, path in given.items() if path is not None}
    for row in rows:
        if row.key in options.rows:
            for length in [row.length] if row.length else options.length:
                yield row, Setting(length, options.seconds, checkouts)


def main(doc: str | None, rows: Sequence[Row]) -> None:
    """Print a line for each row."""
    options = make_parser(doc, rows).parse_args()
    for row, setting in cases(options, rows):
        print(row.measure(setting), flush=True)
