"""The table as files: CSV, Parquet, Markdown, LaTeX."""

from pathlib import Path

from bench.errors import BadInput
from bench.report.latex import to_latex
from bench.report.layout import Table
from bench.report.markdown import to_markdown
from bench.report.tidy import to_frame


def write_files(table: Table, folder: Path, name: str = "table") -> list[Path]:
    """Write `name`.csv, .parquet, .md and .tex into `folder`."""
    paths = [folder / f"{name}.{ending}" for ending in ("csv", "parquet", "md", "tex")]
    frame = to_frame(table)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_csv(paths[0], index=False)
        frame.to_parquet(paths[1], index=False)
        paths[2].write_text(to_markdown(table), encoding="utf-8")
        paths[3].write_text(to_latex(table), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"output folder '{folder}' cannot be written ({reason})") from error
    return paths
