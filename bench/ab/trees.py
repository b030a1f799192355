"""Work trees of two revisions, side by side in a temporary folder."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.ab.sample import Side
from bench.constants import ROOT
from bench.errors import BadInput, one_line
from bench.identity import project_hash


class NoGit(BadInput):
    """There is no git to ask."""


HERE = "."  # this checkout as it stands, with what is not committed


@contextlib.contextmanager
def sides(base: str, head: str) -> Iterator[tuple[Side, Side]]:
    """Both revisions checked out; the folders' names are of one length, as paths shift addresses.

    "." is a copy of this checkout as it stands. Raises BadInput for an unknown revision.
    """
    with tempfile.TemporaryDirectory(prefix="archbench-ab-") as folder:
        try:
            yield (
                _check_out("base", base, Path(folder, "base")),
                _check_out("head", head, Path(folder, "head")),
            )
        finally:
            for root in Path(folder).iterdir():
                _remove(root)


def _check_out(name: str, revision: str, root: Path) -> Side:
    commit = _commit("HEAD" if revision == HERE else revision, f"--{name}={revision}")
    _git("worktree", "add", "--detach", "--quiet", str(root), commit)
    dirty = revision == HERE and _carry_changes(root)
    return Side(name, root, commit, dirty, project_hash(root))


def _remove(root: Path) -> None:
    """Also a tree that git was still making, which it has locked: hence the second --force."""
    command = ["git", "-C", str(ROOT), "worktree", "remove", "--force", "--force", str(root)]
    subprocess.run(command, capture_output=True)
    shutil.rmtree(root, ignore_errors=True)


def _commit(revision: str, given: str) -> str:
    try:
        return _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except NoGit:
        raise
    except BadInput as error:
        raise BadInput(
            f"{given} names no commit of this repository; allowed: a commit, branch or tag, or . "
            "for this checkout as it stands."
        ) from error


def _carry_changes(root: Path) -> bool:
    """Copy what differs from HEAD into `root`, new files that git does not ignore included."""
    names = _git("ls-files", "--modified", "--others", "--exclude-standard", "-z").split("\0")
    staged = _git("diff", "--name-only", "--cached", "-z").split("\0")
    changed = [name for name in dict.fromkeys([*names, *staged]) if name]
    for name in changed:
        target = root / name
        target.unlink(missing_ok=True)
        if (source := ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return bool(changed)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except OSError as error:
        raise NoGit(f"git cannot be run ({error.strerror}); bench.ab needs it.") from error
    if done.returncode != 0:
        raise BadInput(f"git {arguments[0]}: {one_line(done.stderr) or 'failed'}.")
    return done.stdout.strip()
