"""Importing this makes numba load what it otherwise loads at the first compilation.

That is half a second and two hundred modules, which belong to a fork server and not to a cell.
"""

import numba

numba.njit(lambda: 0)()
