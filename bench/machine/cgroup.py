"""What the control groups of this process allow it, and how often they made it wait.

Version 2 has one tree, version 1 one a controller; a limit of any group above ours binds as well.
Inside a container the path in /proc/self/cgroup may be the host's: the root is looked at as well.
"""

from collections.abc import Iterator
from pathlib import Path

from bench.constants import GIB

NO_LIMIT = 1 << 60  # version 1 writes the largest multiple of a page for "none"


def read(path: Path) -> str | None:
    """The text of a small file of the kernel, or None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the groups allow; None: no limit, or none is readable."""
    found = []
    for folder in _folders(root, "cpu"):
        names = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = " ".join(read(folder / name) or "" for name in names).split()
        if len(words) == 2 and words[0] not in ("max", "-1"):
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def memory_limit_gib(root: Path = Path("/")) -> float | None:
    """The least that a group allows, in GiB; None: no limit, or none is readable."""
    found = [limit for f in _folders(root, "memory") if (limit := _limit(f)) is not None]
    return round(min(found) / GIB, 2) if found else None


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes that every group still allows; None: no limit, or none is readable.

    File pages that were not used lately count as free: they go before an allocation fails.
    """
    found = [left for f in _folders(root, "memory") if (left := _left(f)) is not None]
    return min(found, default=None)


def _limit(folder: Path) -> int | None:
    text = read(folder / "memory.max") or read(folder / "memory.limit_in_bytes")
    return int(text) if text and text != "max" and int(text) < NO_LIMIT else None


def _left(folder: Path) -> int | None:
    limit = _limit(folder)
    used = read(folder / "memory.current") or read(folder / "memory.usage_in_bytes")
    stat = read(folder / "memory.stat")
    if limit is None or used is None or stat is None:
        return None
    words = dict(line.split() for line in stat.splitlines())
    # Version 1 gives the group's own pages under the name that version 2 has for the whole tree's.
    cached = words.get("total_inactive_file", words.get("inactive_file", 0))
    return max(limit - int(used) + int(cached), 0)


def throttled(root: Path = Path("/")) -> tuple[int, float] | None:
    """How often, and for how many seconds in all, a quota made the group wait since it began.

    Of several groups the one that waited longest; None where none has the count.
    """
    found = []
    for folder in _folders(root, "cpu"):
        words = dict(line.split() for line in (read(folder / "cpu.stat") or "").splitlines())
        if "nr_throttled" not in words:
            continue
        micros, nanos = int(words.get("throttled_usec", 0)), int(words.get("throttled_time", 0))
        found.append((int(words["nr_throttled"]), micros / 1e6 + nanos / 1e9))
    return max(found, key=lambda pair: pair[1], default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Our group of a controller and those above it, innermost first."""
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / controllers  # version 2 names no controllers
        group = base / path.lstrip("/")
        yield from dict.fromkeys([*_up(group, base), base])


def _up(group: Path, base: Path) -> Iterator[Path]:
    while group != base and base in group.parents:
        yield group
        group = group.parent
