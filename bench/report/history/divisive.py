"""Where the distribution of a series changes: E-divisive, with Hunter's test and merging.

Papers: Matteson and James 2014, "A nonparametric approach for multiple change point analysis of
multivariate data" (arXiv:1306.4933), for the divergence Q and the bisection; Fleming, Kolaczkowski
and others 2023, "Hunter: using change point detection to hunt for performance regressions"
(arXiv:2301.03034), section 3, for Student's test in place of permutations, the sliding window and
the merging of weak points.

    z       the series, one value a commit            (n,)
    tau     first place of the right part             X = z[start:tau], Y = z[tau:kappa]
    kappa   end of the right part, at most `stop`     (the left part ends where the right begins)

Reference implementation: Apache Otava (apache/otava), of which no code is used. Deviations:
- A part has at least `LEAST` values, as equation 5 of the first paper asks for; Otava takes single
  ones. So one outlier is no change.
- A candidate is tested against what lies before the kappa of the largest Q, as equation 7 of the
  first paper chooses it. Otava tests against all that follows, and misses a level that comes and
  goes. With more candidates, p is smaller (`P`; Hunter's is 0.001).
- When a weak point is merged away, both of its neighbours are tested anew; Otava tests the two on
  its right. Variances are unbiased; Otava's are divided by n.
- alpha is 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAST = 2  # values of a part: below, its inner distance has no unbiased estimate
WINDOW = 50  # values that are looked at together, as in Hunter
P = 2e-4  # of a point that is reported: of 50 values of plain noise, less than 1 % have one
WEAKER = 10  # how much larger the p of a candidate may be before candidates are merged


@dataclass(frozen=True)
class Split:
    """A change at `place`, the first value of the new level; `step` is new level minus old one."""

    place: int
    step: float
    p: float


def change_points(
    z: Sequence[float] | Array, *, p: float = P, floor: float = 0.0, window: int = WINDOW,
    least: int = LEAST,
) -> list[Split]:  # fmt: skip
    """The changes of level in `z`, in order: each significant at `p` and larger than `floor`.

    `floor` is in units of z. Candidates come from windows that overlap by half, so that a later
    level does not hide an earlier one; the weakest are then merged away one by one, and those
    beside them are tested anew between the neighbours that are left.
    """
    values = np.asarray(z, dtype=np.float64)
    return merge(values, candidates(values, p=min(1.0, p * WEAKER), window=window, least=least),
                 p=p, floor=floor)  # fmt: skip


def candidates(z: Array, *, p: float, window: int = WINDOW, least: int = LEAST) -> list[int]:
    """Places that are significant at `p` within a window, sorted (the weak points of Hunter)."""
    found: set[int] = set()
    start = 0
    while start < len(z):
        inside = bisect(z[start : start + window], p=p, least=least)
        found.update(start + place for place in inside)
        start = max(start + window // 2, start + max(inside, default=0))
    return sorted(found)


def bisect(z: Array, *, p: float, least: int = LEAST) -> list[int]:
    """E-divisive: split at the largest divergence of all parts as long as that is significant."""
    sums = distance_sums(z)
    bounds = [0, len(z)]
    best = {(0, len(z)): best_split(sums, 0, len(z), least)}
    while True:
        _, tau, kappa, (start, stop) = max((*found, part) for part, found in best.items())
        if not tau or t_test(z[start:tau], z[tau:kappa]) > p:
            break
        bounds = sorted([*bounds, tau])
        del best[start, stop]
        for part in ((start, tau), (tau, stop)):
            best[part] = best_split(sums, *part, least)
    return bounds[1:-1]


def distance_sums(z: Array) -> Array:
    """S[a, b] = sum of |z_i - z_j| over i < a and j < b, (n,) -> (n + 1, n + 1)."""
    sums = np.zeros((len(z) + 1, len(z) + 1))
    distances = np.abs(z[:, None] - z[None, :])
    np.cumsum(np.cumsum(distances, axis=0, out=distances), axis=1, out=sums[1:, 1:])
    return sums


def best_split(sums: Array, start: int, stop: int, least: int = LEAST) -> tuple[float, int, int]:
    """The largest Q, its tau and its kappa (equation 7); (-inf, 0, 0) where no split fits."""
    best = (-np.inf, 0, 0)
    for tau in range(start + least, stop - least + 1):
        q = divergences(sums, start, tau, stop, least)
        place = int(np.argmax(q))
        if q[place] > best[0]:
            best = (float(q[place]), tau, tau + least + place)
    return best


def divergences(sums: Array, start: int, tau: int, stop: int, least: int = LEAST) -> Array:
    """Q of equations 5 and 6 for kappa = tau + least … stop: (stop - tau - least + 1,).

    Row by row, for a matrix over all tau would be half empty and larger than the cache.
    """
    kappa = slice(tau + least, stop + 1)
    n, m = tau - start, np.arange(least, stop - tau + 1)
    edge, crossed = sums[start], sums[tau, kappa]
    # Sums over pairs: between the parts once, inside a part each pair twice.
    between = crossed - sums[tau, tau] - edge[kappa] + edge[tau]
    left = sums[tau, tau] - 2 * edge[tau] + edge[start]
    right = sums.diagonal()[kappa] - 2 * crossed + sums[tau, tau]
    # nm/(n+m) · (2 between/nm - left/n(n-1) - right/m(m-1)); single values have no inside.
    inner = left / (n * max(n - 1, 1)) + right / (m * np.maximum(m - 1, 1))
    return np.asarray((2 * between - n * m * inner) / (n + m))


def t_test(left: Array, right: Array) -> float:
    """Two-sided p of Student's test with a common variance; 1 where nothing can be told."""
    n, m = len(left), len(right)
    if n + m < 3:
        return 1.0
    step = abs(float(right.mean() - left.mean()))
    squares = float(((left - left.mean()) ** 2).sum() + ((right - right.mean()) ** 2).sum())
    error = np.sqrt(squares / (n + m - 2) * (1 / n + 1 / m))
    if error == 0.0:
        return 0.0 if step else 1.0
    from scipy.special import stdtr  # slow to load, and of no use to a table

    return 2 * float(stdtr(n + m - 2, -step / error))


def merge(z: Array, places: Sequence[int], *, p: float, floor: float = 0.0) -> list[Split]:
    """Drop the least significant point, then the smallest, until all hold against neighbours."""
    found = [_split(z, places, index) for index in range(len(places))]
    while found:
        weakest = max(found, key=lambda split: split.p)
        if weakest.p <= p:
            weakest = min(found, key=lambda split: abs(split.step))
            if abs(weakest.step) > floor:
                break
        index = found.index(weakest)
        del found[index]
        left = [split.place for split in found]
        for beside in {index - 1, index} & set(range(len(found))):
            found[beside] = _split(z, left, beside)
    return found


def _split(z: Array, places: Sequence[int], index: int) -> Split:
    """The point `index` of `places`, tested between its neighbours."""
    start = places[index - 1] if index else 0
    stop = places[index + 1] if index + 1 < len(places) else len(z)
    left, right = z[start : places[index]], z[places[index] : stop]
    return Split(places[index], float(right.mean() - left.mean()), t_test(left, right))
