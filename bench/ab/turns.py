"""A baton between two processes: while one of them times its calls, the other one sleeps.

A shared machine changes its speed from second to second. Processes that are measured one after the
other carry that difference in full; two that alternate many times a second share it.
"""

import os
import time

SLICE_S = 0.005
READY, BATON = b"r", b"b"


class Turns:
    """One end of the baton. Called before each timed call, returns when it is this side's turn.

    `inbox` and `outbox` are file descriptors of two pipes between the processes. A partner that
    has ended, well or badly, leaves the baton here for good.
    """

    def __init__(self, inbox: int, outbox: int, *, leads: bool, slice_s: float = SLICE_S) -> None:
        self.inbox, self.outbox = inbox, outbox
        self.leads = leads
        self.slice_s = slice_s
        self.alone = False
        self._since: float | None = None

    def __call__(self) -> None:
        if self.alone:
            return
        if self._since is None:
            self._send(READY)
            self._receive()  # both have imported, built and warmed up
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
        if not self.alone and not os.read(self.inbox, 1):
            self.alone = True
