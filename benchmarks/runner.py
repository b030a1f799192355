"""What the runner itself costs: the measuring loop, the first figure, the whole quick suite.

    python -m benchmarks.runner [overhead] [first] [quick]

`overhead` compares one measurement of calls that last 0.1, 1 and 10 ms with a bare loop over as
many of the same calls (asked for: at most 1 %). `first` prints the seconds from the start of the
command to its first figure (at most 15, at a warm start). `quick` prints the seconds of the suite
and the largest memory of all its processes together (at most 6 min and 4 GiB).
"""

import subprocess
import sys
import tempfile
import time

import psutil
import torch

from bench.meters.time import Limits, measure
from benchmarks.ab import compare

CPU = torch.device("cpu")
GIB = 2**30
COMMAND = [sys.executable, "-u", "-m", "bench"]


def overhead() -> None:
    """One measurement of `n` calls against a loop of as many calls and two looks at the clock."""
    for milliseconds in (0.1, 1.0, 10.0):
        count = int(1000 / milliseconds)
        # No error asked for can be met before all samples are there, so both sides call as often.
        limits = Limits(0, count, 0.0, 1e9, 1e9)

        def spin(seconds: float = milliseconds / 1000) -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                pass

        def ours(limits: Limits = limits) -> None:
            measure(spin, limits, CPU)

        def bare(count: int = count) -> None:
            for _ in range(count + 1):  # and the cold call
                spin()

        compare(
            f"measuring {count} calls of {milliseconds:g} ms against a bare loop",
            ours,
            bare,
            seconds=20.0,
            target=1 / 1.01,
        )


def first() -> None:
    """Seconds until `model=mamba size=nano` prints a cell's figure; the second of two starts."""
    for start in ("first start", "warm start"):
        with tempfile.TemporaryDirectory() as results:
            begin = time.perf_counter()
            with subprocess.Popen(
                [*COMMAND, "model=mamba", "size=nano", f"results={results}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process:
                assert process.stdout is not None
                # A model's: the machine's ceilings come before it.
                figures = (
                    line for line in process.stdout if "/s" in line and "ceilings" not in line
                )
                line = next(figures, None)
                seconds = time.perf_counter() - begin
                process.terminate()
        if line is None:
            raise RuntimeError(f"the command ended with {process.returncode} and without a figure")
        verdict = "reached" if seconds <= 15 else "MISSED"
        print(f"{start}: first figure after {seconds:.1f} s, target 15 s {verdict}: {line.strip()}")


def quick() -> None:
    """Seconds of the quick suite, and the peak of the resident memory of its process tree."""
    with tempfile.TemporaryDirectory() as results:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [*COMMAND, f"results={results}"], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(psutil.Process(process.pid)))
            time.sleep(0.5)
        seconds = time.perf_counter() - begin
    verdict = "reached" if seconds <= 360 and peak <= 4 * GIB else "MISSED"
    print(
        f"quick suite: {seconds:.0f} s of 360 s, at most {peak / GIB:.2f} GiB of 4 GiB resident "
        f"(looked at twice a second), exit code {process.returncode}: {verdict}"
    )


def resident(process: psutil.Process) -> int:
    """Bytes resident in the process and all that it started; shared pages count once a process."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it ended between the listing and the look
    return total


def main() -> None:
    """Run the parts that are named, all of them by default."""
    parts = {"overhead": overhead, "first": first, "quick": quick}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
