"""A baton between two processes: while one of them times its calls, the other one sleeps.

A shared machine changes its speed from second to second. Processes that are measured one after the
other carry that difference in full; two that alternate many times a second share it.
"""

import os
import time

SLICE_S = 0.005
READY, BATON, WAITS = b"r", b"b", b"w"


class Turns:
    """One end of the baton. Called before each timed call, returns when it is this side's turn.

    `inbox` and `outbox` are file descriptors of two pipes between the processes. A partner that
    has ended, well or badly, leaves the baton here for good. `flag` is both ends of a pipe of this
    side's own: a byte lies in it while this side waits, for whoever asks who holds the baton.
    """

    def __init__(
        self, inbox: int, outbox: int, flag: tuple[int, int], *, leads: bool,
        slice_s: float = SLICE_S,
    ) -> None:  # fmt: skip
        self.inbox, self.outbox, self.flag = inbox, outbox, flag
        self.leads = leads
        self.slice_s = slice_s
        self.alone = False
        self._since: float | None = None

    def __call__(self) -> None:
        if self.alone:
            return
        if self._since is None:
            self._send(READY)
            self._receive()  # both have imported and built: the first call, a cold one, is next
            if not self.leads:
                self._receive()
        elif time.perf_counter() - self._since >= self.slice_s:
            self._send(BATON)
            self._receive()
        else:
            return
        self._since = time.perf_counter()

    def _send(self, word: bytes) -> None:
        try:
            os.write(self.outbox, word)
        except BrokenPipeError:
            self.alone = True

    def _receive(self) -> None:
        if self.alone:
            return
        os.write(self.flag[1], WAITS)
        self.alone = not os.read(self.inbox, 1)
        os.read(self.flag[0], 1)
