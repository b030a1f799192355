"""The kernels that tests run with; what cannot run here is skipped with its reason."""

import pytest

from models.kernels.available import numba_problem

needs_numba = pytest.mark.skipif(numba_problem() is not None, reason=str(numba_problem()))
KERNELS = ["torch", pytest.param("numba", marks=needs_numba)]
