"""Bring faults upon sweeps, many times, and show that no finished record is lost or invented.

    python scripts/inject_faults.py --kills 50 --seed 0

Prints a table: the fault, its trials, the records that were finished before it, those lost, those
invented, files and failures that were named of those that had to be, and a verdict. Exit code 1
where anything was lost, invented, unnamed or otherwise wrong; each is printed below the table.
Needs the development extra; as root it also mounts small file systems in a temporary folder.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `tests` is not installed

from tests.runner.faults import campaign, kills


def main() -> int:
    """Run the long form; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="SIGKILLs (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default: 0)")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="faults whose name holds a TEXT"
    )
    options = parser.parse_args()
    if options.kills < 1:
        parser.error(f"--kills {options.kills} is out of range; allowed: integers from 1")

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="faults-", dir="/tmp") as name:
        folder = Path(name)
        span = kills.duration(folder / "undisturbed")
        tell(f"an undisturbed sweep takes {span:.1f} s")
        trials = campaign.plan(options.kills, options.seed, span)
        trials = [trial for trial in trials if any(text in trial[0] for text in options.only)]
        if not trials:
            parser.error(f"--only {' '.join(options.only)}: no fault has such a name")
        rows = campaign.execute(trials, folder, tell)
    print(campaign.table(rows))
    for row in rows:
        for sentence in row.faults:
            print(f"{row.fault}: {sentence}")
    return 1 if any(row.faults for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
