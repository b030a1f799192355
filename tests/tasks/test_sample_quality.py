"""Distances between sets against closed forms, scikit-learn, scipy and written-out definitions."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel

from bench.tasks.sample_quality import NEAREST, compare, frechet, kernel_distance, neighbour_scores


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def whitened(x: np.ndarray) -> np.ndarray:
    """Exactly mean 0 and covariance 1."""
    x = x - x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def test_frechet_of_identical_sets_is_zero() -> None:
    x = normal(50, 6, 0)
    assert frechet(x, x) == pytest.approx(0, abs=1e-10)


def test_frechet_has_the_closed_form_of_two_gaussians() -> None:
    # Diagonal: |μ|² + Σ (σx − σy)²
    x = whitened(normal(80, 4, 0))
    mu, sigma = np.array([1.0, -2.0, 0.5, 0.0]), np.array([0.5, 1.0, 2.0, 3.0])
    y = whitened(normal(90, 4, 1)) * sigma + mu
    assert frechet(x, y) == pytest.approx((mu**2).sum() + ((1 - sigma) ** 2).sum())


def test_frechet_equals_the_general_matrix_square_root() -> None:
    rng = np.random.default_rng(2)
    x, y = normal(60, 5, 3) @ rng.normal(size=(5, 5)), normal(70, 5, 4) @ rng.normal(size=(5, 5))
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet(x, y) == pytest.approx(expected, rel=1e-8)
    assert frechet(y, x) == pytest.approx(expected, rel=1e-8)


def test_frechet_takes_sets_of_fewer_points_than_features() -> None:
    assert frechet(normal(10, 20, 0), normal(10, 20, 1)) > 0


def test_kernel_distance_equals_scikit_learns_kernel() -> None:
    x, y = normal(30, 7, 0), normal(40, 7, 1, 0.3)
    kxx, kyy, kxy = (polynomial_kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))
    expected = (
        (kxx.sum() - np.trace(kxx)) / (30 * 29)
        + (kyy.sum() - np.trace(kyy)) / (40 * 39)
        - 2 * kxy.mean()
    )
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_kernel_distance_is_unbiased() -> None:
    same = [kernel_distance(normal(30, 4, i), normal(30, 4, 1000 + i)) for i in range(300)]
    error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 4 * error
    # An estimator with the diagonal kept would be off by tens of standard errors.
    assert error < 0.05
    assert kernel_distance(normal(300, 4, 0), normal(300, 4, 1, 1.0)) > 1


def test_neighbour_scores_equal_the_written_out_definition() -> None:
    x, y = normal(25, 3, 0), normal(31, 3, 1, 1.0)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a - b))

    def ball(points: np.ndarray, i: int) -> float:
        others = [distance(points[i], p) for j, p in enumerate(points) if j != i]
        return sorted(others)[NEAREST - 1]

    rx, ry = [ball(x, i) for i in range(len(x))], [ball(y, j) for j in range(len(y))]
    in_x = [[distance(a, b) <= rx[i] for b in y] for i, a in enumerate(x)]
    in_y = [[distance(a, b) <= ry[j] for j, b in enumerate(y)] for a in x]
    scores = neighbour_scores(x, y)
    assert scores["precision"] == pytest.approx(np.mean([any(c) for c in zip(*in_x, strict=True)]))
    assert scores["recall"] == pytest.approx(np.mean([any(row) for row in in_y]))
    assert scores["density"] == pytest.approx(np.sum(in_x) / (NEAREST * len(y)))
    assert scores["coverage"] == pytest.approx(np.mean([any(row) for row in in_x]))
    assert 0 < scores["precision"] < 1
    assert 0 < scores["coverage"] < 1


def test_scores_of_a_set_with_itself_and_of_sets_far_apart() -> None:
    x = normal(40, 3, 0)
    same = compare(x, x)
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    far = compare(x, x + 100)
    assert far["precision"] == far["recall"] == far["density"] == far["coverage"] == 0


def test_sets_without_enough_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        neighbour_scores(normal(NEAREST, 2, 0), normal(20, 2, 1))
