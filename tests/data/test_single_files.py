"""Interactions and features named one by one: headers, quotes, ids that do not meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import in_new_process
from scipy import sparse

from recbole_missing.data.single_files import read_files, read_interactions

KNOWN = {"3", "4", "5"}
PAIRS = [("u1", "3"), ("u1", "4"), ("u2", "3")]


def matrix_of(pairs):
    """Dense matrix and item tokens as :func:`read_interactions` numbers them."""
    users, items = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    dense = np.zeros((len(users), len(items)))
    for user, item in pairs:
        dense[users.index(user), items.index(item)] = 1
    return dense, items


def assert_pairs(path, pairs=PAIRS, known=KNOWN):
    matrix, items = read_interactions(path, known)
    dense, expected = matrix_of(pairs)
    assert items == expected
    np.testing.assert_array_equal(matrix.toarray(), dense)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "user_id,item_id\nu1,3\nu1,4\nu2,3\n"),
        ("a.csv", "item_id,user_id\n3,u1\n4,u1\n3,u2\n"),
        ("a.csv", '"user_id","item_id"\n"u1","3"\n"u1","4"\n"u2","3"\n'),
        ("a.csv", "rating,asin,reviewerID\n5,3,u1\n1,4,u1\n2,3,u2\n"),
        ("a.csv", "parent_asin,user_id\n3,u1\n4,u1\n3,u2\n"),
        ("a.csv", "\ufeffUser ID,Item ID\r\nu1,3\r\nu1,4\r\nu2,3\r\n"),
        ("a.csv", "u1,3\nu1,4\nu2,3"),
        ("a.csv", '"u1","3"\n"u1","4"\n\n"u2","3"\n'),
        ("a.tsv", "u1\t3\t5.0\nu1\t4\t1.0\nu2\t3\t2.0\n"),
        ("a.tsv", "user\titem\nu1\t3\nu1\t4\nu2\t3\n"),
        ("a.inter", "item_id:token\tuser_id:token\trating:float\n3\tu1\t1\n4\tu1\t2\n3\tu2\t3\n"),
        ("a.inter", "userID\titemID\tx_label\nu1\t3\t0\nu1\t4\t0\nu3\t5\t1\nu2\t3\t0\nu3\t3\t2\n"),
    ],
)
def test_headers_in_any_order_and_quotes(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert_pairs(path)


def test_a_quoted_cell_may_hold_a_separator(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('user,item\n"Doe, J.","say ""hi"""\n')
    assert_pairs(path, [("Doe, J.", 'say "hi"')])


@pytest.mark.parametrize("text", ["u1,3\nu1,4\nu2,3\n", "3\tu1\n4\tu1\n"])
def test_other_separators_and_swapped_columns_are_refused(tmp_path, text):
    path = tmp_path / "a.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match="line 1 must be a header that names a user and an item"):
        read_interactions(path, KNOWN)


@pytest.mark.parametrize("header", ["customer,product", "who,what", "a:token,b:token"])
def test_a_header_is_never_taken_for_data(tmp_path, header):
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\nu1,3\nu2,4\n")
    with pytest.raises(ValueError, match="line 1 must be a header that names a user and an item"):
        read_interactions(path, KNOWN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,rating\nu1,5\n", r"one user and one item column, got \['user_id', 'rating'\]"),
        ("item,rating\n3,5\n", "one user and one item column"),
        ("user,item,asin\nu1,3,3\n", "one user and one item column"),
        ("user,item\nu1,3\nu1\n", "line 3 must have 2 cells"),
        ("user,item\nu1,\n", "line 2 must have 2 cells, a user and an item among them"),
        ('user,item\nu1,"3\n', "line 2 must be cells separated by ','.*end a cell with a quote"),
        ("user,item,x_label\nu1,3,1\n", "must hold training interactions, got none"),
        ("user,item,x_label\nu1,3,0\nu1,4,train\n", "line 3: x_label must be one of 0, 1, 2"),
        ("u1\t3\nu1\t4\n", r"a user and an item that has features, got .* separated by ','"),
        ("user,item\n", "must hold training interactions, got none"),
        ("user,item,Rating\nu1,3,0\nu1,4,-1.5\nu2,3,4\n", "got 2 of 3 with Rating 0 or less"),
        ("user,label,item\nu1,0,3\nu1,1,4\n", "got 1 of 2 with label 0 or less"),
        ("4,3\n3,3\n5,4\n5,7\n", "features for 3 of 3 users and 2 of 3 items, as if it were item"),
        ("\n\n", "must hold interactions, got empty lines"),
        ("", "must hold data, got 0 bytes"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_interactions(path, KNOWN)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("1,3\n2,4\n9,5\n", "user: column 1, item: column 2; no header, the first line ['1', '3']"),
        ("item,rating,user\n3,1,3\n", "user: column 3, item: column 1; header ['item', 'rating',"),
    ],
)
def test_the_columns_are_named(tmp_path, text, note):
    (matrix, features, ids) = files(tmp_path, text, ["3", "4", "5"])
    assert read_files(matrix, features, ids).notes[0].startswith(f"q.csv: {note}")


def test_a_sparse_matrix_names_items_by_column(tmp_path):
    sparse.save_npz(tmp_path / "a.npz", sparse.csr_matrix(np.eye(3)))
    matrix, items = read_interactions(tmp_path / "a.npz")
    assert items == ["0", "1", "2"] and matrix.nnz == 3
    for value, must in ((np.nan, "finite"), (-1.0, "0 or positive")):
        sparse.save_npz(tmp_path / "a.npz", sparse.diags([value] * 3, format="csr"))
        with pytest.raises(ValueError, match=f"a.npz: interactions must be {must}, got 3 entries"):
            read_interactions(tmp_path / "a.npz")
    sparse.save_npz(tmp_path / "a.npz", sparse.csr_matrix((3, 3)))
    with pytest.raises(ValueError, match="must hold training interactions, got none"):
        read_interactions(tmp_path / "a.npz")


def files(folder: Path, interactions: str, ids: list[str]):
    """Arguments of :func:`read_files` for one modality."""
    (folder / "q.csv").write_text(interactions)
    np.save(folder / "f.npy", np.arange(2.0 * len(ids)).reshape(-1, 2))
    (folder / "f.ids").write_text("".join(f"{token}\n" for token in ids))
    return folder / "q.csv", {"image": folder / "f.npy"}, {"image": folder / "f.ids"}


def test_quoted_ids_are_the_ids_of_the_features(tmp_path):
    """Forty items, not eighty: the quotes are no part of an id."""
    lines = "".join(f'"u{item % 7}","{item}"\n' for item in range(40))
    collection = read_files(*files(tmp_path, lines, [str(item) for item in range(40)]))
    assert len(collection.items) == 40
    assert collection.interactions.shape == (7, 40)
    assert collection.tables["image"].observed.all()


def test_ids_that_never_meet_are_refused(tmp_path):
    lines = "user,item\n" + "".join(f"u{item},i{item}\n" for item in range(1, 30))
    given = files(tmp_path, lines, [str(item) for item in range(30)])
    with pytest.raises(
        ValueError, match="no id matches: interactions have 'i1', features have '0'"
    ):
        read_files(*given)


def test_few_ids_that_meet_are_counted_and_refused(tmp_path):
    lines = "user,item\n" + "".join(f"u{item},{item:02d}\n" for item in range(5, 60))
    ids = [str(item) for item in range(5, 60)]
    assert len(read_files(*files(tmp_path, lines, ids)).items) == 60, "50 of 55 ids meet"
    few = [str(item) for item in range(5)] + [f"{item:03d}" for item in range(5, 60)] + ["58"]
    with pytest.raises(ValueError, match="items of image, only 1 of 55 ids match"):
        read_files(*files(tmp_path, lines, few))


def test_few_features_are_no_fault(tmp_path):
    lines = "user,item\n" + "".join(f"u{item},i{item}\n" for item in range(200))
    collection = read_files(*files(tmp_path, lines, ["i7", "i9", "x"]))
    assert collection.tables["image"].observed.sum() == 3 and len(collection.items) == 201


WITHOUT_RECBOLE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "recbole":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from recbole_missing import cli
words = ["impute", "--interactions=q.csv", "--features", "image=f.npy", "--ids", "image=f.ids"]
cli.main([*words, "--check=30"])
cli.main([*words, "--evaluate", "--methods", "mean", "featprop", "--ratios", "50"])
assert not any(name.split(".")[0] == "recbole" for name in sys.modules)
"""


@pytest.mark.slow
def test_impute_works_where_recbole_is_absent(tmp_path):
    lines = "user,item\n" + "".join(f"u{item % 3},i{item % 11}\n" for item in range(20))
    files(tmp_path, lines, [f"i{item}" for item in range(11)])
    output = in_new_process(WITHOUT_RECBOLE, tmp_path)
    assert "q: 11 items" in output and "homophily" in output
    assert (tmp_path / "q_imputed" / "image.npy").is_file()
