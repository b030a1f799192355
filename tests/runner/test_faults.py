"""No fault costs a finished record; the short form of `scripts/inject_faults.py`.

Kills at an instant or two, while that repeats each at random instants.
"""

import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("signals and permissions are those of POSIX", allow_module_level=True)

from bench.process.launch import SOCKET_FOLDER
from tests.runner.faults import campaign, disks, files, kills
from tests.runner.faults.sweep import Sweep, Trial, account

SPAN_S = 2.5  # the cells of a sweep run then, on a machine that is idle


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for sockets below it."""
    with tempfile.TemporaryDirectory(prefix="faults-", dir="/tmp") as name:
        yield Path(name)


def hold(folder: Path, **trials: Callable[[Path], Trial]) -> None:
    """The trials leave no fault; what cannot be made here is skipped, with the reason."""
    if reasons := impossible(folder, **trials):
        pytest.skip("; ".join(reasons))


def impossible(folder: Path, **trials: Callable[[Path], Trial]) -> list[str]:
    """Which trials cannot be made here, and why; the others leave no fault."""
    rows = campaign.execute(list(trials.items()), folder)
    assert not [(row.fault, row.faults) for row in rows if row.faults]
    return [f"{row.fault}: {'; '.join(row.reasons)}" for row in rows if row.skipped]


def test_kills(folder: Path) -> None:
    draws = random.Random(1)
    trials = {
        whom: partial(kills.kill, whom=whom, draw=random.Random(draws.random()), span=SPAN_S)
        for whom in campaign.WHOM
    }
    hold(folder, **trials)


def test_a_store_shared_or_read_only_and_a_reader_gone(folder: Path) -> None:
    two = partial(kills.two_at_once, delay=0.5)
    locked = partial(disks.read_only, how="permission")
    hold(folder, two=two, locked=locked, head=kills.reader_gone, hidden=disks.unlistable)


def test_disks_without_room(folder: Path) -> None:
    draw = random.Random(2)
    full = partial(disks.full_disk, draw=draw)
    if impossible(folder, disk=full, worker=disks.full_temporary_folder):
        # Nothing can be mounted: a limit does it as well.
        limited = partial(disks.size_limit, draw=draw)
        hold(folder, disk=limited, worker=disks.large_file_of_worker)


def test_spoilt_files(folder: Path) -> None:
    hold(
        folder,
        foreign=partial(files.foreign, draw=random.Random(3)),
        truncated=partial(files.truncated, draw=random.Random(3)),
    )


def test_a_temporary_folder_too_long_for_sockets(folder: Path) -> None:
    sweep, trial = Sweep(folder, seeds=1), Trial()
    long = folder / ("x" * 100)
    long.mkdir()
    done = sweep.run(TMPDIR=str(long))
    assert done.code == 2
    trial.one_sentence(done, f"TMPDIR={long}", "about 70 bytes")
    assert trial.faults == []
    short = folder / ("x" * (SOCKET_FOLDER - len(str(folder)) - 1))
    short.mkdir()
    assert sweep.run(TMPDIR=str(short)).code == 0


def test_a_trial_that_could_not_be_made_hides_no_other() -> None:
    row = campaign.Row("fault", [Trial(before=3, lost=["x"]), Trial()], ["no mount", "no mount"])
    assert row.cells() == ["fault", "2", "3", "1", "0", "0 of 0", "1 FAULTS (2 skipped)"]
    none = campaign.Row("fault", [], ["no mount", "no mount"])
    assert none.cells() == ["fault", "0", "", "", "", "", "skipped: no mount"]


def test_the_account_finds_what_it_is_for(folder: Path) -> None:
    """Records lost, changed, copied and made up do not pass."""
    sweep = Sweep(folder, seeds=2)
    assert sweep.run().code == 0
    honest = Trial()
    account(sweep, honest, sweep.cells(), whole=True)
    assert honest.faults == []
    names = sorted(sweep.seen)
    folder = sweep.results / "records"
    (folder / names[0]).unlink()
    (folder / names[1]).write_bytes(sweep.seen[names[1]].replace(b"123.0", b"321.0"))
    identity = names[2].removesuffix(".json").encode()
    copy = sweep.seen[names[2]].replace(identity, b"copy")
    (folder / "copy.json").write_bytes(copy)
    (folder / "torn.json").write_bytes(copy[:100])
    trial = Trial()
    account(sweep, trial, sweep.cells(), whole=True)
    assert sorted(sentence.partition(":")[0] for sentence in trial.lost) == [
        "lost or changed", "lost or changed", "printed, no record", "unreadable"
    ]  # fmt: skip
    assert len(trial.invented) == 1
    assert trial.invented[0].startswith("no worker measured")
    assert len(trial.wrong) == 3  # no result of one cell, two of another, the copy's artefacts
