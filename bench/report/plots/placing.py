"""Where the words of a figure stand: at the ends of lines or beside points, clear of each other."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SIZE = 20  # points of direct labels; their superscripts are 0.7 as large
RINGS = (1.0, 2.5, 4.5)  # distances from a point at which its label is tried
COVER_COST = 5.0  # of each share of a label's area that covers another label, a point or the edge
LINE_COST = 0.05  # share of a label's area that covering one sample of a line counts as
RING_COST = 0.06  # the same for one ring further out
STEP = 6  # pixels between samples of a line that labels should not cover


class Label(NamedTuple):
    """Words at a place in units of the data."""

    x: float
    y: float
    text: str
    color: str


def label_ends(axes: Any, labels: Sequence[Label], size: float = SIZE) -> None:
    """Write each label right of the axes, moved apart where they would collide."""
    if not labels:
        return
    axes.figure.draw_without_rendering()  # heights are known once everything has its place
    to_axes = axes.transData + axes.transAxes.inverted()
    order = sorted(labels, key=lambda label: to_axes.transform((label.x, label.y))[1])
    wanted = np.array([to_axes.transform((label.x, label.y))[1] for label in order])
    height = size / 72 * axes.figure.dpi * 1.25 / axes.bbox.height
    for label, at in zip(order, spread(wanted, height, 0, 1), strict=True):
        axes.annotate(
            label.text, (label.x, label.y), xytext=(1.03, at), textcoords="axes fraction",
            color=label.color, va="center", annotation_clip=False, fontsize=size,
            arrowprops={"arrowstyle": "-", "color": label.color, "lw": 1.2, "alpha": 0.6,
                        "shrinkB": 7, "relpos": (0, 0.5)},
        )  # fmt: skip


def place_labels(
    axes: Any, labels: Sequence[Label], lines: Sequence[tuple[np.ndarray, np.ndarray]] = ()
) -> None:
    """Write each label beside its point, where it covers no other one and no point.

    Of eight directions and three distances, the place that costs least: covering points, labels
    that stand already and the edge costs most, covering `lines` less, distance least. Points with
    the nearest neighbours come first. A label that is not next to its point has a line to it.
    """
    axes.figure.draw_without_rendering()
    renderer = axes.figure._get_renderer()
    at = axes.transData.transform([(label.x, label.y) for label in labels])
    radius = 10 / 72 * axes.figure.dpi
    boxes = [np.array([x - radius, y - radius, x + radius, y + radius]) for x, y in at]
    samples = _samples(axes, lines)
    frame = np.array(axes.bbox.extents)
    distance = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + np.eye(len(at)) * 1e9
    for index in np.argsort(distance.min(1)):
        label = labels[index]
        style: dict[str, Any] = {
            "color": label.color, "fontsize": SIZE, "fontweight": "bold", "ha": "center",
            "va": "center",
        }  # fmt: skip
        measured = axes.text(0, 0, label.text, **style)
        extent = measured.get_window_extent(renderer)
        measured.remove()
        half = np.array([extent.width, extent.height]) / 2
        offsets = _offsets(half, radius)
        costs, candidates = [], []
        for ring, offset in offsets:
            box = np.concatenate([at[index] + offset - half, at[index] + offset + half])
            covered = sum(_overlap(box, other) for other in boxes) + _outside(box, frame)
            inside = (samples >= box[:2]) & (samples <= box[2:])
            costs.append(
                COVER_COST * covered / np.prod(2 * half)
                + LINE_COST * inside.all(1).sum()
                + RING_COST * ring
            )
            candidates.append(box)
        best = int(np.argmin(costs))
        ring, offset = offsets[best]
        lead = {"arrowstyle": "-", "color": label.color, "lw": 1.2, "shrinkB": 9}
        axes.annotate(
            label.text, (label.x, label.y), xytext=offset * 72 / axes.figure.dpi,
            textcoords="offset points", arrowprops=lead if ring else None, **style,
        )  # fmt: skip
        boxes.append(candidates[best])


def _offsets(half: np.ndarray, radius: float) -> list[tuple[int, np.ndarray]]:
    """Places of a label's middle around its point, with the number of their ring."""
    found = []
    for ring, factor in enumerate(RINGS):
        wide, high = half[0] + radius + 4, half[1] + radius + 2
        if ring:
            wide, high = half[0] + factor * radius, half[1] + factor * radius
        found += [
            (ring, np.array(pair))
            for pair in [(0, high), (0, -high), (wide, 0), (-wide, 0), (wide, high), (-wide, high),
                         (wide, -high), (-wide, -high)]
        ]  # fmt: skip
    return found


def _samples(axes: Any, lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Points along lines through the data, in pixels."""
    found = [np.empty((0, 2))]
    for x, y in lines:
        for one, other in itertools.pairwise(axes.transData.transform(np.stack([x, y], 1))):
            count = 2 + int(np.hypot(*(other - one)) / STEP)
            found.append(np.linspace(one, other, count))
    return np.concatenate(found)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Area that two boxes (left, bottom, right, top) share."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(np.maximum(sides, 0)))


def _outside(box: np.ndarray, frame: np.ndarray) -> float:
    """Area of a box that lies outside of the frame."""
    return float(np.prod(box[2:] - box[:2])) - _overlap(box, frame)


def spread(
    wanted: np.ndarray, gap: float, low: float = -np.inf, high: float = np.inf
) -> np.ndarray:
    """Rising positions at least `gap` apart, as near to the wanted ones as least squares can.

    Pool adjacent violators: neighbours that collide share their mean. All lie between `low` and
    `high` where there is room for that.
    """
    offsets = gap * np.arange(len(wanted))
    pools: list[list[float]] = []
    for value in wanted - offsets:
        pools.append([value])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    found = np.concatenate([np.full(len(pool), np.mean(pool)) for pool in pools])
    if high - offsets[-1] > low:
        found = np.clip(found, low, high - offsets[-1])
    return found + offsets
