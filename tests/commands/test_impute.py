"""`recbole-missing impute` on tiny data sets, on single files, and on the real TikTok release."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from folders import (
    AT_WORK,
    BY_TIME,
    in_new_process,
    mmrec_folder,
    prepare,
    recbole_folder,
    refused,
)
from folders import workplace as workplace
from scipy import sparse

from recbole_missing import cli
from recbole_missing.data.files import read_matrix
from recbole_missing.imputation import IMPUTERS, FeatProp, Mean

TIKTOK = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiktok"
needs_tiktok = pytest.mark.skipif(not TIKTOK.is_dir(), reason="../shared/data/tiktok is absent")
N_USERS, N_ITEMS = 12, 20


pytestmark = AT_WORK


@pytest.fixture
def place(workplace, tmp_path):
    """The working folder, empty."""
    return tmp_path


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
    words = ["--set", "layers=2", "top_k=4", "--check"]
    run("impute", "--interactions", "train.npz", *files, *words)
    report = json.loads(Path("train_imputed/report.json").read_text())
    assert report["settings"]["method"] == "featprop"
    assert (report["settings"]["layers"], report["settings"]["top_k"]) == (2, 4)
    assert (report["items"], report["interactions"]) == (N_ITEMS, interactions().nnz)
    image, text = report["modalities"]["image"], report["modalities"]["text"]
    assert (image["missing"], image["reached"], image["unreached"]) == (2, 1, 1)
    assert (text["missing"], text["check_rows"], image["check_rows"]) == (0, 2, 1)
    assert text["energy_before"] == text["energy_after"] > 0
    assert image["energy_before"] != image["energy_after"]
    assert -1 <= text["check_cosine"] <= 1 and text["check_mse"] > 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    keys = ("energy_before", "energy_after", "check_cosine", "check_mse")
    assert ["image", "2", "1", "1", *(f"{image[key]:.4g}" for key in keys)] in rows


class Counted(Mean):
    """Mean of the rows that counts how often it is asked for one."""

    calls: list[str] = []

    def fill(self, table, others):
        """Note the modality."""
        self.calls.append(table.name)
        return super().fill(table, others)


@pytest.mark.parametrize(("words", "fills"), [([], 1), (["--check", "50"], 2)])
def test_a_method_works_a_second_time_only_on_request(files, monkeypatch, words, fills):
    monkeypatch.setitem(IMPUTERS.registered, "counted", Counted)
    monkeypatch.setattr(Counted, "calls", [])
    run("impute", "--interactions=train.npz", *files, "--method=counted", *words)
    assert sorted(Counted.calls) == sorted(["image", "text"] * fills)
    report = json.loads(Path("train_imputed/report.json").read_text())
    assert ("check_mse" in report["modalities"]["text"]) == (fills == 2)


def test_a_check_that_hides_nothing_is_refused_before_any_work(files, capsys):
    message = refused(capsys, "impute", "--interactions=train.npz", *files, "--check", "1")
    assert "1% of 18 items is none; give a larger ratio" in message
    assert not Path("train_imputed").exists()


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


def assert_as_in_a_run(dataset, folder="out"):
    """The written rows are those that a run works on, whatever their order."""
    items = Path(folder, "items.ids").read_text().split()
    rows = [dataset.token2id("item_id", item) for item in items]
    assert sorted(rows) == list(range(1, dataset.item_num))
    for name, modality in dataset.modalities.items():
        observed = np.load(f"{folder}/{name}_observed.npy")
        np.testing.assert_array_equal(observed, modality.observed[rows].numpy())
        completed = np.load(f"{folder}/{name}.npy")
        np.testing.assert_allclose(completed, modality.features[rows].numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"missing_protocol": "file", "missing_file": "lacks.tsv"},
        {"missing_protocol": "stratified", "missing_ratio": 0.5, "new_items": "stratified"},
        {"missing_protocol": "random_items", "missing_ratio": 0.3, "missing_stream": [10, 30]},
        BY_TIME,
        {"benchmark_filename": None, "seed": 7},
        {"benchmark_filename": None, "item_inter_num_interval": "[16,inf)"},
        {**BY_TIME, "val_interval": {"timestamp": "[0,300]"}},
        {"imputation_layers": 1, "imputation_top_k": 3},
    ],
    ids=[
        "real holes", "file", "stratified, new items", "stream", "split by time", "split by seed",
        "few interactions filtered", "values filtered", "settings of imputation",
    ],
)  # fmt: skip
def test_a_recbole_folder_is_read_as_a_run_reads_it(place, settings):
    folder, of_run = recbole_folder(place, **settings)
    run("impute", folder, "--output=out")
    dataset = prepare("BPR", of_run, imputation="featprop", imputation_cache=False).dataset
    assert_as_in_a_run(dataset)


def test_an_imputer_from_outside_brings_its_default(place, monkeypatch):
    """The config of a data set does not know the setting, which has a default all the same."""
    (place / "of_ours.py").write_text(
        "import torch\n"
        "from recbole_missing.config.constraints import Float\n"
        "from recbole_missing.imputation.base import Filled, Imputer\n"
        "class Constant(Imputer):\n"
        "    hyperparameters = {'value': Float()}\n"
        "    properties = {'value': 7.0}\n"
        "    def fill(self, table, others):\n"
        "        return Filled(torch.full_like(table.features, self.value))\n"
    )
    monkeypatch.syspath_prepend(place)
    folder, _ = recbole_folder(place)
    for words, value in (([], 7.0), (["--set", "value=3"], 3.0)):
        run("impute", folder, "--method=of_ours:Constant", "--output=out", "--force", *words)
        missing = ~np.load("out/image_observed.npy")
        assert missing.any()
        assert (np.load("out/image.npy")[missing] == value).all()


def test_a_filter_leaves_items_out(place):
    folder, _ = recbole_folder(place, benchmark_filename=None, item_inter_num_interval="[16,inf)")
    run("impute", folder, "--method=mean")
    left = Path("tiny_imputed/items.ids").read_text().split()
    assert 5 < len(left) < 30, "the case above must filter"


def test_options_of_the_command_are_no_settings_of_recbole(place, monkeypatch):
    """RecBole reads ``sys.argv``; ``--seed`` draws hidden rows here, and no split."""
    folder, of_run = recbole_folder(place, benchmark_filename=None)
    words = ["impute", str(folder), "--output=out", "--seed=9"]
    monkeypatch.setattr("sys.argv", ["recbole-missing", *words])
    run(*words)
    monkeypatch.setattr("sys.argv", ["recbole-missing"])
    assert_as_in_a_run(
        prepare("BPR", of_run, imputation="featprop", imputation_cache=False).dataset
    )
    assert json.loads(Path("out/report.json").read_text())["seed"] == 9


def test_another_field_separator(place):
    folder, of_run = recbole_folder(place, field_separator=",")
    for path in (*folder.glob("*.inter"), folder / "tiny.item"):
        path.write_text(path.read_text().replace("\t", ","))
    run("impute", folder, "--method=mean", "--output=out")
    assert_as_in_a_run(prepare("BPR", of_run, imputation="mean").dataset)


def test_another_encoding(place):
    folder, of_run = recbole_folder(place, encoding="latin-1")
    for path in (*folder.glob("*.inter"), folder / "tiny.item"):
        text = path.read_text(encoding="utf-8").replace("red", "r\xe9d").replace("i1\t", "\xef1\t")
        path.write_bytes(text.encode("latin-1"))
    ids = folder / "image_ids.txt"
    words = ["\xef1" if word == "i1" else word for word in ids.read_text().split()]
    ids.write_text("\n".join(words), encoding="utf-8")
    run("impute", folder, "--method=mean", "--output=out")
    assert "\xef1" in Path("out/items.ids").read_text(encoding="utf-8").split()
    assert_as_in_a_run(prepare("BPR", of_run, imputation="mean").dataset)


def test_a_data_set_is_found_by_name(place):
    folder, of_run = recbole_folder(place)
    expected = prepare("BPR", of_run, imputation="featprop", imputation_cache=False).dataset
    run("impute", "tiny", "--data-path=data", "--output=named")
    assert_as_in_a_run(expected, "named")
    (folder / "tiny.yaml").rename(place / "mine.yaml")
    Path("more.yaml").write_text("data_path: data\nmodalities: [image]\n")
    run("impute", "tiny", "--config_files", "mine.yaml more.yaml", "--output=out")
    assert Path("out/image.npy").is_file() and not Path("out/title.npy").exists()


@pytest.mark.slow
def test_ml_100k_is_part_of_recbole(place, capsys):
    run("impute", "ml-100k")
    assert [path.name for path in place.iterdir()] == ["ml-100k_imputed"], "no log, no folder"
    assert "ml-100k: 1,682 items, 80,808 training interactions" in capsys.readouterr().out
    of_run = {"dataset": "ml-100k", "plugin_defaults": True}
    assert_as_in_a_run(prepare("BPR", of_run).dataset, "ml-100k_imputed")


def test_a_renamed_folder_is_read_by_the_name_of_its_yaml(place):
    folder, of_run = recbole_folder(place)
    expected = prepare("BPR", of_run, imputation="mean").dataset
    run("impute", folder.rename(place / "copy"), "--method=mean", "--output=out")
    assert_as_in_a_run(expected)


def test_settings_of_a_model_do_no_harm(place):
    """A YAML of a whole run, with a top-k beyond these thirty items."""
    folder, _ = recbole_folder(
        place, topk=[50], metrics=["NDCG"], valid_metric="NDCG@50", n_ui_layers=2, knn_k=3
    )
    run("impute", folder, "--method=mean", "--output=out")
    assert len(Path("out/items.ids").read_text().split()) == 30


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


@pytest.fixture
def layout(place):
    """A folder in MMRec's layout."""
    return mmrec_folder(place)


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
        (["--interactions=x"], "must be given a data set or --interactions"),
        (["--evaluate", "--check"], "--check must come without --evaluate"),
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
    assert "items must be row numbers of image, only 5 of 19 ids match" in message
    assert "say which row is whose with --ids image=FILE" in message
    Path("train.tsv").write_text("a b\n")
    assert "line 1 must be a header" in refused(capsys, *start, "--features", "image=image.npy")
    Path("train.npz").write_text("no")
    message = refused(capsys, "impute", "--interactions=train.npz", "--features", "a=image.npy")
    assert "must be a sparse matrix" in message


def test_a_data_set_that_is_nothing(place, capsys):
    (place / "empty").mkdir()
    message = refused(capsys, "impute", "empty")
    assert "empty.inter: must be an interaction file, got no such file" in message
    message = refused(capsys, "impute", "absent")
    assert "absent: must be a folder or a data set in dataset, got none" in message
    assert "--data-path must come with a data set" in refused(
        capsys, "impute", "--interactions=x", "--features", "a=b", "--data-path=."
    )
    (place / "empty" / "empty.yaml").write_text("modalities: [image\n")
    assert "empty.yaml: must be YAML" in refused(capsys, "impute", "empty")


def test_a_data_set_without_modalities(place, capsys):
    folder, _ = recbole_folder(place)
    (folder / "tiny.yaml").write_text("benchmark_filename: [train, valid, test]\n")
    np.save(folder / "image_feat.npy", np.ones((30, 2)))  # no sign of MMRec's layout here
    (folder / "tiny.inter").write_text("user_id:token\titem_id:token\nu1\ti1\n")
    message = refused(capsys, "impute", folder)
    assert "data set 'tiny': must have modalities, got none" in message


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


@pytest.mark.slow
@needs_tiktok
def test_tiktok(capsys):
    run("impute", TIKTOK, "--output=out", "--check")
    report = json.loads(Path("out/report.json").read_text())
    assert (report["items"], report["interactions"]) == (6710, 59541)
    image = report["modalities"]["image"]
    assert (image["dim"], image["missing"]) == (128, 2685)
    assert image["reached"] + image["unreached"] == 2685
    assert image["check_cosine"] > 0.9
    given = np.load(TIKTOK / "image_feat.npy").astype(np.float32)
    observed = np.load("out/image_observed.npy")
    assert np.load("out/image.npy")[observed].tobytes() == given[observed].tobytes()
    assert np.isfinite(np.load("out/audio.npy")).all()


@pytest.mark.slow
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


@pytest.mark.parametrize("command", [["impute"], ["export", "mmrec"]])
@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("modalities: [image\nseed: 1\n", "must be YAML, got: while parsing a flow sequence"),
        ("a: !!python/name:os.system\n", "must be YAML, got: "),
        ("- a\n", "must hold keys and values as `key: value`, got a list"),
        ("data_path: [1, 2]\n", "data_path must be a non-empty string, or empty, got [1, 2]"),
    ],
)
def test_broken_yaml_is_one_line(tmp_path, capsys, command, text, got):
    folder, _ = recbole_folder(tmp_path)
    (tmp_path / "own.yaml").write_text(text)
    message = refused(capsys, *command, folder, "--config_files", "own.yaml")
    assert message.startswith("error: own.yaml") and got in message and message.count("\n") == 1
    (folder / "tiny.yaml").write_text(text)
    message = refused(capsys, *command, folder)
    assert "tiny.yaml" in message and got in message and message.count("\n") == 1
