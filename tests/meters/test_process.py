"""The process's own memory, against pages of known size."""

import mmap
import sys
from pathlib import Path

import psutil
import pytest

from bench.meters import process

SIZE = 64 << 20


def touch() -> None:
    """Pages straight from the system, which go back to it."""
    with mmap.mmap(-1, SIZE) as pages:
        pages.write(b"\1" * SIZE)


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is reset on Linux alone")
def test_the_peak_is_that_of_the_call() -> None:
    touch()  # a peak before it, which must not be told
    quiet = process.peak_during(lambda: None)
    if quiet is None:
        pytest.skip("/proc is read-only here")
    assert quiet < process.resident_bytes() + SIZE / 4
    loud = process.peak_during(touch)
    assert loud is not None
    # The bytes that are written are resident as well.
    assert loud - quiet == pytest.approx(2 * SIZE, rel=0.05)


def test_a_peak_that_cannot_be_reset_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "CLEAR", tmp_path / "none" / "clear_refs")
    assert process.peak_during(lambda: None) is None


def test_resident_bytes_are_those_of_this_process() -> None:
    assert 1e6 < process.resident_bytes() < psutil.virtual_memory().total
