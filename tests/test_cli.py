"""The command line: what it imports, what it refuses in one line, what keeps its traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from folders import in_new_process

from recbole_missing import cli, environment
from recbole_missing.commands import doctor

HEAVY = ("torch", "recbole", "numpy", "scipy", "pandas", "ray", "yaml", "tabulate")


def test_help_imports_the_standard_library_alone(tmp_path):
    code = f"""
import sys
from recbole_missing import cli, environment
for words in (["--help"], *([command, "--help"] for command in cli.COMMANDS)):
    try:
        cli.main(words)
    except SystemExit as end:
        assert end.code == 0
print("HEAVY", [name for name in {HEAVY} if name in sys.modules])
"""
    output = in_new_process(code, tmp_path)
    assert output.splitlines()[-1] == "HEAVY []"
    assert all(f"usage: recbole-missing {command}" in output for command in cli.COMMANDS)


def fails_with(monkeypatch, error):
    def execute(known):
        error()

    monkeypatch.setattr(doctor, "execute", execute)


def ours():
    cli.COMMANDS["impute"][0]._check(
        type("Known", (), {"source": None, "interactions": None})()  # raises ValueError
    )


def of_recbole():
    from recbole.config import Config

    Config("BPR", "ml-100k", config_dict={"eval_args": 3})


def of_the_system():
    Path("/no/such/file").read_text()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ours, "error: impute: must be given a data set or --interactions; add or drop one.\n"),
        (of_recbole, "error: eval_args:[3] should be a dict.\n"),
        (of_the_system, "error: [Errno 2] No such file or directory: '/no/such/file'\n"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_the_user_can_mend_ends_in_one_line(monkeypatch, capsys, error, message):
    fails_with(monkeypatch, error)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    assert ended.value.code == 2 and capsys.readouterr().err.endswith(message)


def interrupted():
    raise KeyboardInterrupt("the best epoch so far is in saved/a.pth")


def interrupted_early():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (interrupted, "interrupted: the best epoch so far is in saved/a.pth\n"),
        (interrupted_early, "interrupted\n"),
    ],
)
def test_an_interrupt_ends_in_one_line(monkeypatch, capsys, error, message):
    fails_with(monkeypatch, error)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    assert ended.value.code == 130 and capsys.readouterr().err == message


def test_a_broken_pipe_that_is_not_the_output_is_no_silent_end(monkeypatch, capsys):
    def broken():
        raise BrokenPipeError("of a worker")

    fails_with(monkeypatch, broken)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    assert ended.value.code == 2 and capsys.readouterr().err == "error: of a worker\n"


def in_torch():
    import torch

    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=-1)


def in_an_expression_of_ours():
    exec("int('x')", {"__name__": "recbole_missing.made_up"})


def of_another_kind():
    raise KeyError("n_layers")


@pytest.mark.parametrize("error", [in_torch, in_an_expression_of_ours, of_another_kind])
def test_a_bug_keeps_its_traceback(monkeypatch, error):
    fails_with(monkeypatch, error)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        cli.main(["doctor"])
    assert not isinstance(raised.value, SystemExit)


def test_an_absent_requirement_says_what_to_install(monkeypatch, capsys):
    def absent():
        raise ImportError("No module named 'tabulate'")

    monkeypatch.setattr(environment, "problems", lambda: ["MISSING tabulate: pip install t"])
    fails_with(monkeypatch, absent)
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    message = "error: No module named 'tabulate'; MISSING tabulate: pip install t\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("absent", ["packaging", "yaml"])
def test_a_bare_environment_is_told_what_to_install(monkeypatch, capsys, absent):
    """The lines that name absent packages need none of them."""
    read, loaded = environment.metadata.version, [n for n in sys.modules if n.startswith(absent)]
    for name in {absent, *loaded, "recbole_missing.config.check"}:
        monkeypatch.setitem(sys.modules, name, None)

    def version(name):
        if name == "recbole":
            raise environment.metadata.PackageNotFoundError(name)
        return read(name)

    def imports():
        raise ImportError(f"No module named {absent!r}")

    monkeypatch.setattr(environment.metadata, "version", version)
    fails_with(monkeypatch, imports)
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    message = capsys.readouterr().err
    assert message.count("MISSING packaging") == (absent == "packaging")
    assert message.count(f"MISSING recbole: {environment.INSTALL_RECBOLE}") == 1
