"""An interrupt, or a polite kill, ends the running cell and then the run."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.process.launch import Launcher  # slow to load, and of no use to most commands

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Takes the signals while it is entered.

    What a handler raises is lost where Python runs it inside a finalizer or a callback of the
    collector. So the cell's process is killed as well, which wakes the runner, and `check` raises
    once more.
    """

    def __init__(self, launcher: "Launcher") -> None:
        self.launcher = launcher
        self.asked = False

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt where one was asked for and did not get through."""
        if self.asked:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.launcher.kill()
        raise KeyboardInterrupt


_asked = threading.Event()


@contextlib.contextmanager
def polite_kills() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt meanwhile as SIGINT does, so that all is tidied up.

    Whoever waits inside calls `check_kills` now and then: what a handler raises may be lost.
    Only the main thread can take signals; in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        _asked.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def check_kills() -> None:
    """Raise KeyboardInterrupt where one was asked for and did not get through."""
    if _asked.is_set():
        raise KeyboardInterrupt
