"""Masks: published streams, strata, files, and the one door ``draw``."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_missing.data.missing import (
    MISSING_SETTINGS,
    draw,
    random_items,
    read_missing_file,
    read_token_file,
    stratified,
    write_missing_file,
    write_token_file,
)

STREAMS = {"tkde": [10, 30, 50, 70, 90], "cikm": list(range(10, 100, 10))}
TOKENS = ["[PAD]", "b07", "007", "1e5", "x"]
NAMES = ["image", "text"]
HEADER = "item_id:token\tmissing:token_seq\n"
SETTINGS = {
    "missing_protocol": "none",
    "missing_ratio": 0.5,
    "missing_seed": 42,
    "missing_stream": None,
    "missing_modalities": None,
    "missing_file": None,
    "new_items": "none",
    "new_item_ratio": 0.2,
    "new_items_file": None,
}
COUNTS = np.array([99, 3, 0, 3, 1])


def settings(**changes):
    assert set(SETTINGS) == set(MISSING_SETTINGS)
    return {**SETTINGS, **changes}


@pytest.mark.parametrize("paper", STREAMS)
def test_random_items_equal_the_published_masks(paper, golden_dir):
    if not (golden_dir / "imputation.npz").is_file():
        pytest.skip(f"{golden_dir / 'imputation.npz'} is absent")
    golden = np.load(golden_dir / "imputation.npz")
    n_items = int(golden["n_items"]) + 1
    for percentage in STREAMS[paper]:
        for repeat in range(5):
            mask = random_items(n_items, 2, percentage / 100, 42 + repeat, STREAMS[paper])
            drawn = np.sort(golden[f"mask_{paper}__p{percentage}_round{repeat + 1}"])
            assert (mask[:, 0] == mask[:, 1]).all()
            np.testing.assert_array_equal(np.flatnonzero(mask[:, 0]) - 1, drawn)


def test_random_items_without_stream_is_the_stream_of_that_percentage():
    for percentage in range(0, 101):
        alone = random_items(101, 1, percentage / 100, 7)
        np.testing.assert_array_equal(
            alone, random_items(101, 1, percentage / 100, 7, [percentage])
        )
        assert alone.sum() == int(percentage / 100 * 100)
        assert not alone[0].any()


def test_random_items_refuses_a_ratio_outside_the_stream():
    with pytest.raises(ValueError, match="got 0.2 with missing_stream .10, 30.; add 20"):
        random_items(10, 2, 0.2, 0, [10, 30])
    with pytest.raises(ValueError, match="missing_ratio must be a number between 0 and 1"):
        random_items(10, 2, 66.6, 0)


def test_random_items_leaves_the_global_generator_alone():
    import random

    random.seed(3)
    expected = random.random()
    random.seed(3)
    random_items(10, 2, 0.5, 0)
    assert random.random() == expected


@pytest.mark.parametrize(
    ("n_modalities", "shares"),
    [
        (1, {(1,): 1.0}),
        (2, {(1, 0): 1 / 4, (0, 1): 1 / 4, (1, 1): 1 / 2}),
        (
            3,
            {
                **{(i, j, k): 1 / 9 for i in (0, 1) for j in (0, 1) for k in (0, 1)},
                (1, 1, 1): 1 / 3,
            },
        ),
    ],
)
def test_stratified_shares(n_modalities, shares):
    counts = np.random.default_rng(0).integers(0, 50, 4501)
    missing, new = stratified(counts, n_modalities, 0.6, seed=1)
    cold = np.zeros(4501, dtype=bool)
    cold[np.argsort(counts[1:], kind="stable")[:3150] + 1] = True
    warm = ~cold
    warm[0] = False
    assert not missing[0].any() and not new[0]
    for group, size in ((cold & new, 630), (cold & ~new, 2520), (warm & new, 270)):
        assert group.sum() == size
        lacking = missing[group].any(axis=1)
        assert lacking.sum() == int(0.6 * size)
        for pattern, share in shares.items():
            found = (missing[group] == pattern).all(axis=1) & lacking
            expected = share * lacking.sum() if any(pattern) else 0
            assert abs(found.sum() - expected) <= 1


def test_stratified_counts_of_the_published_tiktok_mask():
    missing, new = stratified(np.arange(6711), 3, 0.6, seed=0)
    assert missing.any(axis=1).sum() == 4024
    assert new.sum() == 1341


def test_stratified_depends_on_the_seed_and_training_counts_alone():
    counts = np.arange(101)
    first, second, other = (stratified(counts, 2, 0.5, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    counts[0] = 10**6
    np.testing.assert_array_equal(stratified(counts, 2, 0.5, 1)[0], first)


def test_stratified_breaks_ties_by_item_id():
    _, new = stratified(np.ones(101, dtype=int), 2, 0.5, seed=0, new_ratio=1.0)
    assert new[1:].all()
    _, new = stratified(np.ones(101, dtype=int), 2, 0.5, seed=0)
    assert new[1:71].sum() == 14 and new[71:].sum() == 6


def test_stratified_with_many_modalities():
    missing, _ = stratified(np.zeros(100_001, dtype=int), 12, 1.0, seed=0)
    assert missing[1:].any(axis=1).all()
    assert abs(missing.all(axis=1).sum() - 100_000 / 12) <= 4
    assert missing.mean(axis=0).std() < 0.01
    with pytest.raises(ValueError, match="between 1 and 16, got 17"):
        stratified(COUNTS, 17, 0.5, seed=0)


def test_missing_file_round_trip(tmp_path):
    path = tmp_path / "mask.tsv"
    write_missing_file(path, {"007": ["text", "image"], "x": ["text"], "b07": []})
    assert path.read_text() == HEADER + "007\ttext image\nx\ttext\n"
    expected = np.zeros((5, 2), dtype=bool)
    expected[2] = True
    expected[4, 1] = True
    np.testing.assert_array_equal(read_missing_file(path, TOKENS, NAMES), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold data, got 0 bytes"),
        ("item_id\tmissing\nx\ttext\n", "first line must be"),
        (HEADER + "x\n", "line 2 must be"),
        (HEADER + "\nx\ttext\n\nx", "line 5 must be"),
        (HEADER + "x\t\n", "line 2 must be"),
        (HEADER + "x\ttext\timage\n", "line 2 must be"),
        (HEADER + "x\ttext  image\n", "line 2 must be"),
        (HEADER + "x\ttext text\n", "name a modality once"),
        (HEADER + "x\timages\n", "Unknown modality 'images'. Did you mean 'image'"),
        (HEADER + "x\ttext\nx\timage\n", r"several for \['x'\]"),
        (HEADER + "[PAD]\ttext\n", "1 unknown tokens"),
        (
            HEADER + "".join(f"{i}\ttext\n" for i in range(7)),
            r"7 unknown tokens such as \['0', '1', '2', '3', '4'\]",
        ),
    ],
)
def test_bad_missing_files(tmp_path, text, message):
    path = tmp_path / "mask.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_missing_file(path, TOKENS, NAMES)
    assert "mask.tsv" in str(caught.value)


def test_absent_or_undecodable_files(tmp_path):
    with pytest.raises(ValueError, match=r"no\.tsv: must be a file, got a folder or nothing"):
        read_missing_file(tmp_path / "no.tsv", TOKENS, NAMES)
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="latin: must be UTF-8"):
        read_token_file(tmp_path / "latin", TOKENS)


def test_token_file(tmp_path):
    path = tmp_path / "new.txt"
    write_token_file(path, ["007", "1e5"])
    np.testing.assert_array_equal(read_token_file(path, TOKENS), [False, False, True, True, False])
    for text, message in (
        ("x\n\nx\ty\n", "line 3 must be one id"),
        ("x\ty\n", "line 1 must be one id"),
        ("x\nx\n", "several for"),
        ("7\n", "unknown tokens such as ..7"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_token_file(path, TOKENS)


def test_files_that_could_not_be_read_back_are_not_written(tmp_path):
    for token in ("", "a\tb", "a\nb"):
        with pytest.raises(ValueError, match="item token must be text"):
            write_token_file(tmp_path / "f", [token])
    with pytest.raises(ValueError, match="must be an identifier, got 'two words'"):
        write_missing_file(tmp_path / "f", {"a": ["two words"]})
    assert not (tmp_path / "f").exists()


def test_draw_none(tmp_path):
    missing, new = draw(settings(), TOKENS, NAMES, COUNTS, tmp_path)
    assert missing.shape == (5, 2) and missing.dtype == bool and not missing.any()
    assert new.shape == (5,) and new.dtype == bool and not new.any()


def test_draw_random_items_of_some_modalities(tmp_path):
    chosen = settings(missing_protocol="random_items", missing_modalities=["text"])
    missing, _ = draw(chosen, TOKENS, NAMES, COUNTS, tmp_path)
    trained = np.array([1, 4, 3])  # "b07", "x" and "1e5" in the order of their tokens: 1e5, b07, x
    trained = trained[np.argsort([TOKENS[item] for item in trained])]
    np.testing.assert_array_equal(missing[trained, 1], random_items(4, 1, 0.5, 42)[1:, 0])
    assert missing[:, 1].any() and not missing[:, 0].any()


@pytest.mark.parametrize("protocol", ["random_items", "stratified"])
@pytest.mark.parametrize("numeric", [True, False])
def test_draw_depends_on_tokens_and_the_training_split_alone(tmp_path, protocol, numeric):
    """Neither RecBole's numbering nor items of validation and test change it."""
    tokens = [str(7 * i) if numeric else f"item {i}" for i in range(60)]
    counts = dict(zip(tokens, np.random.default_rng(0).integers(1, 9, 60)))
    chosen = settings(missing_protocol=protocol, new_items="stratified")
    drawn = []
    for extra in ([], ["3", "-5", "400"]):
        for seed in (1, 2):
            shuffled = list(np.random.default_rng(seed).permutation(tokens + extra))
            train_counts = np.array([0, *(counts.get(token, 0) for token in shuffled)])
            missing, new = draw(chosen, ["[PAD]", *shuffled], NAMES, train_counts, tmp_path)
            rows = zip(shuffled, missing[1:].tolist(), new[1:].tolist())
            drawn.append({token: (lacks, is_new) for token, lacks, is_new in rows})
    first = drawn[0]
    assert any(is_new for _, is_new in first.values())
    assert all({token: other[token] for token in first} == first for other in drawn)


def test_draw_gives_the_same_mask_with_and_without_new_items(tmp_path):
    tokens, counts = [str(i) for i in range(101)], np.arange(101)
    chosen = settings(missing_protocol="stratified")
    missing, new = draw(chosen, tokens, NAMES, counts, tmp_path)
    assert missing.any() and not new.any()
    chosen["new_items"] = "stratified"
    again, new = draw(chosen, tokens, NAMES, counts, tmp_path)
    np.testing.assert_array_equal(again, missing)
    np.testing.assert_array_equal(new, stratified(counts, 2, 0.5, 42)[1])
    assert new.sum() == 20
    write_missing_file(tmp_path / "m.tsv", {"3": ["text"]})
    chosen.update(missing_protocol="file", missing_file="m.tsv")
    from_file, same = draw(chosen, tokens, NAMES, counts, tmp_path)
    assert from_file.sum() == 1
    np.testing.assert_array_equal(same, new)


def test_draw_reads_files_relative_to_the_folder(tmp_path):
    write_missing_file(tmp_path / "m.tsv", {"x": ["image"]})
    write_token_file(tmp_path / "n.txt", ["b07"])
    chosen = settings(
        missing_protocol="file", missing_file="m.tsv", new_items="file", new_items_file="n.txt"
    )
    missing, new = draw(chosen, TOKENS, NAMES, COUNTS, tmp_path)
    assert list(zip(*np.nonzero(missing))) == [(4, 0)]
    assert list(np.flatnonzero(new)) == [1]


def test_draw_ignores_the_file_of_new_items_unless_asked(tmp_path):
    draw(settings(new_items_file="absent.txt"), TOKENS, NAMES, COUNTS, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"missing_ratio": 66.6}, "missing: missing_ratio must be a number between 0 and 1"),
        ({"missing_ratio": -0.1}, "missing_ratio must be a number between 0 and 1, got -0.1"),
        ({"missing_protocol": "strata"}, "missing_protocol must be one of none"),
        ({"missing_file": "m.tsv"}, "missing_file must be empty unless missing_protocol is file"),
        (
            {"missing_file": "m.tsv", "missing_protocol": "random_items"},
            "missing_file must be empty",
        ),
        ({"missing_protocol": "file"}, "missing_file must name a file"),
        ({"new_items": "file"}, "new_items_file must name a file"),
        (
            {"missing_protocol": "stratified", "missing_modalities": ["text"]},
            "missing_modalities must be empty unless missing_protocol is random_items",
        ),
        ({"missing_stream": [10]}, "missing_stream must be empty"),
        (
            {"missing_protocol": "random_items", "missing_modalities": ["txt"]},
            "Unknown modality 'txt'",
        ),
        (
            {"missing_protocol": "random_items", "missing_modalities": []},
            "must name a modality",
        ),
    ],
)
def test_draw_refuses(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        draw(settings(**changes), TOKENS, NAMES, COUNTS, tmp_path)


def test_draw_refuses_counts_of_another_catalogue(tmp_path):
    with pytest.raises(ValueError, match=r"train_counts must have shape \(5,\)"):
        draw(settings(), TOKENS, NAMES, COUNTS[1:], tmp_path)


# ------------------------------------------------------------------ masks of another data set


def spoken(caplog):
    return [record.getMessage() for record in caplog.records if "was written for" in record.message]


def test_a_mask_knows_its_data_set(tmp_path, caplog):
    """Tokens 0 to n exist in every data set that is numbered."""
    path, small, large = tmp_path / "m.tsv", ["[PAD]", "0", "1"], ["[PAD]", "0", "1", "2"]
    write_missing_file(path, {"1": ["text"]}, "toy", small[1:])
    head = path.read_text().splitlines()[0].split("\t")
    assert head[:3] == ["# written for", "toy", "2"]
    expected = [[False, False], [False, False], [False, True]]
    shuffled = ["[PAD]", "1", "0"]
    for tokens, name in ((small, "toy"), (small, None), (shuffled, "toy")):
        mask = read_missing_file(path, tokens, NAMES, name)
        assert mask[tokens.index("1")].tolist() == [False, True] and mask.sum() == 1
    assert not spoken(caplog)
    for tokens, name, got in (
        (large, "other", "name 'other' and 3 items"),
        (small, "other", "name 'other'"),
        (large, "toy", "3 items"),
        (large, None, "3 items"),
        (["[PAD]", "1", "2"], "toy", "2 items"),
    ):
        with pytest.raises(ValueError, match=f"for data set 'toy' with 2 items, got {got};"):
            read_missing_file(path, tokens, NAMES, name)
    filtered = ["[PAD]", "1"]
    assert read_missing_file(path, filtered, NAMES, "toy").tolist() == expected[1:]
    assert len(spoken(caplog)) == 1 and "got 1 items; filters" in spoken(caplog)[0]


def test_draw_tells_a_mask_which_data_set_it_is(tmp_path):
    write_missing_file(tmp_path / "m.tsv", {"x": ["text"]}, "toy", TOKENS[1:])
    chosen = settings(missing_protocol="file", missing_file="m.tsv")
    assert draw(chosen, TOKENS, NAMES, COUNTS, tmp_path, "toy")[0].sum() == 1
    with pytest.raises(ValueError, match="got name 'other';"):
        draw(chosen, TOKENS, NAMES, COUNTS, tmp_path, "other")


def test_a_mask_without_that_line_is_read_as_ever(tmp_path, caplog):
    (tmp_path / "m.tsv").write_text(HEADER + "x\ttext\n")
    assert read_missing_file(tmp_path / "m.tsv", TOKENS, NAMES, "toy").sum() == 1
    assert not spoken(caplog)
    (tmp_path / "m.tsv").write_text("# written for\ttoy\n" + HEADER + "x\ttext\n")
    with pytest.raises(ValueError, match="line 1 must name a data set"):
        read_missing_file(tmp_path / "m.tsv", TOKENS, NAMES, "toy")
