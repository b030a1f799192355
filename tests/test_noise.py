"""The controls that `benchmarks.noise` takes away."""

import pytest

from benchmarks import noise


def test_too_many_threads_are_counted_from_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS, which torch goes by, says nothing of them."""
    monkeypatch.setattr(noise, "cores", lambda: 6)
    (variant,) = (v for v in noise.variants() if v.name == "twice as many threads as cores")
    assert variant.variables() == dict.fromkeys(noise.THREAD_VARIABLES, "12")
