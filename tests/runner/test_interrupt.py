"""An interrupt that Python loses ends the run all the same."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from bench import cli
from bench.ab import sample
from bench.process.interrupt import Interrupts, check_kills, polite_kills
from bench.process.launch import Launcher


class FakeLauncher:
    killed = 0

    def kill(self) -> None:
        self.killed += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_kills_the_cell_and_raises(number: signal.Signals) -> None:
    launcher: Any = FakeLauncher()
    before = signal.getsignal(number)
    with Interrupts(cast(Launcher, launcher)) as interrupts:
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert launcher.killed == 1
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert signal.getsignal(number) is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_is_lost_in_a_finalizer_is_raised_again() -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    launcher: Any = FakeLauncher()
    with Interrupts(cast(Launcher, launcher)) as interrupts:
        held = Finalized()
        del held  # Python prints what the handler raised here, and goes on
        assert launcher.killed == 1
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_comparison_that_waits_hears_of_a_lost_one(number: signal.Signals) -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    child = sample._Child(subprocess.Popen(["sleep", "60"]), Path(), 0)
    try:
        with polite_kills():
            check_kills()
            held = Finalized()
            del held
            with pytest.raises(KeyboardInterrupt):
                child.wait(time.monotonic() + 60)
    finally:
        child.stop("")
    assert signal.getsignal(number) is before
    check_kills()


def test_kill_touches_no_process_that_has_ended(tmp_path: Path) -> None:
    launcher = Launcher(preload=[], threads=1, worker="tests.runner.fakes:run_cell", fresh=True)
    launcher.kill()  # nothing was started
    process = launcher.context.Process(target=os.getpid)
    launcher._process = process
    launcher.kill()  # not started yet
    process.start()
    process.join(60)
    launcher.kill()
    assert process.exitcode == 0


def test_a_polite_kill_before_the_first_cell_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "_dispatch", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["plan=true"]) == 130
    assert capsys.readouterr().err == "interrupted; every finished record is kept\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_kills_are_left_alone() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cli.main(["--help"])))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("word", ["list", "--help"])
def test_an_output_without_room_is_one_sentence(word: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bench", word], stdout=full, stderr=subprocess.PIPE, text=True
        )
    said = "error: the output cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (2, said)
