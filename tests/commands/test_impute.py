"""`recbole-missing impute` and `export` on tiny folders, and on the real TikTok release."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from folders import AT_WORK, in_new_process, prepare, tiny_content
from folders import workplace as workplace
from scipy import sparse

from recbole_missing import cli
from recbole_missing.data.files import read_matrix
from recbole_missing.imputation import FeatProp, Mean
from recbole_missing.imputation.base import Table
from recbole_missing.imputation.completion import held_out

TIKTOK = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiktok"
needs_tiktok = pytest.mark.skipif(not TIKTOK.is_dir(), reason="../shared/data/tiktok is absent")
N_USERS, N_ITEMS = 12, 20


pytestmark = AT_WORK


@pytest.fixture
def place(workplace, tmp_path):
    """The working folder, empty."""
    return tmp_path


def refused(capsys, *words):
    """Message of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    assert stopped.value.code == 2
    out, message = capsys.readouterr()
    assert message.startswith("error: ")
    assert out == ""
    return message


def run(*words):
    cli.main([str(word) for word in words])


def interactions():
    """Users x items; item 19 has no interaction."""
    generator = np.random.default_rng(0)
    matrix = generator.random((N_USERS, N_ITEMS)) < 0.3
    matrix[:, -1] = False
    return sparse.csr_matrix(matrix.astype(np.float32))


@pytest.fixture
def files(place):
    """Image without items 3 and 19 (NaN), text for everyone, interactions in two forms."""
    generator = np.random.default_rng(1)
    image = generator.normal(size=(N_ITEMS, 4)).astype(np.float32)
    image[[3, 19]] = np.nan
    np.save(place / "image.npy", image)
    np.save(place / "words.npy", generator.normal(size=(N_ITEMS, 3)))
    sparse.save_npz(place / "train.npz", interactions())
    edges = interactions().tocoo()
    lines = [f"u{user}\t{item}\n" for user, item in zip(edges.row, edges.col)]
    (place / "train.tsv").write_text("".join(lines))
    return ["--features", "image=image.npy", "text=words.npy"]


@pytest.mark.parametrize("source", ["train.npz", "train.tsv"])
def test_single_files(files, place, capsys, source):
    run("impute", "--interactions", source, *files, "--set", "layers=2", "top_k=4", "--output=out")
    given = np.load("image.npy")
    expected = FeatProp(layers=2, top_k=4).fit(interactions()).transform(given)
    completed = np.load("out/image.npy")
    np.testing.assert_allclose(completed, expected, rtol=1e-6)
    observed = np.load("out/image_observed.npy")
    assert np.flatnonzero(~observed).tolist() == [3, 19]
    assert completed[observed].tobytes() == given[observed].tobytes()
    np.testing.assert_array_equal(np.load("out/text.npy"), np.load("words.npy").astype("f4"))
    assert np.load("out/text_observed.npy").all()
    assert Path("out/items.ids").read_text().split() == [str(item) for item in range(N_ITEMS)]
    assert {path.name for path in place.iterdir() if path.is_dir()} == {"out"}
    assert "Wrote out: image.npy, image_observed.npy, text.npy" in capsys.readouterr().out


def test_the_report_counts_and_measures(files, capsys):
    run("impute", "--interactions", "train.npz", *files, "--set", "layers=2", "top_k=4")
    report = json.loads(Path("train_imputed/report.json").read_text())
    assert report["settings"]["method"] == "featprop"
    assert (report["settings"]["layers"], report["settings"]["top_k"]) == (2, 4)
    assert (report["items"], report["interactions"]) == (N_ITEMS, interactions().nnz)
    image, text = report["modalities"]["image"], report["modalities"]["text"]
    assert (image["missing"], image["reached"], image["unreached"]) == (2, 1, 1)
    assert (text["missing"], text["held_out_rows"], image["held_out_rows"]) == (0, 2, 1)
    assert text["energy_before"] == text["energy_after"] > 0
    assert image["energy_before"] != image["energy_after"]
    assert -1 <= text["held_out_cosine"] <= 1 and text["held_out_mse"] > 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    cells = [f"{image[key]:.4g}" for key in ("energy_before", "energy_after", "held_out_cosine")]
    assert ["image", "2", "1", "1", *cells, f"{image['held_out_mse']:.4g}"] in rows


def test_safetensors_are_read_again(files):
    run("impute", "--interactions", "train.npz", *files, "--method=mean", "--format=safetensors")
    expected = Mean().fit(interactions()).transform(np.load("image.npy"))
    np.testing.assert_array_equal(read_matrix(Path("train_imputed/image.safetensors")), expected)
    assert Path("train_imputed/image_observed.safetensors").is_file()


def test_ids_say_which_row_is_whose(place):
    np.save("a.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    Path("a.ids").write_text("b\nc\na\n")
    for name, value in (("a", 1.0), ("d", 2.0)):  # Ducho's layout: one file an item
        (place / "text").mkdir(exist_ok=True)
        np.save(place / "text" / f"{name}.npy", np.full((1, 2), value, np.float32))
    Path("train.csv").write_text("userID,rating,itemID,x_label\n1,5,a,0\n1,5,e,0\n2,5,b,2\n")
    run(
        "impute", "--interactions=train.csv", "--features", "image=a.npy", "text=text",
        "--ids", "image=a.ids", "--method=zeros", "--output=out",
    )  # fmt: skip
    assert Path("out/items.ids").read_text().split() == ["a", "b", "c", "d", "e"]
    image = [[4, 5], [0, 1], [2, 3], [0, 0], [0, 0]]
    np.testing.assert_array_equal(np.load("out/image.npy"), np.array(image, np.float32))
    assert np.load("out/text_observed.npy").tolist() == [True, False, False, True, False]
    assert json.loads(Path("out/report.json").read_text())["interactions"] == 2, "x_label 0 alone"


def test_a_mask_and_edges_of_ones_own(files):
    mask = "item_id:token\tmissing:token_seq\n5\ttext\n6\timage text\n"
    Path("mask.tsv").write_text(mask)
    Path("edges.tsv").write_text("item_id:token\tneighbour_id:token\n5\t7\n7\t5\n19\t8\n")
    run(
        "impute", "--interactions=train.npz", *files, "--missing=mask.tsv", "--edges=edges.tsv",
        "--set", "graph=edges", "layers=1", "--output=out",
    )  # fmt: skip
    assert np.flatnonzero(~np.load("out/image_observed.npy")).tolist() == [3, 6, 19]
    assert np.flatnonzero(~np.load("out/text_observed.npy")).tolist() == [5, 6]
    words = np.load("words.npy").astype(np.float32)
    reached = json.loads(Path("out/report.json").read_text())["modalities"]
    assert (reached["text"]["reached"], reached["text"]["unreached"]) == (1, 1)
    np.testing.assert_array_equal(np.load("out/text.npy")[5], words[7])


def recbole_folder(root, **settings):
    """The tiny data set with a YAML; returns the folder and the settings of a run."""
    content = tiny_content()
    run_settings = content.write(root / "data")
    keys = ("modalities", "benchmark_filename", *[k for k in run_settings if "_" in k and k[:5] in
            ("image", "title", "tags_")])  # fmt: skip
    written = {**{key: run_settings[key] for key in keys}, **settings}
    folder = root / "data" / "tiny"
    (folder / "tiny.yaml").write_text(yaml.safe_dump(written))
    return folder, {**run_settings, **settings}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"missing_protocol": "file", "missing_file": "lacks.tsv"},
        {"missing_protocol": "stratified", "missing_ratio": 0.5, "new_items": "stratified"},
        {"missing_protocol": "random_items", "missing_ratio": 0.3, "missing_stream": [10, 30]},
    ],
    ids=["real holes", "file", "stratified, new items", "stream"],
)
def test_a_recbole_folder_is_read_as_a_run_reads_it(place, settings):
    folder, of_run = recbole_folder(place, **settings)
    dataset = prepare("BPR", of_run, imputation="featprop", imputation_cache=False).dataset
    run("impute", folder, "--output=out")
    items = Path("out/items.ids").read_text().split()
    rows = [dataset.token2id("item_id", item) for item in items]
    assert rows == list(range(1, dataset.item_num)), "ties go by RecBole's numbers"
    for name, modality in dataset.modalities.items():
        np.testing.assert_array_equal(
            np.load(f"out/{name}_observed.npy"), modality.observed[rows].numpy()
        )
        np.testing.assert_allclose(
            np.load(f"out/{name}.npy"), modality.features[rows].numpy(), atol=1e-6
        )


def test_a_mask_replaces_that_of_the_yaml(place):
    folder, _ = recbole_folder(place, missing_protocol="stratified", missing_ratio=0.5)
    run("impute", folder, "--method=mean", "--missing=lacks.tsv", "--output=file")
    run("impute", folder, "--method=mean", "--missing=none", "--output=none")
    items = Path("none/items.ids").read_text().split()
    lacking = [
        {items[row] for row in np.flatnonzero(~np.load(f"{out}/image_observed.npy"))}
        for out in ("none", "file")
    ]
    assert lacking == [{"i6", "i7"}, {"i6", "i7", "i8", "i9"}]


INTER = """userID\titemID\tx_label
0\t0\t0
0\t1\t0
0\t2\t1
1\t1\t0
1\t3\t0
1\t0\t2
2\t3\t0
2\t0\t0
2\t1\t1
"""


@pytest.fixture
def layout(place):
    """MMRec's layout, six rows of which the last two have no interaction; item 1 has no image."""
    folder = place / "mm"
    folder.mkdir()
    (folder / "mm.inter").write_text(INTER)
    np.save(folder / "image_feat.npy", np.arange(12, dtype=np.float16).reshape(6, 2))
    np.save(folder / "text_feat.npy", np.arange(18, dtype=np.float32).reshape(6, 3) + 1)
    (folder / "missed_img_itemIDs.csv").write_text("1\n")
    return folder


def test_mmrec_layout(layout):
    run("impute", layout, "--method=mean")
    image = np.load("mm_imputed/image.npy")
    given = np.load(layout / "image_feat.npy").astype(np.float32)
    assert np.load("mm_imputed/image_observed.npy").tolist() == [True, False, *[True] * 4]
    np.testing.assert_allclose(image[1], given[[0, 2, 3, 4, 5]].mean(axis=0))
    np.testing.assert_array_equal(image[[0, 2, 3, 4, 5]], given[[0, 2, 3, 4, 5]])
    report = json.loads(Path("mm_imputed/report.json").read_text())
    assert (report["items"], report["interactions"]) == (6, 6)


def test_masks_of_dgmrecs_layout(layout):
    for ratio, masks in {"0.2": {"t": [5], "all": [0]}, "0.5": {"v": [2]}}.items():
        content = np.empty((), dtype=object)
        content[()] = {key: np.array(items) for key, items in masks.items()}
        np.save(layout / f"missing_items_{ratio}.npy", content)
    lacking = []
    for words in ([], ["--missing=missing_items_0.5.npy"], ["--missing=none"]):
        run("impute", layout, "--method=mean", "--force", *words)
        lacking.append(
            [
                np.flatnonzero(~np.load(f"mm_imputed/{name}_observed.npy")).tolist()
                for name in ("image", "text")
            ]
        )
    assert lacking == [[[0, 1], [0, 5]], [[1, 2], []], [[1], []]]


def test_nothing_is_lost_by_force(layout, capsys):
    run("impute", layout, "--method=mean", "--output=out")
    before = Path("out/image.npy").read_bytes()
    capsys.readouterr()
    assert "--force" in refused(capsys, "impute", layout, "--method=zeros", "--output=out")
    (layout / "text_feat.npy").rename(layout / "away")
    (layout / "image_feat.npy").write_bytes(b"no matrix")
    assert "image_feat.npy" in refused(capsys, "impute", layout, "--output=out", "--force")
    assert Path("out/image.npy").read_bytes() == before
    message = refused(capsys, "impute", layout, f"--output={layout}", "--force")
    assert "files of another origin" in message
    assert (layout / "mm.inter").is_file()


def test_force_replaces_results_as_a_whole(layout):
    run("impute", layout, "--method=mean", "--output=out")
    run("impute", layout, "--method=mean", "--output=out", "--format=safetensors", "--force")
    assert sorted(path.suffix for path in Path("out").iterdir()) == [
        ".ids", ".json", *[".safetensors"] * 4
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "layer=2"], "--set: Unknown setting 'layer'. Did you mean 'layers'?"),
        (["--set", "layers=0"], "imputation_layers must be an int >= 1"),
        (["--set", "layers"], "--set: must read NAME=VALUE, got 'layers'."),
        (["--set", "layers=1", "layers=2"], "--set: must name layers once"),
        (["--method=featpro"], "Did you mean 'featprop'?"),
        (["--missing=absent.tsv"], "absent.tsv: must be a file"),
        (["--ids", "image=x"], "--ids must come with --features"),
        (["--plot=x.png"], "--plot must come with --evaluate"),
        (["--evaluate", "--method=mean"], "--evaluate compares --methods"),
        (["--evaluate", "--methods", "meen"], "Did you mean 'mean'?"),
        (["--evaluate", "--ratios", "0"], "above 0 and below 100"),
        (["--interactions=x"], "must be given a folder or --interactions"),
        (["--edges=absent"], "absent: must be a file"),
    ],
)
def test_refusals(layout, capsys, words, message):
    assert message in refused(capsys, "impute", layout, *words)
    assert not Path("mm_imputed").exists()


def test_refusals_of_single_files(files, capsys):
    start = ("impute", "--interactions=train.tsv")
    assert "must come with --features" in refused(capsys, *start)
    message = refused(capsys, *start, *files, "--ids", "sound=x")
    assert "ids: must belong to one of the features ['image', 'text'], got ['sound']" in message
    np.save("words.npy", np.zeros((N_ITEMS - 1, 3)))
    assert "words.npy has 19 rows" in refused(capsys, *start, *files)
    np.save("image.npy", np.zeros((5, 2)))
    message = refused(capsys, *start, "--features", "image=image.npy")
    assert "items must be row numbers of the features, 0 to 4" in message
    Path("train.tsv").write_text("a b\n")
    assert "line 1 must be a user" in refused(capsys, *start, "--features", "image=image.npy")
    Path("train.npz").write_text("no")
    message = refused(capsys, "impute", "--interactions=train.npz", "--features", "a=image.npy")
    assert "must be a sparse matrix" in message


def test_a_folder_that_is_nothing(place, capsys):
    (place / "empty").mkdir()
    assert "must hold empty.yaml" in refused(capsys, "impute", "empty")
    assert "must be a folder" in refused(capsys, "impute", "absent")
    (place / "empty" / "empty.yaml").write_text("modalities: [image]\n")
    assert "benchmark_filename must be a list" in refused(capsys, "impute", "empty")


def test_held_out_rows_are_compared_with_the_truth():
    torch.manual_seed(0)
    features = torch.randn(200, 5) + 1
    features[:, 2] = 7.0  # a column that does not vary says nothing
    observed = torch.arange(200) < 150
    table = Table("x", torch.where(observed[:, None], features, torch.zeros(())), observed)
    twins = sparse.kron(sparse.eye(100), np.ones((1, 2)))  # two items a user
    features[1::2] = features[::2]
    table = table._replace(features=torch.where(observed[:, None], features, torch.zeros(())))
    perfect = held_out(FeatProp(layers=1, fallback="zeros").fit(twins), {"x": table}, seed=3)["x"]
    mean = held_out(Mean().fit(twins), {"x": table}, seed=3)["x"]
    assert perfect["held_out_rows"] == mean["held_out_rows"] == 15
    assert perfect["held_out_cosine"] > 0.8, "all but pairs that were both drawn"
    assert 0.7 < mean["held_out_mse"] < 1.4
    assert perfect["held_out_mse"] < mean["held_out_mse"]
    assert table.features[observed].any(dim=1).all(), "nothing is written to"
    alone = Table("x", features[:1], torch.tensor([True]))
    nothing = held_out(Mean().fit(sparse.csr_matrix(np.ones((1, 1)))), {"x": alone}, seed=0)["x"]
    assert nothing == {"held_out_rows": 0, "held_out_cosine": None, "held_out_mse": None}


def test_methods_side_by_side(files, capsys):
    words = ["--ratios", 20, 50, "--methods", "mean", "zeros", "--output=quality"]
    run("impute", "--interactions=train.npz", *files, "--evaluate", *words)
    output = capsys.readouterr().out
    result = json.loads(Path("quality/evaluation.json").read_text())
    assert {score["method"] for score in result["scores"]} == {"mean", "zeros"}
    assert {score["ratio"] for score in result["scores"]} == {20, 50}
    assert "cosine" in output and "20%" in output and "homophily" in output
    assert "50%" in output.split("training interactions")[0], "by degree at the middle ratio"


def test_evaluation_lifts_masks_unless_they_are_named(layout):
    (layout / "mask.tsv").write_text("item_id:token\tmissing:token_seq\n2\timage text\n")
    content = np.empty((), dtype=object)
    content[()] = {"all": np.array([2, 3])}
    np.save(layout / "missing_items_0.5.npy", content)
    items = []
    for words in ([], ["--missing=mask.tsv"], ["--missing=missing_items_0.5.npy"]):
        words = [*words, "--evaluate", "--ratios", 50, "--methods", "mean", "--output=q"]
        run("impute", layout, *words, "--force")
        items.append(json.loads(Path("q/evaluation.json").read_text())["truth"]["text"]["items"])
    assert items == [6, 5, 4]


def test_a_figure(files, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    words = ["--interactions=train.npz", *files, "--evaluate", "--methods", "mean", "zeros"]
    run("impute", *words, "--plot=figures/quality.png")
    assert Path("figures/quality.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert "--force" in refused(capsys, "impute", *words, "--plot=figures/quality.png")


def test_a_figure_without_matplotlib(layout, capsys, monkeypatch):
    monkeypatch.setattr("recbole_missing.commands.impute.find_spec", lambda name: None)
    message = refused(capsys, "impute", layout, "--evaluate", "--plot=x.png")
    assert "matplotlib" in message


def imported(layout):
    run("import", "mmrec", layout, "--name=mm", "--output=data")
    return Path("data/mm")


def read_inter(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_export_and_import_give_the_same(place, layout, capsys):
    (layout / "mm.inter").write_text(
        INTER.replace("x_label", "rating\tx_label").replace("\t0\n", "\t4.5\t0\n")
        .replace("\t1\n", "\t3.0\t1\n").replace("\t2\n", "\t1.0\t2\n")
    )  # fmt: skip
    (layout / "missed_img_itemIDs.csv").unlink()
    first = imported(layout)
    run("export", "mmrec", first, "--output=mmrec")
    exported = place / "mmrec" / "mm"
    assert read_inter(exported / "mm.inter")[0] == ["userID", "itemID", "rating", "x_label"]
    assert sorted(read_inter(exported / "mm.inter")) == sorted(read_inter(layout / "mm.inter"))
    run("import", "mmrec", exported, "--name=mm", "--output=again")
    second = place / "again" / "mm"
    for split in ("train", "valid", "test"):
        file = f"mm.{split}.inter"
        assert (second / file).read_text() == (first / file).read_text()
    for name in ("image", "text"):
        np.testing.assert_array_equal(
            np.load(second / "features" / f"{name}.npy"),
            np.load(first / "features" / f"{name}.npy")[:4],  # MMRec's items are those of .inter
        )
    settings = yaml.safe_load((exported / "mm.yaml").read_text())
    assert settings["vision_feature_file"] == "image_feat.npy"
    assert settings["text_feature_file"] == "text_feat.npy"
    assert settings["inter_file_name"] == "mm.inter" and settings["field_separator"] == "\t"
    assert "Wrote mmrec/mm\n  3 users, 4 items; interactions: train 6, valid 2, test 1" in (
        capsys.readouterr().out
    )


def test_export_numbers_tokens_from_zero(place):
    folder, _ = recbole_folder(place)
    run("export", "mmrec", folder, "--method=featprop")
    exported = place / "mmrec" / "tiny"
    users, items = (dict(read_inter(exported / f"{letter}_id_mapping.csv")[1:]) for letter in "ui")
    assert sorted(map(int, items.values())) == list(range(30))
    assert sorted(map(int, users.values())) == list(range(40))
    content = tiny_content()
    pairs = {(row[0], row[1]) for row in read_inter(exported / "tiny.inter") if row[-1] == "0"}
    assert pairs == {(users[user], items[item]) for user, item in content.train}
    image = np.load(exported / "image_feat.npy")
    np.testing.assert_array_equal(image[int(items["i8"])], content.image[content.row("i8")])
    run("impute", folder, "--output=out")
    rows = [int(items[item]) for item in Path("out/items.ids").read_text().split()]
    np.testing.assert_array_equal(image[rows], np.load("out/image.npy"))
    missed = (exported / "missed_img_itemIDs.csv").read_text().split()
    assert missed == sorted((items["i6"], items["i7"]), key=int)
    assert (exported / "missed_title_itemIDs.csv").is_file()


def test_holes_come_back_as_holes(place, layout):
    run("export", "mmrec", imported(layout), "--method=mean")
    run("import", "mmrec", "mmrec/mm", "--name=mm", "--output=again")
    assert Path("again/mm/features/image.ids").read_text().split() == ["0", "2", "3"]


def test_export_refuses_holes_and_foreign_folders(layout, capsys):
    folder = imported(layout)
    capsys.readouterr()
    message = refused(capsys, "export", "mmrec", folder)
    assert "got 1 items without image" in message and "--method mean" in message
    assert not Path("mmrec").exists()
    assert "--set must come with --method" in refused(
        capsys, "export", "mmrec", folder, "--set", "layers=2"
    )
    message = refused(capsys, "export", "mmrec", folder, "--method=mean", "--output=data")
    assert "files of another origin" in message
    assert "must hold mm.yaml" in refused(capsys, "export", "mmrec", layout, "--method=mean")


def test_training_of_new_items_is_exported_as_test(place):
    new = {"new_items": "stratified", "new_item_ratio": 0.3}
    folder, _ = recbole_folder(place, **new)
    run("export", "mmrec", folder, "--method=mean")
    exported = place / "mmrec" / "tiny"
    items = dict(read_inter(exported / "i_id_mapping.csv")[1:])
    labels = {label: [row for row in read_inter(exported / "tiny.inter") if row[-1] == label] for
              label in "012"}  # fmt: skip
    content = tiny_content()
    moved = {items[item] for _, item in content.train} - {row[1] for row in labels["0"]}
    assert len(moved) >= 8
    assert len(labels["0"]) + len(labels["2"]) == len(content.train) + len(content.test)
    assert len(labels["1"]) == len(content.valid)


@needs_tiktok
def test_tiktok(capsys):
    run("impute", TIKTOK, "--output=out")
    report = json.loads(Path("out/report.json").read_text())
    assert (report["items"], report["interactions"]) == (6710, 59541)
    image = report["modalities"]["image"]
    assert (image["dim"], image["missing"]) == (128, 2685)
    assert image["reached"] + image["unreached"] == 2685
    assert image["held_out_cosine"] > 0.9
    given = np.load(TIKTOK / "image_feat.npy").astype(np.float32)
    observed = np.load("out/image_observed.npy")
    assert np.load("out/image.npy")[observed].tobytes() == given[observed].tobytes()
    assert np.isfinite(np.load("out/audio.npy")).all()


@needs_tiktok
def test_tiktok_evaluated(capsys):
    words = ["--evaluate", "--ratios", 10, 90, "--methods", "featprop", "mean", "zeros"]
    run("impute", TIKTOK, *words)
    output = capsys.readouterr().out
    assert "image: 6,710 items, 128 features" in output
    assert "audio: 6,710 items, 128 features" in output


@pytest.mark.slow
def test_ray_gives_equal_files(files, place):
    words = ["impute", "--interactions=train.npz", *files]
    run(*words, "--output=here")
    code = f"from recbole_missing import cli; cli.main({[*words, '--output=there', '--ray']})"
    in_new_process(code, place)
    assert Path("here/image.npy").read_bytes() == Path("there/image.npy").read_bytes()
