"""Quotes mean the same in every file of a data set: what they mean to RecBole."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest
import torch
from folders import AT_WORK, prepare, tiny_content
from folders import workplace as workplace

from recbole_missing.data.catalogue import read_edges
from recbole_missing.data.files import read_columns, read_ids, read_rows, write_rows
from recbole_missing.data.missing import (
    read_missing_file,
    read_token_file,
    write_missing_file,
    write_token_file,
)

pytestmark = AT_WORK


def as_recbole(path):
    """Cells as :meth:`recbole.data.dataset.Dataset._load_feat` reads them."""
    options = {"delimiter": "\t", "dtype": str, "encoding": "utf-8", "engine": "python"}
    return pd.read_csv(path, **options, keep_default_na=False).values.tolist()


@pytest.mark.parametrize(
    "text",
    [
        'a:token\tb:token_seq\n"1"\tx\n2\t"y"\n',
        'a:token\tb:token_seq\n1\t5" vinyl\n2\t"say ""hi"""\n',
        'a:token\tb:token_seq\n"1"\t"two\nlines"\n2\t"a\ttab"\n',
        'a:token\tb:token_seq\r\n"1"\tx\r\n\r\n2\t"y"\r\n',
        "a:token\tb:token_seq\n 1\t\"x \"\n\n2\t'y'",
        'a:token\tb:token_seq\n\t\n1\t""\n',
    ],
)
def test_cells_are_those_of_recbole(tmp_path, text):
    path = tmp_path / "a.item"
    path.write_text(text, newline="")
    expected = as_recbole(path)
    assert [list(row) for row in read_columns(path, ["a", "b"], "\t")] == expected
    assert [cells for _, cells in read_rows(path, "\t")[1:]] == expected


@pytest.mark.parametrize(
    "text", ['a\tb\n1\tx\n2\t"Heroes" by\n3\tz\n', 'a\tb\n1\tx\n2\t"Best\n3\tz\n4\t"Other\n', '"\n']
)
def test_quotes_that_do_not_match_are_refused_as_by_recbole(tmp_path, text):
    """Else one quote at the beginning of a cell would swallow the lines up to the next one."""
    path = tmp_path / "a.item"
    path.write_text(text)
    with pytest.raises(pd.errors.ParserError):
        as_recbole(path)
    line = 1 if text.startswith('"') else 3
    with pytest.raises(ValueError, match=rf"line {line} must be cells separated by .*a quote ins"):
        read_rows(path, "\t")


def test_a_cell_may_be_longer_than_the_limit_of_csv(tmp_path):
    limit, path = csv.field_size_limit(), tmp_path / "a.item"
    path.write_text("a\tb\n1\t" + "x" * (limit + 1) + "\n")
    assert len(read_columns(path, ["b"], "\t")[0][0]) == limit + 1
    assert csv.field_size_limit() == limit


def test_a_separator_of_two_characters_knows_no_quotes(tmp_path):
    path = tmp_path / "a.item"
    path.write_text('a::b\n"1"::x\n\n2::"y\n')
    assert read_columns(path, ["a", "b"], "::") == [('"1"', "x"), ("2", '"y')]


@pytest.mark.parametrize("text", ["\ufeff1\r\n2\r\n\r\n", '"1"\n"2"', "1\n\n2\n \n", "1\n2"])
def test_ids_with_quotes_marks_and_blank_lines(tmp_path, text):
    path = tmp_path / "a.ids"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_ids(path) == ["1", "2"]


ODD = ["a", '"b"', 'c"d', "e f", "'g'", ' "h"', "#i", "é"]


def test_what_is_written_is_read_back(tmp_path):
    tokens = ["[PAD]", *ODD]
    write_token_file(tmp_path / "new.txt", ODD)
    assert read_ids(tmp_path / "new.txt") == ODD
    assert read_token_file(tmp_path / "new.txt", tokens).tolist() == [False, *[True] * len(ODD)]
    write_missing_file(tmp_path / "lacks.tsv", {token: ["image"] for token in ODD}, "toy", ODD)
    mask = read_missing_file(tmp_path / "lacks.tsv", tokens, ["image"], "toy")
    assert mask[:, 0].tolist() == [False, *[True] * len(ODD)]
    write_rows(tmp_path / "a.inter", [("a:token", "b:token"), *((token, token) for token in ODD)])
    assert as_recbole(tmp_path / "a.inter") == [[token, token] for token in ODD]


def test_ids_without_quotes_are_written_as_ever(tmp_path):
    write_missing_file(tmp_path / "lacks.tsv", {"7": ["image", "text"], "b 8": ["text"]})
    written = (tmp_path / "lacks.tsv").read_bytes()
    assert written == b"item_id:token\tmissing:token_seq\n7\timage text\nb 8\ttext\n"


def test_edges(tmp_path):
    path = tmp_path / "edges"
    path.write_text('item_id:token\tneighbour_id:token\n"1"\t2\n2\t"1"\n')
    assert read_edges(path, ["[PAD]", "1", "2"]).toarray().tolist() == [
        [0, 0, 0], [0, 0, 1], [0, 1, 0],
    ]  # fmt: skip


def quoted(path, every):
    """Quote each ``every``-th line's cells; the header stays."""
    text = path.read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text), delimiter="\t"))
    header = 0 if path.suffix == ".txt" else 1
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, cells in enumerate(rows):
            quote = number >= header and number % every == 0
            style = csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL
            csv.writer(file, delimiter="\t", lineterminator="\n", quoting=style).writerow(cells)


FILES = ["tiny.train.inter", "tiny.valid.inter", "tiny.test.inter", "tiny.item", "image_ids.txt",
         "lacks.tsv", "new.txt"]  # fmt: skip


@pytest.mark.parametrize("files", [FILES, *([name] for name in FILES)], ids=lambda f: f[-1])
def test_a_run_does_not_see_which_cells_are_quoted(tmp_path, files):
    """Twenty quoted ids of fifty made twenty items lack the modality."""
    settings = tiny_content().write(tmp_path)
    folder = tmp_path / "tiny"
    write_token_file(folder / "new.txt", ["i8", "i11"])
    changes = {"missing_protocol": "file", "missing_file": "lacks.tsv", "new_items": "file",
               "new_items_file": "new.txt", "load_col": None}  # fmt: skip
    plain = prepare("VBPR", settings, **changes).dataset
    for name in files:
        quoted(folder / name, 2)
        assert '"i' in (folder / name).read_text() or '"u' in (folder / name).read_text()
    run = prepare("VBPR", settings, **changes).dataset
    assert run.identity == plain.identity
    assert torch.equal(run.new_items, plain.new_items)
    for name, modality in plain.known.items():
        assert torch.equal(run.known[name].observed, modality.observed)
        assert np.array_equal(run.known[name].features, modality.features)
