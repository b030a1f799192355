"""What the table costs over many records: without the index, which is then built, and with it.

    python -m benchmarks.store [RECORDS]

Makes 10,000 records (or RECORDS) in a temporary folder out of those of `results/published`: five
machines, five states of the source and as many seeds as are needed, each figure moved by a few per
cent. Prints the seconds of the whole command `python -m bench.report table`; asked for: below 3.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "results" / "published"
MACHINES = SOURCES = 5
TARGET_S = 3.0
Noise = random.Random


def make_store(root: Path, count: int) -> None:
    """`count` records below `root`, with scores per item of those that have a quality."""
    noise = Noise(0)
    paths = sorted((TEMPLATES / "records").glob("*.json"))
    templates = [json.loads(path.read_bytes()) for path in paths]
    (root / "records").mkdir(parents=True)
    for place in range(count):
        copy, template = divmod(place, len(templates))
        whole = templates[template]
        record = varied(whole, copy, noise)
        folder = root / "artefacts" / record["id"]
        record["artefacts"] = []
        items = TEMPLATES / "artefacts" / whole["id"] / "items.npy"
        if items.is_file():
            folder.mkdir(parents=True)
            content = items.read_bytes()
            (folder / items.name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            record["artefacts"] = [{"name": items.name, "bytes": len(content), "sha256": digest}]
        text = json.dumps(record, ensure_ascii=False, indent=1)
        (root / "records" / f"{record['id']}.json").write_text(text + "\n", encoding="utf-8")


def varied(template: dict[str, Any], copy: int, noise: Noise) -> dict[str, Any]:
    """A record like `template`, of another machine, source or seed and with other figures."""
    rest, machine = divmod(copy, MACHINES)
    seed, source = divmod(rest, SOURCES)
    record = moved(template, noise)
    made = datetime.fromisoformat(template["created"]) + timedelta(days=source, minutes=copy)
    record["created"] = made.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record["cell"]["seed"] = seed
    record["environment"]["machine_key"] = _hash(f"machine {machine}")[:16]
    record["environment"]["cpu"] = f"Processor {machine}"
    record["code"]["source_sha256"] = _hash(f"source {source}")
    record["key"] = _hash(f"{template['key']} {machine} {source} {seed}")
    middle = template["id"].split("-", 1)[1].rsplit("-s", 1)[0]
    stamp = made.strftime("%Y%m%dT%H%M%S")
    record["id"] = f"{stamp}-{middle}-s{seed}-{noise.getrandbits(32):08x}"
    return record


def moved(value: Any, noise: Noise) -> Any:
    """A deep copy with fractions moved by a few per cent; whole numbers stay what they are."""
    if isinstance(value, dict):
        # Settings are no figures.
        return {k: v if k in ("config", "shape") else moved(v, noise) for k, v in value.items()}
    if isinstance(value, list):
        return [moved(item, noise) for item in value]
    if isinstance(value, float):
        return value * (1 + noise.gauss(0, 0.02))
    return value


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def seconds(root: Path) -> float:
    """Wall time of the whole command that prints and writes the table."""
    command = [sys.executable, "-m", "bench.report", "table", str(root)]
    begin = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
    return time.perf_counter() - begin


def main() -> None:
    """Make the records, then print each of three rounds; the best of each is the verdict's."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="archbench-store-") as folder:
        root = Path(folder)
        make_store(root, count)
        index = root / "index.parquet"
        cold, warm = [], []
        for _ in range(3):
            index.unlink(missing_ok=True)
            cold.append(seconds(root))
            warm.append(seconds(root))
        megabytes = index.stat().st_size / 2**20
    for name, found in (("cold, the index is built", cold), ("warm", warm)):
        each = ", ".join(f"{value:.2f}" for value in found)
        verdict = "reached" if min(found) < TARGET_S else "MISSED"
        print(f"table over {count:,} records, {name}: {each} s; target {TARGET_S:g} s {verdict}")
    print(f"index: {megabytes:.1f} MiB")


if __name__ == "__main__":
    main()
