"""The command line with the fake worker; run as `python -m tests.runner.command`."""

import sys

from bench.cli import main

if __name__ == "__main__":
    sys.exit(main(worker="tests.runner.fakes:run_cell"))
