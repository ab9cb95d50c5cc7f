"""Files from strangers: nothing in a checkpoint, a benchmark file or a cache runs as code."""

from __future__ import annotations

import os
import pickle
import stat
import sys
from pathlib import Path

import pytest
import recbole
import torch
import yaml
from folders import AT_WORK, N_ITEMS, Toy, prepare, recbole_folder, refused, tiny_content
from folders import workplace as workplace
from recbole.config import Config
from recbole.model.context_aware_recommender.kd_dagfm import KD_DAGFM
from recbole.quick_start import load_data_and_model, run_recbole

from recbole_missing import IMPUTERS, MODELS, checkpoint, cli, plugin, recorded
from recbole_missing.config import values
from recbole_missing.data import signed

pytestmark = AT_WORK
HERE = ("--data-path", ".")
CODE = "__import__('pathlib').Path('pwned').touch()"
PWNED = Path("pwned")
OF_RECBOLE = Path(recbole.__file__).parent / "properties" / "model"


@pytest.fixture
def settings(tmp_path):
    return tiny_content().write(tmp_path)


@pytest.fixture(autouse=True)
def nothing_runs(workplace):
    yield
    assert not PWNED.exists(), "code in a file was run"


def trained(model, settings, **changes):
    run = prepare(model, settings, **changes)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)
    return run, Path(trainer.saved_model_file)


def altered(file, **config):
    """Write a checkpoint again with other settings; what torch saved is otherwise the same."""
    state = torch.load(file, weights_only=True)
    state["config"].update(config)
    torch.save(state, file)
    return file


class Payload:
    """Unpickling it touches the file."""

    def __reduce__(self):
        """Name the function."""
        return (Path.touch, (PWNED,))


# ------------------------------------------------------------------------------ values of settings

SAME = r"""
1e-3 | 1E5 | 5 | -5 | +5 | 0x10 | 1_000 | 0777 | 1. | .5 | 1e999 | True | true | TRUE | false | None
none | null | 'text' | "text" | text | a b | [1,2] | [1, [2, 'a']] | (1,2) | (0,5) | [0,inf) | {}
[0,inf] | {'a': 1} | {1,2} | b'x' | 1+2j | ... | [] | () | Recall@10 | cuda:0 | a:B | a.b | a-b | ,
saved/x.pth | 'a' 'b' | [1, | {'LS': 'valid_and_test'} | [image,text] | 0 | 00 | 1 2 | adam
os | np | nan | inf | -inf | {[]: 1} | u'x' | lambda | [True, None] | 1,2 | '1' | dict | max | \t
"""
WORDS = ["", " ", "\t", " 5", *(word.strip() for word in SAME.replace("\n", "|").split("|"))]


@pytest.mark.parametrize("text", WORDS)
def test_text_is_read_as_recbole_reads_it(text):
    original = plugin._original("recbole.config.configurator:Config._convert_config_dict")
    theirs = original(None, {"setting": text})["setting"]
    ours = values.read(text)
    assert type(ours) is type(theirs) and repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    "text",
    [CODE, "2**10", "3*0.1", "not True", "'a'+'b'", "key", "value", "[" * 9999, "metric_types"],
)
def test_what_only_an_evaluation_could_read_stays_text(settings, text):
    config = Config("BPR", "tiny", config_dict={**settings, "note": text})
    assert config["note"] == text


def test_the_command_line_is_data(settings, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", f"--note={CODE}", "--seed=7", "--topk=[5,10]"])
    config = Config("BPR", "tiny", config_dict=settings)
    assert (config["note"], config["seed"], config["topk"]) == (CODE, 7, [5, 10])


def test_a_config_file_makes_no_objects(settings, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("learning_rate: 1e-2\nnote: !!python/object/apply:os.system ['touch pwned']\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: must be YAML"):
        Config("BPR", "tiny", [str(file)], settings)
    file.write_text("learning_rate: 1e-2\nnote: 1.e+3\n")
    config = Config("BPR", "tiny", [str(file)], {**settings, "learning_rate": "1e-3"})
    assert config["learning_rate"] == 0.001 and config["note"] == 1000.0


def test_the_name_of_a_teacher_is_a_name(settings):
    plain = {key: settings[key] for key in ("data_path", "dataset", "gpu_id", "show_progress")}
    context = {**plain, "metrics": ["AUC"], "valid_metric": "AUC", "threshold": None}
    context["eval_args"] = {"mode": "labeled"}
    assert Config(KD_DAGFM, "tiny", config_dict={**context, "teacher": "CrossNet"})["teacher"]
    for teacher in (CODE, "torch", "KD_DAGFM", ["CrossNet"]):
        with pytest.raises(ValueError, match="KD_DAGFM: teacher must be one of CIN, .*CrossNet"):
            Config(KD_DAGFM, "tiny", config_dict={**context, "teacher": teacher})


# -------------------------------------------------------------------------------------- checkpoints


def test_the_example_of_the_issue(settings, capsys):
    _, file = trained("VBPR", settings)
    altered(file, valid_metric=f"({CODE},'Recall@5')[1]")
    message = refused(capsys, "recommend", file, *HERE)
    assert f"{file}: metrics, valid_metric and loss_type must be names such as Recall@20" in message


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"learning_rate": CODE}, "learning_rate must be a number"),
        ({"embedding_size": "64"}, "embedding_size must be an int"),
        ({"seed": [1]}, "seed must be an int"),
        ({"topk": CODE}, "topk must be a list"),
        ({"topk": None, "metrics": [CODE]}, "metrics, valid_metric and loss_type must be names"),
        ({"eval_args": CODE}, "eval_args must be a mapping"),
        ({"loss_type": CODE}, "must be names such as"),
        ({"load_col": CODE}, "load_col must be a mapping like"),
        ({"dataset": "../tiny"}, "dataset must be the name of a data set without a path"),
        ({"dataset": "/etc"}, "dataset must be the name of a data set without a path"),
        ({"dataset": ["tiny"]}, "dataset must be the name of a data set without a path"),
        ({"model": "../x"}, "model must be the name of a class"),
        ({"model": 3}, "model must be the name of a class"),
        ({"missing_ratio": 7}, "missing_ratio must be a number between 0 and 1"),
        ({"image_features": "/etc/x.npy"}, "image_features must lie in the folder of the data"),
        ({"image_ids": "../../x"}, "pass --set image_ids=FILE"),
        ({"image_features": "C:\\x.npy"}, "image_features must lie in the folder"),
        ({"missing_file": "a/../../b"}, "missing_file must lie in the folder of the data set"),
        ({"imputation_edges_file": "\\\\host\\x"}, "imputation_edges_file must lie in the folder"),
        ({"benchmark_filename": ["a", "/b", "c"]}, "benchmark_filename must hold endings of file"),
        ({"additional_feat_suffix": ["../x"]}, "additional_feat_suffix must hold endings"),
        ({"load_col": {"../inter": ["user_id"]}}, "load_col must hold endings of file names"),
        ({"imputation": ["zeros"]}, "must be known before this checkpoint is read"),
        ({"modalities": ["a"], "imputation": "os:path"}, "must be known before this checkpoint"),
        ({"unload_col": float("nan")}, "unload_col must hold endings of file names, got nan"),
        ({"benchmark_filename": True}, "benchmark_filename must hold endings of file names"),
        ({"eval_args": {"mode": 5}}, "eval_args: mode must be full, labeled"),
        ({"transform": "os:path"}, "its settings do not fit VBPR: NotImplementedError: There is"),
        ({"alias_of_user_id": ["os:path"]}, "its settings do not fit VBPR: KeyError: 'os:path'"),
    ],
    ids=str,
)
def test_a_setting_of_a_checkpoint_is_refused(settings, capsys, changes, answer):
    _, file = trained("VBPR", settings)
    altered(file, **changes)
    message = refused(capsys, "recommend", file, *HERE)
    assert answer in message and str(file) in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"seed": True}, "seed must be an int between"),
        ({"seed": float("nan")}, "seed must be an int between"),
        ({"train_neg_sample_args": {"a": "os:path"}}, "train_neg_sample_args: Unknown key 'a'."),
        ({"eval_args": {"a": "os:path"}}, "eval_args: Unknown key 'a'."),
        ({"unused_col": 1e20}, "unused_col must be a mapping"),
        ({"alias_of_item_id": "os:path"}, "alias_of_item_id must be a list"),
        ({"discretization": "os:path"}, "discretization must be a mapping"),
        ({"transform": ["os:path"]}, "its settings do not fit LDiffRec: TypeError: unhashable"),
        ({"dims_dnn": ["os:path"]}, "its settings do not fit LDiffRec: TypeError: "),
        ({"in_dims": ["os:path"]}, "its settings do not fit LDiffRec: TypeError: "),
        ({"mlp_act_func": "os:path"}, "its settings do not fit LDiffRec: UnboundLocalError: "),
        ({"noise_min": float("nan")}, "its settings do not fit LDiffRec: AssertionError: betas"),
        ({"steps": True}, "its settings do not fit LDiffRec: TypeError: zeros()"),
        ({"embedding_size": 10**20}, "its settings do not fit LDiffRec: TypeError: "),
    ],
    ids=str,
)
def test_a_setting_of_recboles_own_model_is_refused(settings, capsys, changes, answer):
    _, file = trained("LDiffRec", settings, n_cate=1)
    altered(file, **changes)
    message = refused(capsys, "recommend", file, *HERE)
    assert f"{file}: {answer}" in message and message.count("\n") == 1


def test_incomplete_eval_args_are_completed_as_recbole_does(settings):
    _, file = trained("BPR", settings)
    config = load_data_and_model(str(altered(file, eval_args={})), ".")[0]
    assert config["eval_args"]["mode"] == {"valid": "full", "test": "full"}
    assert config["eval_args"].keys() == {"split", "order", "group_by", "mode"}


def test_what_is_no_matter_of_settings_keeps_its_error(settings, monkeypatch):
    _, file = trained("VBPR", settings)
    for error in (OSError("full"), ImportError("absent"), MemoryError()):
        monkeypatch.setattr(checkpoint, "note_data", lambda *_, e=error: (_ for _ in ()).throw(e))
        with pytest.raises(type(error)) as found:
            load_data_and_model(str(file), ".")
        assert found.value is error
    monkeypatch.setattr(checkpoint, "note_data", lambda *_: {}["odd"])
    with pytest.raises(ValueError, match="its settings do not fit VBPR: KeyError: 'odd'") as found:
        load_data_and_model(str(file), ".")
    assert isinstance(found.value.__cause__, KeyError)


def test_settings_for_other_models_of_recbole(settings):
    saved = {"model": "KD_DAGFM", "dataset": "tiny", "metrics": ["AUC"], "valid_metric": "AUC"}
    saved["eval_args"] = {"mode": "labeled"}
    assert checkpoint.rebuild_config({**saved, "teacher": "CIN"})["teacher"] == "CIN"
    with pytest.raises(ValueError, match="KD_DAGFM: teacher must be one of"):
        checkpoint.rebuild_config({**saved, "teacher": CODE})
    with pytest.raises(ValueError, match="n_cate must be 1, got 2, with which RecBole unpickles"):
        checkpoint.rebuild_config({"model": "LDiffRec", "dataset": "tiny", "n_cate": 2})
    hostile = {
        "use_pretrain": True,
        "mf_pretrain_path": "evil.pth",
        "mlp_pretrain_path": "evil.pth",
    }
    config = checkpoint.rebuild_config({"model": "NeuMF", "dataset": "tiny", **hostile})
    assert not config["use_pretrain"] and config["mf_pretrain_path"] is None


def test_paths_caches_and_devices_are_those_of_this_process(settings, capsys, tmp_path):
    run, file = trained("VBPR", settings)
    planted = tmp_path / "planted.pth"
    planted.write_bytes(pickle.dumps(Payload()))
    names = ("dataset_save_path", "dataloaders_save_path")
    hostile = dict.fromkeys(names, str(planted))
    hostile |= {"save_dataset": True, "save_dataloaders": True, "checkpoint_dir": "elsewhere"}
    hostile |= {"data_path": "/nowhere/tiny", "gpu_id": "5", "log_wandb": True, "use_gpu": True}
    hostile |= {"device": "cuda:7", "worker": 9, "my_path": "/etc", "never_heard": CODE}
    altered(file, **hostile)
    cli.main(["recommend", str(file), *HERE])
    config, model, *_ = load_data_and_model(str(file), settings["data_path"])
    fresh = Config("VBPR", "tiny")
    for key in (*names, "save_dataset", "save_dataloaders", "checkpoint_dir", "gpu_id", "worker"):
        assert config[key] == fresh[key], key
    assert config["never_heard"] is None and config["my_path"] is None
    assert not Path("elsewhere").exists() and config["data_path"] == run.config["data_path"]


def test_the_data_are_looked_for_where_this_process_has_them(settings, capsys, tmp_path):
    run, file = trained("VBPR", settings)
    message = refused(capsys, "recommend", file)
    where = f"must be in dataset, got no such folder (the run read it in '{tmp_path / 'tiny'}')"
    assert where in message and "say where with --data-path" in message
    (tmp_path / "dataset").mkdir()
    (tmp_path / "tiny").rename(tmp_path / "dataset" / "tiny")
    cli.main(["recommend", str(file)])
    assert len(capsys.readouterr().out.splitlines()) > 100
    (tmp_path / "dataset").rename(tmp_path / "moved")
    cli.main(["recommend", str(file), "--data-path", "moved"])
    assert torch.equal(
        run.scores(load_data_and_model(str(file), "moved")[1]), run_scores(run, file)
    )


def run_scores(run, file):
    network = run.network()
    checkpoint.fill(network, checkpoint.load(file), run.config)
    return run.scores(network)


def test_files_outside_of_the_data_are_the_users_to_name(settings, capsys, tmp_path):
    away = tmp_path / "away.npy"
    (tmp_path / "tiny" / "image.npy").rename(away)
    _, file = trained("VBPR", settings, image_features=str(away))
    message = refused(capsys, "recommend", file, *HERE)
    assert f"image_features must lie in the folder of the data set, got '{away}'" in message
    assert "pass --set image_features=FILE" in message
    cli.main(["recommend", str(file), *HERE, "--set", f"image_features={away}"])
    assert len(capsys.readouterr().out.splitlines()) > 100
    assert load_data_and_model(str(file), ".", {"image_features": str(away)})


def test_a_model_from_outside_gets_numbers_and_no_undeclared_text(settings, capsys):
    run, file = trained("BPR", settings, my_number=3, my_word="x", my_path="y")
    config = load_data_and_model(str(file), ".")[0]
    assert (config["my_number"], config["my_word"], config["my_path"]) == (3, None, None)
    cli.main(["recommend", str(file), *HERE])
    assert "my_path, my_word of the run not taken" in capsys.readouterr().err
    config = load_data_and_model(str(file), ".", {"my_word": "z"})[0]
    assert config["my_word"] == "z"


def planted_attribute(state):
    state["other_parameter"] = {"forward": torch.zeros(2)}


def planted_format(state):
    arrays = {key: {"array": torch.zeros(1)} for key in ("data", "row", "col")}
    state["other_parameter"] = {"w": {"sparse": "array", "shape": [10**9, 10**9], **arrays}}


def planted_array(state):
    state["other_parameter"] = {"w": {"array": CODE}}


def planted_text(state):
    state["state_dict"]["user_embedding"] = CODE


def planted_key(state):
    state["config"][3] = CODE


def planted_class(state):
    state["model_class"] = "planted:Evil"


@pytest.mark.parametrize(
    ("plant", "answer"),
    [
        (planted_attribute, "must hold what VBPR keeps beside its parameters, got ['forward']"),
        (planted_format, "must be whole, got a bad sparse: must be one of"),
        (planted_array, "must be whole, got a bad array: must be a tensor, got a str."),
        (planted_text, "state_dict holds more than tensors"),
        (planted_key, "config holds more than plain values"),
        (planted_class, "the model planted:Evil must be known before this checkpoint is read"),
    ],
)
def test_the_rest_of_a_checkpoint(settings, capsys, plant, answer):
    _, file = trained("VBPR", settings)
    state = torch.load(file, weights_only=True)
    plant(state)
    torch.save(state, file)
    assert answer in refused(capsys, "recommend", file, *HERE)


EVERY_MODEL = sorted(
    {*MODELS, *(path.stem for path in OF_RECBOLE.glob("*.yaml"))} - {"lightgbm", "xgboost"}
)


def test_the_settings_of_every_model_come_back():
    """Else a check here would refuse a checkpoint that is in order."""
    for model in EVERY_MODEL:
        given = {} if model in MODELS else {"train_neg_sample_args": None}
        config = Config(model, "ml-100k", config_dict={"plugin_defaults": True, **given})
        saved = checkpoint.config_state(config)
        rebuilt = checkpoint.plain(checkpoint.rebuild_config(saved).final_config_dict)
        kept = saved.keys() - recorded.OF_THIS_PROCESS
        assert {key: rebuilt[key] for key in kept} == {key: saved[key] for key in kept}, model


def test_a_rebuilt_config_imports_nothing(settings, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "planted.py").write_text(PLANTED)
    saved = checkpoint.config_state(prepare("VBPR", settings).config)
    with pytest.raises(ValueError, match="'planted:Filler': must be imported already"):
        checkpoint.rebuild_config({**saved, "imputation": "planted:Filler"})
    assert checkpoint.rebuild_config({**saved, "metrics": ["planted"]})["metrics"] == ["planted"]
    assert "planted" not in sys.modules


# ------------------------------------------------------------------------------- who wrote the file


def rewritten(file, change):
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)


def test_one_line_says_that_another_code_wrote_the_file(settings, capsys, caplog):
    _, file = trained("VBPR", settings)

    def answer():
        capsys.readouterr()
        cli.main(["recommend", str(file), *HERE])
        return capsys.readouterr().err

    assert answer() == "", "the same code"
    rewritten(file, lambda state: state["written_by"].update(version="0.0.1"))
    expected = f"{file}: was written by other code: version '0.0.1' instead of "
    assert answer().startswith(expected)
    rewritten(file, lambda state: state["written_by"]["source"].update({"model VBPR": "0"}))
    assert answer().rstrip().endswith("another source of the model VBPR; scores may differ.")
    rewritten(file, lambda state: state["written_by"]["source"].update({"imputer featprop": "0"}))
    assert "another source of the imputer featprop" in answer() and answer().count("\n") == 1
    caplog.clear()
    load_data_and_model(str(file), ".")
    assert sum("was written by other code" in line for line in caplog.messages) == 1
    rewritten(file, lambda state: state.pop("written_by"))
    assert "written by other code: an older version of this package, which did not" in answer()


def test_parameters_that_do_not_fit_are_named(settings, capsys):
    run, file = trained("VBPR", settings)

    def change(state):
        state["written_by"]["version"] = "0.0.1"
        state["state_dict"]["user_embedding"] = torch.zeros(2, 3)
        state["state_dict"]["strange"] = torch.zeros(1)

    rewritten(file, change)
    message = refused(capsys, "recommend", file, *HERE)
    assert (
        "must hold the parameters of VBPR, got 1 unknown: strange; 1 of another shape: " in message
    )
    assert "user_embedding (2, 3) instead of (41, 16) (written by version '0.0.1' inst" in message
    with pytest.raises(ValueError, match="must hold the parameters of VBPR"):
        run.trainer().evaluate(run.test, model_file=str(file))


def test_lists_longer_than_the_catalogue_are_refused(settings, capsys):
    _, file = trained("VBPR", settings)
    message = refused(capsys, "recommend", file, *HERE, "--top-k", N_ITEMS + 1)
    assert f"--top-k must be at most the number of items ({N_ITEMS}), got {N_ITEMS + 1}" in message
    message = refused(capsys, "retrieve", file, *HERE, "--top", 5, N_ITEMS + 1)
    assert f"--top must be at most the number of items ({N_ITEMS}), got {N_ITEMS + 1}" in message


# ------------------------------------------------------------------------------------------- caches

KEPT = {"save_dataset": True, "save_dataloaders": True}
NAMES = ("MultimodalDataset", "VBPRDataset", "Dataset", "for-VBPR-dataloader", "for-BPR-dataloader")


def plant(settings):
    """Put pickles that run code where RecBole looks for its caches."""
    folder = Path(settings["checkpoint_dir"])
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / f"tiny-{name}.pth").write_bytes(pickle.dumps(Payload()))
    return folder


def without_ours(settings):
    keys = ("data_path", "dataset", "checkpoint_dir", "gpu_id", "epochs", "show_progress")
    return {key: settings[key] for key in keys}


@pytest.mark.parametrize("kept", [{}, KEPT], ids=["plain run", "caches asked for"])
@pytest.mark.parametrize("model", ["VBPR", "BPR", "BPR of RecBole"])
def test_a_planted_cache_is_not_read(settings, caplog, model, kept):
    own = without_ours(settings) if model.endswith("RecBole") else settings
    own = {**own, **kept}
    expected = run_recbole(model.split()[0], config_dict={**own, "checkpoint_dir": "other"})
    folder = plant(settings)
    caplog.clear()
    result = run_recbole(model.split()[0], config_dict=own)
    assert result["test_result"] == expected["test_result"]
    warned = [line for line in caplog.messages if "no signature that this user can check" in line]
    assert len(warned) == (2 if kept else 0)
    if kept:  # they were replaced, as RecBole does, and serve from now on

        def written():
            return {path: path.stat().st_mtime_ns for path in folder.glob("tiny-*.pth")}

        caplog.clear()
        changed = written()
        assert (
            run_recbole(model.split()[0], config_dict=own)["test_result"] == result["test_result"]
        )
        assert changed == written() and not caplog.messages


@pytest.mark.parametrize("key", ["dataset_save_path", "dataloaders_save_path"])
def test_a_planted_cache_is_not_read_by_its_path(settings, caplog, key):
    folder = plant(settings)
    prepare("VBPR", settings, **{key: str(folder / f"tiny-{NAMES[0]}.pth")})
    assert "no signature that this user can check" in caplog.text


def test_a_signature_holds_for_one_content_kind_and_user(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "made" / "a.pth"
    signed.write(path, "dataset", {"a": 1})
    assert signed.read(path, "dataset") == {"a": 1} and not caplog.messages
    assert signed.read(path, "dataloaders") is None
    assert "a.pth: its signature is wrong; it is not read" in caplog.messages[-1]
    content = path.read_bytes()
    path.write_bytes(pickle.dumps(Payload()))
    assert signed.read(path, "dataset") is None
    path.write_bytes(content)
    assert signed.read(path, "dataset") == {"a": 1}
    if os.name == "posix":
        assert stat.S_IMODE(signed.key_file().stat().st_mode) == 0o600
        signed.key_file().chmod(0o644)
        assert signed.read(path, "dataset") is None, "others could read the key: it is a new one"
        signed.write(path, "dataset", 2)
        assert signed.read(path, "dataset") == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    assert signed.read(path, "dataset") is None
    assert signed.read(tmp_path / "absent", "dataset") is None


@pytest.mark.skipif(os.name != "posix", reason="no owners and modes")
def test_a_planted_key_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    theirs = tmp_path / "theirs"
    theirs.write_bytes(bytes(32))
    theirs.chmod(0o600)
    signed.key_file().parent.mkdir()
    signed.key_file().symlink_to(theirs)
    key = signed.user_key()
    assert key != theirs.read_bytes() == bytes(32)
    assert not signed.key_file().is_symlink()
    assert signed.user_key() == key
    owner = signed.key_file().stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    signed.key_file().parent.chmod(0o755)
    with pytest.raises(PermissionError, match="only this user can read"):
        signed.user_key()  # what is written here is never of that user
    assert signed.key_file().read_bytes() != key


def test_without_a_place_for_the_key_a_cache_is_written_and_not_read(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    signed.write(tmp_path / "a.pth", "dataset", 1)
    assert "has no signature and will not be read" in caplog.text
    assert signed.read(tmp_path / "a.pth", "dataset") is None


@pytest.mark.parametrize("model", [Toy, "VBPR", "BPR", "BPR of RecBole"])
def test_saving_and_loading_caches_changes_no_run(settings, model):
    """RecBole takes the generators out of the dataloaders that it saves, and trains on."""
    own = settings
    if str(model).endswith("RecBole"):
        model, own = "BPR", without_ours(settings)
    results = []
    for folder, kept in (("none", {}), ("kept", KEPT), ("kept", KEPT)):
        run, file = trained(model, {**own, "epochs": 3}, **kept, checkpoint_dir=folder)
        results.append(torch.load(file, weights_only=True))
        assert run.train.generator is not None
    for other in results[1:]:
        assert all(
            torch.equal(value, other["state_dict"][key])
            for key, value in results[0]["state_dict"].items()
        )
        for key in ("best_valid_result", "epoch", "loaders"):
            assert str(other[key]) == str(results[0][key])


# ---------------------------------------------------------------------------------- benchmark files

PLANTED = """
from pathlib import Path
Path("pwned").touch()
from recbole_missing.imputation import Zeros
from recbole_missing.model.vbpr import VBPR
class Evil(VBPR): pass
class Filler(Zeros): pass
class Metric: pass
"""


@pytest.fixture
def bench(tmp_path, monkeypatch, settings):
    """Function that writes a benchmark file and runs the command on it."""
    recbole_folder(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "planted.py").write_text(PLANTED)

    def call(*words, model="VBPR", **content):
        quick = {"epochs": 1, "embedding_size": 8, "topk": [5, 10], "valid_metric": "Recall@5"}
        grid = {"dataset": ["tiny"], "model": [model], "seed": [1]}
        content = {**content, "grid": grid, "settings": {**quick, **content.get("settings", {})}}
        Path("mine.yaml").write_text(yaml.safe_dump(content))
        cli.main(["benchmark", "mine.yaml", "--data-path", "data", *words])

    yield call
    sys.modules.pop("planted", None)


@pytest.mark.parametrize("words", [("--dry-run",), ()], ids=["dry run", "run"])
@pytest.mark.parametrize("setting", ["learning_rate", "embedding_size", "seed", "valid_metric"])
def test_settings_of_a_benchmark_file_are_data(bench, capsys, words, setting):
    with pytest.raises(SystemExit) as stopped:
        bench(*words, settings={setting: CODE}) if setting != "seed" else bench(
            *words, "--set", f"weight_decay={CODE}"
        )
    assert stopped.value.code == 2
    assert "must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "planted:Evil"},
        {"settings": {"imputation": "planted:Filler"}},
        {"settings": {"metrics": ["Recall", "planted:Metric"]}},
        {"settings": {"metrics": "['Recall', 'planted:Metric']"}},
        {"search": {"space": {"imputation": ["planted:Filler"]}}},
        {"cases": [{"model": "VBPR", "settings": {"imputation": "planted:Filler"}}]},
    ],
    ids=str,
)
def test_a_dry_run_imports_nothing(bench, capsys, changes):
    bench("--dry-run", **changes)
    assert "planted" not in sys.modules
    out = capsys.readouterr().out
    assert "(not looked up: it names code that is not imported yet)" in out


def test_a_dry_run_looks_up_what_is_imported_or_harmless(bench, capsys, tmp_path):
    (tmp_path / "planted.py").write_text(PLANTED.replace('Path("pwned").touch()', ""))
    bench("--dry-run", model="VBPR")
    assert "seed=1 (to do)" in capsys.readouterr().out
    import planted  # noqa: F401

    bench("--dry-run", model="planted:Evil")
    assert "model=planted:Evil seed=1 (to do)" in capsys.readouterr().out


def test_a_report_imports_nothing(bench, capsys, tmp_path):
    (tmp_path / "planted.py").write_text(PLANTED.replace('Path("pwned").touch()', ""))
    bench(model="planted:Evil", settings={"imputation": "planted:Filler"})
    sys.modules.pop("planted")
    for registry in (MODELS, IMPUTERS):
        registry._given.clear()
    (tmp_path / "planted.py").write_text(PLANTED)
    cli.main(["report", "mine.jsonl", "--no-figures", "--benchmark", "mine.yaml"])
    assert "planted" not in sys.modules


@pytest.mark.parametrize(
    "own",
    [{"imputation": "planted:Filler"}, {"metrics": ["planted:Metric"]}, {"model": "planted:Evil"}],
    ids=str,
)
def test_the_file_of_a_data_set_folder_imports_nothing(bench, capsys, tmp_path, own):
    """Whoever made the folder chose the class, not the user who opens it."""
    (file,) = (tmp_path / "data" / "tiny").glob("*.yaml")
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **own}))
    answers = [
        refused(capsys, "impute", "data/tiny", "--method", "mean", "--output", "out"),
        refused(capsys, "export", "mmrec", "data/tiny", "--output", "out"),
    ]
    with pytest.raises(SystemExit):
        bench()
    answers.append(capsys.readouterr().err)
    assert "planted" not in sys.modules
    for answer in answers:
        assert "must be a name, got 'planted:" in answer and file.name in answer


def test_a_search_space_is_data(bench, capsys, tmp_path):
    space = tmp_path / "space.hyper"
    for line in (f"learning_rate choice [{CODE}]", f"learning_rate choice {'[' * 9999}"):
        space.write_text(line)
        with pytest.raises(SystemExit):
            bench("--dry-run", "--space", str(space))
        assert "space.hyper, line 1: must read `name kind values`" in capsys.readouterr().err
