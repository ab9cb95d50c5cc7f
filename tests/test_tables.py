"""How a table is written: Markdown, LaTeX, CSV, and text for a terminal."""

from __future__ import annotations

from recbole_missing import tables
from recbole_missing.tables import Column, Table


def shown(*values: float | None) -> Table:
    """A table whose rows with 0.3 are marked."""
    labels = {"model": [f"m_{i}" for i in range(len(values))]}
    columns = [Column("r@20", values, marked=[value == 0.3 for value in values])]
    return Table(labels, columns, "name", "T & t", "50 %")


def test_marks():
    rows = shown(0.1, 0.3, None, 0.3).rows(lambda cell: f"<{cell}>", str)
    assert rows == [["m_0", "0.1000"], ["m_1", "<0.3000>"], ["m_2", "-"], ["m_3", "<0.3000>"]]
    unmarked = Table({"model": ["m"]}, [Column("loss", [0.3])])
    assert unmarked.rows(lambda cell: f"<{cell}>", str) == [["m", "0.3000"]]


def test_markdown():
    assert tables.markdown(shown(0.1, 0.3, None, 0.2)).splitlines() == [
        "| model | r@20 |",
        "| --- | ---: |",
        r"| m\_0 | 0.1000 |",
        r"| m\_1 | **0.3000** |",
        r"| m\_2 | - |",
        r"| m\_3 | 0.2000 |",
    ]
    assert tables.markdown_text("a|b\n<c>") == r"a\|b &lt;c&gt;"


def test_latex():
    text = tables.latex(shown(0.1, 0.3))
    assert "    m\\_0 & 0.1000 \\\\\n    m\\_1 & \\textbf{0.3000} \\\\\n" in text
    assert r"\caption{T \& t. 50 \%}" in text
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 1
    escaped = r"\textbackslash{}\_\{\}\$\#\textasciitilde{}\textasciicircum{} $\pm$ $<$"
    assert tables.latex_text("\\_{}$#~^ ± <") == escaped


def test_csv_has_all_digits():
    labels = {"model": ["A", "B"]}
    columns = [Column("r@20", [1 / 3, None], std=[0.1, None], n=[2, 0])]
    assert tables.csv_text(Table(labels, columns)).splitlines() == [
        "model,column,value,std,n",
        "A,r@20,0.3333333333333333,0.1,2",
        "B,r@20,,,0",
    ]


def test_plain_text():
    assert tables.plain(shown(0.1, 0.3, 0.2)).splitlines() == [
        "model       r@20",
        "-------  -------",
        "m_0       0.1000",
        "m_1      0.3000*",
        "m_2       0.2000",
    ]


def test_printed_cells_stand_as_they_are_the_first_to_the_left():
    table = Table.of_rows(
        ["method", "cosine\n10%", "\n20%"], [["mean", "0.50", "1e3"], ["x", "-", ""]]
    )
    assert tables.plain(table).splitlines() == [
        "method      cosine",
        "               10%    20%",
        "--------  --------  -----",
        "mean          0.50    1e3",
        "x                -",
    ]
    assert Table.of_rows(["method", "cosine"], []).heads == ["method", "cosine"]
