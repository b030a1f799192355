"""The built-in corpora: what stands in which part, and that nothing stands in two."""

import platform
import random
import tracemalloc

import numpy as np
import pytest

from bench.tasks.corpus import (
    CORPORA,
    SPAN,
    Corpus,
    overlap,
    paragraphs,
    shared_spans,
    span_hashes,
    split_documents,
    stdlib_files,
    without_shared,
)
from bench.tasks.splits import assign

SHARES = {"manual": (0.8, 0.1, 0.1), "code": (0.9, 0.05, 0.05)}


@pytest.fixture(scope="module", params=sorted(CORPORA))
def corpus(request: pytest.FixtureRequest) -> tuple[str, Corpus]:
    name = str(request.param)
    return name, CORPORA[name](SHARES[name])


def strings(data: bytes) -> set[bytes]:
    return {data[i : i + SPAN] for i in range(len(data) - SPAN + 1)}


def longest_shared(a: bytes, b: bytes) -> int:
    """Length of the longest string that stands in both, where it is SPAN or more.

    By comparing bytes, without the hashes that a corpus is purged by: a string of SPAN bytes holds
    a whole block of half as many, wherever it begins: blocks of `a` are looked for in all of `b`.
    """
    half = SPAN // 2
    places: dict[bytes, list[int]] = {}
    for i in range(0, len(a) - half + 1, half):
        places.setdefault(a[i : i + half], []).append(i)
    longest = 0
    for j in range(len(b) - half + 1):
        for i in places.get(b[j : j + half], ()):
            before, end = 0, half
            while before < min(i, j) and a[i - before - 1] == b[j - before - 1]:
                before += 1
            while i + end < len(a) and j + end < len(b) and a[i + end] == b[j + end]:
                end += 1
            longest = max(longest, before + end)
    return longest


def test_no_long_string_of_a_held_out_part_stands_in_train(corpus: tuple[str, Corpus]) -> None:
    _, found = corpus
    train, validation, test = (found.parts[s] for s in ("train", "validation", "test"))
    assert len(strings(test)) > 30_000
    assert longest_shared(train, test) < SPAN
    assert longest_shared(validation, test) < SPAN
    assert overlap(train, validation) == 0.0
    planted = train[5_001 : 5_001 + SPAN]  # where no block begins
    assert longest_shared(train, test[:3_000] + planted + test[3_000:]) >= SPAN


def test_shares_lie_within_two_points(corpus: tuple[str, Corpus]) -> None:
    name, found = corpus
    total = sum(map(len, found.parts.values()))
    for part, share in zip(("train", "validation", "test"), SHARES[name], strict=True):
        assert len(found.parts[part]) / total == pytest.approx(share, abs=0.02)


def test_id_names_the_interpreter_and_the_bytes(corpus: tuple[str, Corpus]) -> None:
    name, found = corpus
    assert found.id == f"{name}-cpython{platform.python_version()}-{found.sha256[:8]}"


def test_manual_is_the_same_each_time_and_its_hash_follows_the_bytes() -> None:
    first, again = (CORPORA["manual"](SHARES["manual"]) for _ in range(2))
    assert first == again
    other = CORPORA["manual"]((0.7, 0.2, 0.1))
    assert other.sha256 != first.sha256
    assert other.id != first.id


def test_manual_holds_every_paragraph_once() -> None:
    found = CORPORA["manual"](SHARES["manual"])
    blocks = [b.strip("\n") for part in found.parts.values() for b in paragraphs(part.decode())]
    assert len(blocks) == len(set(blocks)) > 2_000
    from pydoc_data.topics import topics

    known = {b.strip("\n") for text in topics.values() for b in paragraphs(text)}
    assert set(blocks) <= known
    assert len(blocks) > 0.99 * len(known)


def test_stdlib_leaves_tests_and_vendored_trees_out() -> None:
    modules = stdlib_files()
    assert {"asyncio", "json", "argparse"} <= modules.keys()
    assert not {"idlelib", "tkinter", "lib2to3", "encodings", "site-packages"} & modules.keys()
    assert not any("test" in p.parent.parts[-1:] for files in modules.values() for p in files)
    # 390 files of 7.86 MB on a source build of 3.11; other versions differ a little.
    assert 300 < sum(map(len, modules.values())) < 700


def test_assignment_keeps_shares_for_documents_of_very_unequal_size() -> None:
    draw = random.Random(0)
    sizes = {f"topic {i}": int(10 ** draw.uniform(2, 4.3)) for i in range(200)}
    where = assign(sizes, (0.8, 0.1, 0.1))
    total = sum(sizes.values())
    for split, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        part = sum(size for name, size in sizes.items() if where[name] == split)
        assert part / total == pytest.approx(share, abs=0.02)
    assert where == assign(dict(reversed(sizes.items())), (0.8, 0.1, 0.1))


@pytest.mark.parametrize("length", [0, SPAN - 1, SPAN, SPAN + 1, 1000])
def test_there_is_one_hash_a_string(length: int) -> None:
    assert len(span_hashes(bytes(length))) == max(0, length - SPAN + 1)


def test_shared_strings_are_found_where_a_plain_search_finds_them() -> None:
    rng = np.random.default_rng(0)
    test = rng.integers(256, size=3_000, dtype=np.uint8).tobytes()
    train = bytearray(rng.integers(256, size=200_000, dtype=np.uint8).tobytes())
    # One copy lies across the border between two chunks of hashes.
    for place, length in ((100, 300), (65_536 - 150, 400), (150_000, 255), (199_700, 300)):
        train[place : place + length] = test[500 : 500 + length]
    held = strings(test)
    plain = [i for i in range(len(train) - SPAN + 1) if bytes(train[i : i + SPAN]) in held]
    assert shared_spans(bytes(train), test).tolist() == plain
    assert len(plain) == 45 + 145 + 45
    assert overlap(bytes(train), test) == pytest.approx(145 / (3_000 - SPAN + 1))


def test_periodic_text_does_not_collide() -> None:
    assert len(np.unique(span_hashes(b"ab" * 500))) == 2
    assert len(shared_spans(b"ab" * 500, b"ba c" * 200)) == 0


def test_purge_drops_what_is_shared_across_paragraphs() -> None:
    a, b, c = "a" * 10 + "x" * 150, "y" * 150 + "b", "something else\nof its own"
    held = ("q" + "x" * 150 + "\n\n" + "y" * 150 + "r").encode()
    assert without_shared([a, b, c], held) == [c]
    assert without_shared([a, c, b], held) == [a, c, b]


def test_documents_go_to_one_part_as_a_whole() -> None:
    documents = {f"d{i}": f"words of document {i}\n\nthe same in all" for i in range(30)}
    parts, notes = split_documents(documents, (0.8, 0.1, 0.1), unique=True)
    everything = b"".join(parts.values())
    assert everything.count(b"the same in all") == 1
    assert all(everything.count(f"words of document {i}\n".encode()) == 1 for i in range(30))
    assert "30 whole documents" in notes["split"]


def test_overlap_of_a_text_that_repeats_itself_needs_no_memory_for_each_hit() -> None:
    """Every string of train is found: 16 MB of them, of which one is kept."""
    train, test = bytes(1 << 24), bytes(1 << 16)
    tracemalloc.start()
    try:
        assert overlap(train, test) == 1.0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20  # the bitmap is 16 MiB; the offsets alone would be 128
