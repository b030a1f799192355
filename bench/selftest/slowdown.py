"""A slowdown of a known share, injected into every timed call of a process."""

import time
from collections.abc import Callable
from types import ModuleType


def slow_down(meter: ModuleType, share: float) -> None:
    """Make each call that `meter` (`bench.meters.time`) times on a CPU take `share` longer.

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

        return float(clock(longer))

    meter._cpu_clock = slowed  # type: ignore[attr-defined]
