"""Constants that any file of the bench may import; a leaf."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the checkout, or of what was installed
GIB = 1 << 30
TOLERANCE = 0.03  # relative: within it sizes and budgets count as equal
