"""A preparation goes on where it was killed, and says in one sentence what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.shards import preparing, writing
from bench.shards.index import read
from bench.shards.jobs import PIECE, Job
from bench.shards.preparing import JOURNAL
from tests.runner.conftest import ROOT, environment
from tests.runner.faults.disks import mount, mounted, permissions_bind
from tests.runner.faults.sweep import Unavailable
from tests.shards.texts import command, parts, prepared, write_lines

MIB_LINES = PIECE // 16

# Ends when two shards are in the journal, and tells its children's numbers.
UNTIL_TWO = """
import os, psutil, signal, sys
from bench import prepare
from bench.shards import preparing
written = preparing._written
def until(*arguments):
    for number, entry in enumerate(written(*arguments)):
        if number == 2:
            print(*[c.pid for c in psutil.Process().children(recursive=True)], flush=True)
            END
        yield entry
preparing._written = until
sys.exit(prepare.main(sys.argv[1:]))
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Six MiB: with shards of one, seven of train and one each of the others."""
    write_lines(tmp_path / "text", 6 * MIB_LINES + 1000)
    return tmp_path / "text"


def state(folder: Path) -> dict[str, Any]:
    return {p.name: (p.stat().st_ino, p.read_bytes()) for p in folder.glob("*.bin")}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_preparation_goes_on(tmp_path: Path, text: Path, workers: int) -> None:
    folder, clean = tmp_path / "out", tmp_path / "clean"
    words = [str(folder), "--path", str(text), "--shard-mb", "1", "--shares", "0.8", "0.1", "0.1"]
    words += ["--workers", str(workers)]
    done = subprocess.run(
        [sys.executable, "-c", UNTIL_TWO.replace("END", "os.kill(os.getpid(), signal.SIGKILL)"),
         *words],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    until = time.monotonic() + 20
    pids = [int(pid) for pid in done.stdout.split()]
    assert bool(pids) == (workers > 1)
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < until, "processes go on without the one that started them"
        time.sleep(0.05)
    with pytest.raises(ValueError, match=r"task\.path=x is not finished"):
        read(folder, "task.path=x")
    journal = (folder / JOURNAL).read_text().splitlines()
    kept = [json.loads(line)["name"] for line in journal if line]
    assert len(kept) == 2
    with open(folder / JOURNAL, "a") as stream:
        stream.write('{"name": "train-000')  # as if it had been killed while it wrote
    before = state(folder)
    assert command(*words) == 0
    after = state(folder)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    index = prepared(clean, text)
    assert read(folder, "x") == index
    assert parts(folder) == parts(clean)


def test_what_was_half_written_is_no_shard(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies inside a shard: a file under another name is left, and is removed."""
    folder = tmp_path / "out"
    code = """
import os, sys
from bench.shards.files import Files
from bench.shards import preparing
groups = Files.groups
def dies(self, job):
    for number, group in enumerate(groups(self, job)):
        yield group
        if job.name == "train-00001.bin": os._exit(9)
Files.groups = dies
from bench.prepare import main
main(sys.argv[1:])
"""
    words = [str(folder), "--path", str(text), "--shard-mb", "2", "--workers", "1"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, env=environment())
    assert done.returncode == 9
    assert [p.name for p in folder.glob("*.bin")] == ["train-00000.bin"]
    assert len(list(folder.glob(".train-00001.bin.*.tmp"))) == 1
    assert command(*words) == 0
    assert not list(folder.glob(".*.tmp"))
    assert b"".join(parts(folder).values()) == text.read_bytes()


def test_workers_and_order_of_finishing_change_nothing(tmp_path: Path, text: Path) -> None:
    folders = [tmp_path / str(workers) for workers in (1, 3)]
    for folder, workers in zip(folders, (1, 3), strict=True):
        prepared(folder, text, workers=workers)
    assert read(folders[0], "x") == read(folders[1], "x")
    assert parts(folders[0]) == parts(folders[1])


@pytest.mark.parametrize("fault", ["missing", "truncated", "flipped", "unlisted"])
def test_spoilt_shards_are_written_again(
    tmp_path: Path, text: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    index = prepared(folder, text)
    good, shard = parts(folder), folder / "train-00002.bin"
    data = bytearray(shard.read_bytes())
    if fault == "missing":
        shard.unlink()
    elif fault == "truncated":
        shard.write_bytes(data[:-5])
    elif fault == "flipped":
        data[1000] ^= 4
        shard.write_bytes(data)
    else:
        entries = (folder / JOURNAL).read_text().splitlines(keepends=True)
        (folder / JOURNAL).write_text("".join(e for e in entries if shard.name not in e))
    written: list[str] = []
    write = writing.Writer.write

    def noted(self: writing.Writer, job: Job) -> dict[str, Any]:
        written.append(job.name)
        return write(self, job)

    monkeypatch.setattr(writing.Writer, "write", noted)
    assert prepared(folder, text) == index
    assert written == [shard.name]
    assert parts(folder) == good


def test_another_request_is_refused(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    assert command(folder, "--path", text, "--shard-mb", 1, "--workers", 1) == 0

    def refused(words: list[object], *parts: str) -> None:
        capsys.readouterr()
        assert command(*words) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        for part in parts:
            assert part in line

    same = [folder, "--path", text, "--workers", 1]
    refused([*same, "--shard-mb", 2], str(folder), "another shard_bytes", "new folder")
    other = [*same, "--shard-mb", 1, "--shares", 0.5, 0.25, 0.25]
    refused(other, "another shares", "[0.98, 0.01, 0.01], now [0.5, 0.25, 0.25]")
    refused([*same, "--shard-mb", 1, "--shares", 0.5, 0.5, 0.5], "--shares [0.5", "sum to one")
    with open(text, "ab") as stream:
        stream.write(b"more\n")
    refused([*same, "--shard-mb", 1], "another source")
    refused([tmp_path / "new", "--path", tmp_path / "no"], f"--path {tmp_path / 'no'} does not")
    refused([tmp_path, "--path", text], "is not empty (it holds ", "and was not prepared")
    assert not list(tmp_path.glob(".*"))
    refused([text, "--path", text], f"{text} cannot be written (File exists)")
    said = (f"--tokenizer {text} cannot be read", "or no --tokenizer, for bytes")
    refused([tmp_path / "new", "--path", text, "--tokenizer", text], *said)
    refused([tmp_path / "none", "--verify"], "has no index.json", "python -m bench.prepare")
    (tmp_path / "tiny").write_bytes(b"a\nb\n")
    refused([tmp_path / "new", "--path", tmp_path / "tiny"], "too short", "validation part")


def test_a_text_that_changes_meanwhile_is_refused(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = preparing._written

    def changed(*arguments: Any) -> Any:
        yield from written(*arguments)
        text.write_bytes(text.read_bytes()[:-16])

    monkeypatch.setattr(preparing, "_written", changed)
    with pytest.raises(ValueError, match="changed while it was prepared"):
        prepared(tmp_path / "out", text)


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_two_at_once_are_refused(tmp_path: Path, text: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        preparing.locked(tmp_path / "out"),
        pytest.raises(ValueError, match="being prepared by another process"),
    ):
        prepared(tmp_path / "out", text)
    prepared(tmp_path / "out", text)


def test_a_full_disk_is_told_and_what_was_written_is_kept(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "disk" / "out"
    words = [folder, "--path", text, "--shard-mb", 1, "--workers", 2]
    try:
        with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m"):
            assert command(*words) == 2
            assert capsys.readouterr().err == (
                f"error: {folder} cannot be written (No space left on device)\n"
            )
            assert not list(folder.glob(".*.tmp"))
            assert list(folder.glob("*.bin"))
            mount("-o", "remount,size=16m", str(tmp_path / "disk"))
            assert command(*words) == 0
            assert "shards are there already" in capsys.readouterr().out
            assert b"".join(parts(folder).values()) == text.read_bytes()
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_what_may_not_be_read_or_written_is_told(tmp_path: Path, text: Path) -> None:
    try:
        prepare = permissions_bind(tmp_path)
    except Unavailable as reason:
        pytest.skip(str(reason))
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)

    def told(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "bench.prepare", *map(str, words), "--workers", "1"],
            cwd=ROOT, env=environment(), capture_output=True, text=True, preexec_fn=prepare,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        return done.stderr

    assert told(locked / "out", "--path", text) == (
        f"error: {locked / 'out'} cannot be written (Permission denied)\n"
    )
    prepared(tmp_path / "out", text)
    (tmp_path / "out" / "train-00001.bin").chmod(0)
    assert "train-00001.bin cannot be read (Permission denied)" in told(
        tmp_path / "out", "--verify"
    )
    (tmp_path / "out" / "index.json").chmod(0)
    said = told(tmp_path / "out", "--verify")
    assert "cannot be read (index.json: Permission denied)" in said
    text.chmod(0)
    assert f"--path {text} is unreadable (Permission denied" in told(
        tmp_path / "new", "--path", text
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read on Linux")
def test_memory_of_a_process_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """Four times the text, in shards of half of it: no more memory."""

    def peak(mib: int) -> int:
        text = tmp_path / f"{mib}"
        write_lines(text, mib * MIB_LINES)
        # Not what getrusage says, which knows the process that this one was forked from.
        code = (
            "import sys; from bench.prepare import main; code = main(sys.argv[1:]);"
            "print(code, open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        )
        words = [str(tmp_path / f"out{mib}"), "--path", str(text), "--shard-mb", str(mib // 2)]
        done = subprocess.run(
            [sys.executable, "-c", code, *words, "--workers", "1"],
            cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        code_, kib = done.stdout.splitlines()[-1].split()
        assert code_ == "0", done.stderr
        return int(kib)

    small, large = peak(16), peak(64)
    assert large < small + 4096, f"{small} KiB and {large} KiB"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_ends_it(tmp_path: Path, text: Path, workers: int) -> None:
    """As a terminal sends it, to all of its processes."""
    words = [str(tmp_path / "out"), "--path", str(text), "--shard-mb", "1"]
    words += ["--workers", str(workers)]
    done = subprocess.run(
        [sys.executable, "-c", UNTIL_TWO.replace("END", "os.killpg(0, signal.SIGINT)"), *words],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
        start_new_session=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "interrupted; the same command goes on\n")
    assert command(*words) == 0
    assert b"".join(parts(tmp_path / "out").values()) == text.read_bytes()


def test_a_process_that_dies_is_told(tmp_path: Path, text: Path) -> None:
    """As the system ends one for want of memory."""
    code = """
import os, signal, sys
from bench.shards import writing
from bench.shards.files import Files
def dies(self, job):
    os.kill(os.getpid(), signal.SIGKILL)
if __name__ != "__main__":
    Files.groups = dies
if __name__ == "__main__":
    from bench.prepare import main
    sys.exit(main(sys.argv[1:]))
"""
    script = tmp_path / "script.py"  # imported by each process that is started
    script.write_text(code)
    words = [str(tmp_path / "out"), "--path", str(text), "--shard-mb", "1", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, str(script), *words],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "was ended from outside" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path / "out")
    assert command(*words) == 0
