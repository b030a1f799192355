"""The plain rivals against definitions written out, known values and scikit-learn."""

import lzma
import math
from collections import Counter

import numpy as np
import pytest

from bench.tasks.base import Baseline
from bench.tasks.baselines import PixelMarginal
from bench.tasks.digits import DigitsTask
from bench.tasks.ngram import NGram
from tests.tasks.fakes import text_task

DIGITS = {"levels": 17, "n_classes": 10, "height": 8, "width": 8}


def by_name(baselines: list[Baseline]) -> dict[str, Baseline]:
    return {b.name: b for b in baselines}


def test_text_baselines_have_the_values_known_of_such_text() -> None:
    task = text_task()
    found = by_name(task.baselines())
    assert list(found) == ["uniform", "order-0", "bigram", "5-gram", "lzma"]
    value = {name: b.quality.value for name, b in found.items()}
    assert value["uniform"] == 8.0
    assert 4.4 < value["order-0"] < 5.0
    assert 3.2 < value["bigram"] < 3.9
    assert 1.6 < value["5-gram"] < 2.3
    assert 1.3 < value["lzma"] < 2.2
    for name, baseline in found.items():
        assert baseline.quality.metric == "bits_per_byte"
        assert baseline.seconds < 3
        assert baseline.quality.n_items == (1 if name == "lzma" else len(task.windows("test")))
    # The frequencies and conditional frequencies counted plainly, the first byte left out.
    train, test = task.parts["train"].astype(int), task.windows("test").astype(int)
    single = np.bincount(train, minlength=256) + 0.1
    single /= single.sum()
    assert value["order-0"] == pytest.approx(-np.log2(single[test]).mean(), abs=0.05)
    pair = np.zeros((256, 256))
    np.add.at(pair, (train[:-1], train[1:]), 1)
    given = (pair + 10 * single) / (pair.sum(1, keepdims=True) + 10)
    plain = -np.log2(given[test[:, :-1], test[:, 1:]]).mean()
    assert value["bigram"] == pytest.approx(plain, abs=0.05)


def test_lzma_is_the_growth_of_the_packed_size() -> None:
    task = text_task()
    value = by_name(task.baselines())["lzma"].quality.value
    head, tail = task.parts["train"].tobytes(), task.windows("test").tobytes()
    sizes = [len(lzma.compress(data, preset=9)) for data in (head + tail, head)]
    assert value == pytest.approx(8 * (sizes[0] - sizes[1]) / len(tail), rel=0.02)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_ngram_probabilities_sum_to_one(order: int) -> None:
    train = text_task().parts["train"]
    model = NGram(train, order)
    for history in (b"", b"t", b"th", b"the ", b"statement", b"\x00\xff\x00\xff", b"zqzq"):
        p = model.distribution(history)
        assert p.min() > 0
        assert p.sum() == pytest.approx(1, abs=1e-12)


def kneser_ney(train: bytes, history: bytes, symbol: int, top: int) -> float:
    """Chen & Goodman's interpolated Kneser-Ney by dictionaries, one symbol at a time."""

    def counts(length: int) -> Counter[bytes]:
        if length == top:
            return Counter(train[i : i + top] for i in range(len(train) - top + 1))
        longer = {train[i : i + length + 1] for i in range(len(train) - length)}
        # The shorter histories are those of the strings of the highest order.
        if length + 1 < top:
            longer = set(counts(length + 1)) and {g[-(length + 1) :] for g in counts(top)}
        return Counter(g[1:] for g in longer)

    p = 1 / 256
    for k in range(top):
        table = counts(k + 1)
        context = history[len(history) - k :] if k else b""
        if len(context) < k:
            break
        follow = {g[-1]: c for g, c in table.items() if g[:-1] == context}
        values = list(table.values())
        once, twice = values.count(1), values.count(2)
        discount = (once + 0.5) / (once + 2 * twice + 1)
        if follow:
            total = sum(follow.values())
            p = (
                max(follow.get(symbol, 0) - discount, 0) / total
                + discount * len(follow) / total * p
            )
    return p


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ngram_equals_the_written_out_definition(order: int) -> None:
    rng = np.random.default_rng(order)
    train = rng.choice(list(b"abcd"), size=60, p=[0.5, 0.3, 0.15, 0.05]).astype(np.uint8)
    windows = rng.choice(list(b"abcde"), size=(3, 7)).astype(np.uint8)
    found = 2.0 ** -NGram(train, order).bits(windows)
    for row, line in enumerate(windows):
        for t, symbol in enumerate(line):
            history = line[max(0, t - order + 1) : t].tobytes()
            expected = kneser_ney(train.tobytes(), history, int(symbol), order)
            assert found[row, t] == pytest.approx(expected, rel=1e-12)


def test_ngram_starts_every_window_from_nothing() -> None:
    train = text_task().parts["train"]
    window = train[:64].reshape(1, 64)
    model = NGram(train, 5)
    assert np.array_equal(model.bits(np.concatenate([window, window])), model.bits(window)[[0, 0]])
    assert 2.0 ** -model.bits(window)[0, 0] == pytest.approx(model.distribution(b"")[window[0, 0]])


@pytest.mark.parametrize("order", [0, 8])
def test_ngram_orders_that_no_integer_holds_are_refused(order: int) -> None:
    with pytest.raises(ValueError, match=f"order={order}"):
        NGram(np.zeros(10, np.uint8), order)


def test_digit_baselines_have_their_known_values() -> None:
    task = DigitsTask(**DIGITS)
    found = by_name(task.baselines())
    accuracy = {name: b.quality.value for name, b in found.items()}
    nll = {name: b.quality.secondary["nll"] for name, b in found.items()}
    assert accuracy["most frequent class"] == pytest.approx(0.1, abs=0.02)
    assert nll["most frequent class"] == pytest.approx(math.log(10), abs=0.01)
    assert 0.93 < accuracy["logistic regression"] < 0.99
    assert 0.05 < nll["logistic regression"] < 0.35
    assert 0.97 < accuracy["nearest neighbours"] <= 1.0
    assert 0.1 < nll["nearest neighbours"] < 0.5
    assert all(b.quality.n_items == 180 for b in found.values())


def test_pixel_marginal_is_a_distribution_and_draws_from_itself() -> None:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(3, size=(50, 2, 2)), rng.integers(2, size=50)
    model = PixelMarginal(pixels, labels, levels=4, n_classes=2, smoothing=0.5)
    assert np.allclose(model.p.sum(1), 1)
    image = pixels[:1]
    of_class = pixels[labels == 1]
    by_hand = np.log2(((of_class == image).sum(0) + 0.5) / (len(of_class) + 2))
    assert model.bits(image, np.array([1]))[0] == pytest.approx(-by_hand.mean())
    drawn = model.sample(np.ones(20_000, dtype=np.int64), rng)
    for level in range(4):
        assert np.allclose((drawn == level).mean(0), model.p[1, level], atol=0.02)
