"""Score language models on tasks of lm-evaluation-harness and file the scores in the store.

    python -m bench.eval TASK[,TASK…] [--include DIR] [--limit N] [--fewshot N] KEY=VALUE…

KEY=VALUE are those of `python -m bench`: model=rwkv model.pretrained=FOLDER results=FOLDER and so
on. --include names a folder with tasks in YAML, which alone are known then, so that nothing is
fetched; such a folder is code, which a task's `!function` runs. It is
`python -m bench scenario=harness`, and a table of the scores.
"""

import argparse
import sys
from collections.abc import Sequence

from bench.arguments import given_path
from bench.cli import main as bench


def parser() -> argparse.ArgumentParser:
    """The arguments of `python -m bench.eval`."""
    made = argparse.ArgumentParser(
        prog="python -m bench.eval", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("tasks", metavar="TASK[,TASK…]")
    made.add_argument("keys", metavar="KEY=VALUE", nargs="*", help="as of python -m bench")
    made.add_argument("--include", type=given_path, help="folder of tasks in YAML")
    made.add_argument("--limit", type=float, help="items of each task, or a share of them")
    made.add_argument("--fewshot", type=int, help="examples before each item")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code of the run."""
    options = parser().parse_intermixed_args(argv)
    keys = options.keys
    given = {
        "tasks": f"[{options.tasks}]",
        "limit": options.limit,
        "fewshot": options.fewshot,
        "include": None if options.include is None else options.include.resolve(),
        "own_tasks": None if options.include is None else "false",
    }
    words = [f"scenario.{key}={value}" for key, value in given.items() if value is not None]
    task = [] if any(key.startswith("task=") for key in keys) else ["task=text"]
    return bench(["scenario=harness", *task, *words, *keys])


if __name__ == "__main__":
    sys.exit(main())
