"""What makes a result the same one: configuration, data, source, packages and machine.

The source is hashed by content, so uncommitted changes count and a wheel needs no git. What only
reads records, speaks to the user or runs other checkouts is left out: it cannot change a figure.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.constants import ROOT
from bench.machine.environment import packages
from bench.machine.key import machine_key
from bench.paths import files_of, matches

SUFFIXES = (".py", ".yaml", ".safetensors", ".json", ".npz")
READS_ONLY = (
    "bench/report/", "bench/records/", "bench/ab/", "bench/selftest/", "bench/arguments.py",
    "bench/listing.py", "bench/doctor.py", "bench/progress.py", "bench/conclude.py",
    "bench/store/sql.py", "bench/store/merge.py", "bench/store/prune.py",
)  # fmt: skip


def digest(value: Any) -> str:
    """SHA-256 of a plain value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over names and contents."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.relative_to(root).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def project_hash(root: Path) -> str:
    """Hash of what decides a figure in the checkout at `root`, committed or not."""
    files = [
        path
        for part in ("bench", "models", "configs")
        for path in (root / part).rglob("*")
        if path.suffix in SUFFIXES and path.is_file() and not _reads_only(root, path)
    ]
    return hash_files(root, files)


@functools.cache
def source_hash(allow_targets: tuple[str, ...] = ()) -> str:
    """Hash of this project's source and of the user's modules that targets may name."""
    parts = [project_hash(ROOT)]
    for name in sorted({entry.partition(".")[0] for entry in allow_targets}):
        parts += _hashes_of(name)
    return digest(parts) if len(parts) > 1 else parts[0]


def _reads_only(root: Path, path: Path) -> bool:
    return path.relative_to(root).as_posix().startswith(READS_ONLY)


def _hashes_of(name: str) -> list[str]:
    """Hashes of a top-level package's folders or of a module's file, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        folders = [Path(folder) for folder in spec.submodule_search_locations]
        return [hash_files(folder, folder.rglob("*.py")) for folder in folders]
    file = Path(spec.origin or "")
    return [hash_files(file.parent, [file])] if file.is_file() else []


@functools.cache
def code(allow_targets: tuple[str, ...] = ()) -> dict[str, Any]:
    """The code part of a record."""
    try:
        version = importlib.metadata.version("archbench")
    except importlib.metadata.PackageNotFoundError:
        version = "0"  # a checkout that was never installed
    commit = _git("rev-parse", "HEAD") if (ROOT / ".git").exists() else None
    changes = _git("status", "--porcelain", "--", "bench", "models", "configs") if commit else None
    return {
        "version": version,
        "commit": commit,
        "dirty": None if changes is None else bool(changes),  # None: git could not say
        "source_sha256": source_hash(allow_targets),
    }


def made_here(record: Mapping[str, Any], allow_targets: Sequence[str]) -> bool:
    """Whether a record was made by this source and these packages on this machine."""
    environment = record.get("environment") or {}
    source = (record.get("code") or {}).get("source_sha256")
    return (source, environment.get("packages"), environment.get("machine_key")) == (
        source_hash(tuple(allow_targets)), packages(), machine_key()
    )  # fmt: skip


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git here: the content hash names the source
    return done.stdout.strip() if done.returncode == 0 else None


def data_hint(task: dict[str, Any]) -> list[Any]:
    """What is known of a task's data before it is read: its files, or the running Python."""
    path = task.get("path")
    return [*(files_hint(path) if path else [platform.python_version()]),
            *files_hint(task.get("tokenizer"))]  # fmt: skip


def model_hint(model: dict[str, Any]) -> list[Any]:
    """The files that a model is read from, before they are read."""
    return [
        *files_hint(model.get("pretrained")),
        *files_hint((model.get("backbone") or {}).get("name")),
    ]


def files_hint(path: object) -> list[Any]:
    """Names, sizes and times of the files that `path` means; none where it means no file."""
    if not isinstance(path, str) or not path:
        return []
    stats = [(p, p.stat()) for p in files_of(matches(path))]
    return [(str(p), s.st_size, s.st_mtime_ns) for p, s in stats]


def cell_key(config: dict[str, Any], allow_targets: Sequence[str]) -> tuple[str, str]:
    """The key under which a cell's result is found again, and the hash of its configuration."""
    config_hash = digest(config)
    parts = [
        config_hash,
        data_hint(config.get("task") or {}),
        model_hint(config.get("model") or {}),
        source_hash(tuple(allow_targets)),
        packages(),
        machine_key(),
    ]
    return digest(parts), config_hash
