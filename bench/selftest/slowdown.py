"""A slowdown of a known share, injected into every timed call of this process."""

import time
from collections.abc import Callable

from bench.meters import time as meter


def slow_down(share: float) -> None:
    """Make each timed call on a CPU take `share` longer, by work that fills one core.

    The time is added inside the clock's window, in proportion to the call's own.
    """
    clock = meter._cpu_clock

    def slowed(call: Callable[[], object]) -> float:
        def longer() -> None:
            begin = time.perf_counter()
            call()
            end = begin + (time.perf_counter() - begin) * (1 + share)
            while time.perf_counter() < end:
                pass

        return clock(longer)

    meter._cpu_clock = slowed
