"""Score language models on tasks of lm-evaluation-harness and file the scores in the store.

    python -m bench.eval TASK[,TASK…] [--include DIR] [--limit N] [--fewshot N] KEY=VALUE…

KEY=VALUE are those of `python -m bench`: model=rwkv model.pretrained=FOLDER results=FOLDER and so
on. --include names a folder with tasks in YAML, which alone are known then, so that nothing is
fetched. It is `python -m bench scenario=harness`, and a table of the scores.
"""

import argparse
import sys
from collections.abc import Sequence

from bench.arguments import given_path
from bench.cli import main as bench


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code of the run."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.eval", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("tasks", metavar="TASK")
    parser.add_argument("--include", type=given_path, help="folder of tasks in YAML")
    parser.add_argument("--limit", type=float, help="items of each task, or a share of them")
    parser.add_argument("--fewshot", type=int, help="examples before each item")
    options, keys = parser.parse_known_args(argv)
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
