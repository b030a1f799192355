"""How close two sets of images are, by the features of a small frozen encoder.

Fréchet distance (Heusel et al. 2017, arXiv:1706.08500), unbiased kernel distance (Bińkowski et
al. 2018, arXiv:1801.01401), precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991),
density and coverage (Naeem et al. 2020, arXiv:2002.09797). Such scores are valid inside this
suite alone: they hang on the encoder and on the number of images.

Symbols: X real features (M, d), Y generated ones (N, d), γ = 1/d, k = `NEAREST`.
"""

import numpy as np

NEAREST = 5  # k of all four neighbour scores, as in Naeem et al.


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """|μx − μy|² + tr(Σx + Σy − 2 (Σx Σy)^½) of Gaussians fitted to both sets."""
    sigma_x, sigma_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # tr (Σx Σy)^½ = tr (Σx^½ Σy Σx^½)^½, whose argument is symmetric: no complex square root.
    values, vectors = np.linalg.eigh(sigma_x)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ sigma_y @ root).clip(0)).sum()
    shift = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return float(shift + np.trace(sigma_x) + np.trace(sigma_y) - 2 * cross)


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased MMD² with the kernel (γ x·y + 1)³.

    It falls below zero between sets that are more alike than independent draws, such as two of
    equal class balance.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        gram = kernel(a, a)
        return (gram.sum() - np.trace(gram)) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances (len(a), len(b))."""
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def radii(x: np.ndarray) -> np.ndarray:
    """Distance of every point to its k-th nearest neighbour other than itself."""
    return np.partition(distances(x, x), NEAREST, axis=1)[:, NEAREST]


def neighbour_scores(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Precision, recall, density and coverage of Y with respect to X."""
    if min(len(x), len(y)) <= NEAREST:
        raise ValueError(
            f"sets of {len(x)} and {len(y)} images are too small; allowed are more than {NEAREST}"
        )
    between = distances(x, y)  # (M, N)
    inside_x = between <= radii(x)[:, None]
    inside_y = between <= radii(y)[None, :]
    return {
        # share of Y that lies in some ball of X; share of X that lies in some ball of Y
        "precision": float(inside_x.any(0).mean()),
        "recall": float(inside_y.any(1).mean()),
        # 1/(kN) Σ_j Σ_i 1[Y_j ∈ B(X_i)]; share of balls of X that hold some Y
        "density": float(inside_x.sum(0).mean() / NEAREST),
        "coverage": float(inside_x.any(1).mean()),
    }


def compare(real: np.ndarray, generated: np.ndarray) -> dict[str, float]:
    """All scores of generated features against real ones."""
    return {
        "frechet": frechet(real, generated),
        "kernel": kernel_distance(real, generated),
        **neighbour_scores(real, generated),
    }
