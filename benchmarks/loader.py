"""Whether text of any size takes constant memory, and whether its loader ever holds a model back.

    python -m benchmarks.loader [--gb 0.25] [--seconds 20] [--folder FOLDER] [--workers N]
                                [--models NAME,…]

Writes GB of seeded text to FOLDER (a temporary one by default; twice GB of disk are needed) and
runs `python -m bench.prepare` on it: printed are its seconds and the largest resident memory of all
its processes together. Then task stream reads windows from the whole of it, first with none of it
in the system's cache: printed are tokens a second and what the process grew by. Last, the loader
and the training step of the fastest family at size nano take turns, in batches of the same size and
in a process with the variables of the suite's own: printed are tokens a second of both and their
ratio; asked for is at least 20.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from bench.ab.sample import Side, plan
from bench.building import Models, make_task
from bench.machine.variables import environment_set, worker_environment
from bench.tasks.stream import Batches, StreamTask
from bench.training import Recipe, Trainer
from benchmarks.ab import THREADS, seconds_of, take_turns
from benchmarks.runner import resident

ROOT = Path(__file__).resolve().parents[1]
TARGET = 20
BATCHES = 512  # of the loader in a turn: some hundred windows are read at once
FAMILIES = "transformer,moe,mamba,mamba2,mamba3,rwkv,resnet,diffusion"
MIB = 1 << 20


def blocks(count: int) -> Iterator[bytes]:
    """`count` MiB of lines of words of eight bytes, frequent and rare ones."""
    rng = np.random.default_rng(0)
    words = rng.integers(97, 123, size=(4096, 8), dtype=np.uint8)
    words[np.arange(4096), rng.integers(2, 8, size=4096)] = ord(" ")
    words[:, 7] = ord(" ")
    # A word stands here as often as it is drawn: cubes of even numbers fall on the first ones.
    table = words[(4096 * (np.arange(1 << 16) / (1 << 16)) ** 3).astype(np.int64)].view(np.uint64)
    for _ in range(count):
        chosen = table[rng.integers(1 << 16, size=MIB // 8, dtype=np.uint16), 0].view(np.uint8)
        chosen[8 * 12 - 1 :: 8 * 12] = ord("\n")
        yield chosen.tobytes()


def write_text(path: Path, gb: float) -> None:
    """A text of `gb` GB, unless it is there from before."""
    count = max(round(gb * 1e9 / MIB), 1)
    if path.exists() and path.stat().st_size == count * MIB:
        return
    with open(path, "wb") as stream:
        stream.writelines(blocks(count))


def prepare(text: Path, folder: Path, workers: int) -> None:
    """The command, its seconds and the peak of its processes."""
    words = [str(folder), "--path", str(text), "--workers", str(workers)]
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "bench.prepare", *words], cwd=ROOT)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(psutil.Process(process.pid)))
        time.sleep(0.02)
    seconds = time.perf_counter() - begin
    size = text.stat().st_size
    print(
        f"prepare: {size / 1e9:.2f} GB in {seconds:.1f} s ({size / seconds / 1e6:.0f} MB/s) by "
        f"{workers} processes, at most {peak / MIB:.0f} MiB resident in all of them together "
        f"(looked at 50 times a second), exit code {process.returncode}",
        flush=True,
    )
    if process.returncode:
        raise SystemExit(process.returncode)


def forget(folder: Path) -> None:
    """Take the shards out of the system's cache, where it can be asked to."""
    if hasattr(os, "posix_fadvise"):
        for shard in folder.glob("*.bin"):
            descriptor = os.open(shard, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def rate(batches: Batches, seconds: float) -> float:
    """Tokens a second over about `seconds`."""
    count, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        count += next(batches)["tokens"].numel()
    return count / spent


def read_through(folder: Path, seconds: float) -> None:
    """Windows from all over the text, cold and then warm, and what the process grew by."""
    process = psutil.Process()
    for workers in (0, 1, 4):
        task = stream(folder, workers)
        batches = task.batches("train", 64, 0)
        forget(folder)
        before = process.memory_info().rss
        cold = rate(batches, seconds / 4)
        for shard in folder.glob("*.bin"):
            with open(shard, "rb") as stream_:
                while stream_.read(16 * MIB):
                    pass
        warm = rate(batches, seconds / 4)
        grown = process.memory_info().rss - before
        print(
            f"loader, {workers} threads that read ahead, batches of 64 windows of 256: "
            f"{cold / 1e6:.1f} M tokens/s with nothing cached, {warm / 1e6:.1f} M cached; "
            f"{batches.shown * 256 / 1e9:.2f} G tokens shown, the process grew by "
            f"{grown / MIB:.0f} MiB",
            flush=True,
        )


def stream(folder: Path, workers: int) -> StreamTask:
    return StreamTask(
        path=str(folder), context=256, vocab_size=256, tokenizer=None, workers=workers, scored=64
    )


def steps(folder: Path, models: str) -> Iterator[tuple[str, Any, StreamTask]]:
    """A training step of each family on this text, as scenario train times it."""
    words = [f"model={models}", "task=stream", f"task.path={folder}", "size=nano"]
    words += ["scenario=train", "suite=quick", "suite.baselines=false", "suite.ceilings=false"]
    for cell in plan(Side("this checkout", ROOT), words):
        config = cell["config"]
        task = make_task(config["task"])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = Models(config, task, device, checkpoint=None, overrides=()).build().train()
        recipe = Recipe(lr=0.01, **{k: v for k, v in config["optimizer"].items() if k != "lr"})
        trainer = Trainer(model, recipe, steps=1_000_000)
        batch = task.example(int(config["task"]["batch_size"]))
        batch = {name: value.to(device) for name, value in batch.items()}

        def step(trainer: Trainer = trainer, batch: Any = batch) -> None:
            trainer.step(batch).item()

        yield config["model"]["name"], step, task


def against_the_fastest(folder: Path, models: str, seconds: float) -> bool:
    """Turns of the loader and the fastest training step; whether the ratio is reached."""
    torch.set_num_threads(THREADS)
    timed = []
    for name, step, task in steps(folder, models):
        step()
        best = min(seconds_of(step) for _ in range(20))
        tokens = 2 * task.symbols_per_item
        print(f"training step of {name}: at best {tokens / best / 1e3:.1f} k tokens/s", flush=True)
        timed.append((best, name, step))
    _, name, step = min(timed, key=lambda entry: entry[0])
    reached = True
    for workers in (0, 1):
        batches = stream(folder, workers).batches("train", 2, 0)

        def load(batches: Batches = batches) -> None:
            for _ in range(BATCHES):
                next(batches)

        turns = take_turns(load, step, seconds=seconds / 2)
        # A turn of the loader has the tokens of many steps.
        ratio, low, high = (BATCHES * r for r in (turns.ratio, *turns.quartiles))
        ours = BATCHES * 512 / np.median(turns.ours_s)
        theirs = 512 / np.median(turns.theirs_s)
        reached &= ratio >= TARGET
        verdict = "reached" if ratio >= TARGET else "MISSED"
        print(
            f"loader ({workers} threads that read ahead) {ours / 1e6:.1f} M tokens/s, training "
            f"step of {name} {theirs / 1e3:.1f} k tokens/s, ratio {ratio:.0f} (quartiles "
            f"{low:.0f} to {high:.0f}), asked for {TARGET} {verdict} [batches of 2 windows of 256, "
            f"torch {torch.__version__}, {THREADS} threads]",
            flush=True,
        )
    return reached


def main(arguments: Sequence[str] | None = None) -> int:
    """All parts; exit code 1 where the ratio is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--gb", type=float, default=0.25)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--workers", type=int, default=THREADS)
    parser.add_argument("--models", default=FAMILIES, help=f"default: {FAMILIES}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        place = options.folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        write_text(place / "text", options.gb)
        shards = place / "shards"
        prepare(place / "text", shards, options.workers)
        read_through(shards, options.seconds)
        variables, spawn = worker_environment(THREADS), multiprocessing.get_context("spawn")
        with environment_set(variables), ProcessPoolExecutor(1, mp_context=spawn) as pool:
            task = pool.submit(against_the_fastest, shards, options.models, options.seconds)
            return 0 if task.result() else 1


if __name__ == "__main__":
    sys.exit(main())
