"""The LaTeX is parsed by a LaTeX parser: nobody here has to have TeX."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexMacroNode, LatexWalker

from bench.report.latex import to_latex
from bench.report.layout import Table
from bench.report.table import build
from tests.factories import make_record, quality
from tests.report.sample import sample_store

AWKWARD = r"100% of A_B & C#1 {x} ~ ^ \ $5 <tag> | é ↑ λ 中 \\ \end{tabular} $$ }"
MACROS = {
    *("centering", "scriptsize", "setlength", "tabcolsep", "caption", "toprule", "midrule"),
    *("bottomrule", "smallskip", "parbox", "linewidth", "raggedright", "shortstack", "textbf"),
    *("textit", "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater"),
    *("textbar", "ldots", "usepackage", "uparrow", "downarrow", "leq", "geq", "pm", "times"),
    *("cdot", "dagger", "ddagger", "rightarrow", "approx"),
    *("\\", "&", "%", "$", "#", "_", "{", "}", "'"),
}


def tables(tmp_path: Path) -> dict[str, Table]:
    store = sample_store(tmp_path)
    awkward = [
        make_record(model="a_b&c%", scenario="quality", quality=quality(bound=True)),
        make_record(model=AWKWARD, scenario="quality", status="failed", reason=AWKWARD),
    ]
    for record in awkward:
        record["cell"]["overrides"] = ["model.backbone.d_state=8", "model.text={a_b: '50%'}"]
    return {
        "sample": build(store.read_all()[0], store.artefacts),
        "awkward": build(awkward),
        "empty": build([]),
    }


def nodes(text: str) -> list[Any]:
    """The parsed document; a brace, an environment or a formula left open is an error."""
    found, _, length = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    assert length == len(text)
    return list(found)


def every(found: list[Any]) -> list[Any]:
    result = []
    for node in found:
        if node is None:
            continue
        result.append(node)
        result += every(getattr(node, "nodelist", None) or [])
        arguments = getattr(node, "nodeargd", None)
        result += every(list(arguments.argnlist or []) if arguments is not None else [])
    return result


@pytest.mark.parametrize("name", ["sample", "awkward", "empty"])
def test_it_parses_and_each_row_has_each_column(name: str, tmp_path: Path) -> None:
    table = tables(tmp_path)[name]
    text = to_latex(table)
    whole = every(nodes(text))
    environments = [node for node in whole if isinstance(node, LatexEnvironmentNode)]
    names = [node.environmentname for node in environments]
    assert names == ["table", "tabular"] * len(table.blocks)
    unknown = {n.macroname for n in whole if isinstance(n, LatexMacroNode)} - MACROS
    assert not unknown, "a macro that booktabs and LaTeX alone may not know"
    bodies = [node for node in environments if node.environmentname == "tabular"]
    for block, tabular in zip(table.blocks, bodies, strict=True):
        columns = re.search(r"\\begin{tabular}{@{}([lr]+)@{}}", tabular.latex_verbatim())
        assert columns is not None
        assert len(columns[1]) == len(block.columns)
        rows, counts = 0, [0]
        for node in tabular.nodelist:  # the top level: a \\ inside \shortstack breaks no row
            verbatim = node.latex_verbatim()
            if isinstance(node, LatexMacroNode) and node.macroname == "\\":
                rows += 1
                counts.append(0)
            elif not isinstance(node, LatexMacroNode):
                counts[-1] += verbatim == "&" or len(re.findall(r"(?<!\\)&", verbatim))
        assert rows == len(block.rows) + 1
        assert set(counts[:-1]) == {len(block.columns) - 1}
        assert counts[-1] == 0


@pytest.mark.parametrize("broken", ["{", "}", "$", r"\end{tabular}", r"\begin{table}"])
def test_the_parser_sees_what_is_broken(broken: str, tmp_path: Path) -> None:
    text = to_latex(tables(tmp_path)["sample"])
    with pytest.raises(Exception, match=r"[Uu]nexpected|[Uu]nknown|[Ee]xpected|closing|matched"):
        nodes(text.replace(r"\toprule", rf"\toprule {broken}", 1))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
def test_it_compiles(tmp_path: Path) -> None:
    body = "".join(to_latex(table) for table in tables(tmp_path).values())
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "all.tex").write_text(document + body + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
