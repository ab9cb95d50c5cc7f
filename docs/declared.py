"""The parts of the reference that are made from what the package declares.

Two functions return Markdown: :func:`settings` and :func:`commands`. They need the package and
nothing of Sphinx. As a Sphinx extension this module puts their text into pages, in place of a line
``<!-- generated: settings -->`` or ``<!-- generated: commands -->``. Nothing is written to disk.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from recbole_missing import cli, run_settings
from recbole_missing.config import defaults, of_recbole
from recbole_missing.data.sources import KINDS, modality_settings
from recbole_missing.imputation import IMPUTERS, imputer_settings
from recbole_missing.model import MODELS

_BANNER = re.compile(r"^# -{10,} (.+)$")
_LINE = re.compile(r"^(\w+):[^#]*(?:#\s*(.*))?$")
_OF_A_MODALITY = re.compile(r"^#   (NAME_\w+)\s+(.*)$")
_TYPE = re.compile(r"^(?:\((.+?)\)[,;]?|(\w[\w >=<,.\[\]|()]*?):)\s+")


def settings() -> str:
    """Every setting: what it must be, its default, its meaning, and what reads it."""
    parts = [_general(), _of_modalities(), _shared(), *map(_of_model, MODELS), _of_datasets()]
    return "\n\n".join(parts)


def commands() -> str:
    """Every command and sub-command, with all arguments and options."""
    return "\n\n".join(_command(parser) for parser in _parsers(cli.parser()))


# ------------------------------------------------------------------------------------- settings


def words_of_runs() -> dict[str, str]:
    """What the settings of a run must be: ours, those of imputers, RecBole's."""
    of_recboles = {**of_recbole.OF_RUNS, **of_recbole.OF_DATA, **of_recbole.OF_TRAINING}
    found = {key: [str(rule)] for key, rule in of_recboles.items()}
    found |= {key: [str(rule)] for key, rule in run_settings.package_settings().items()}
    for name in IMPUTERS:
        for key, rule in imputer_settings(name).items():
            found.setdefault(key, []).extend(str(rule).split(", or "))
    return {key: ", or ".join(dict.fromkeys(words)) for key, words in found.items()}


def comments(path: Path) -> dict[str, str]:
    """Setting -> comment behind it in a YAML file, up to ``presets``; empty where there is none."""
    lines = path.read_text(encoding="utf-8").split("\npresets:")[0].splitlines()
    found = (_LINE.match(line) for line in lines)
    return {match[1]: (match[2] or "").strip() for match in found if match}


def _general() -> str:
    path = defaults.root() / "overall.yaml"
    values, words, texts = defaults.load(path), words_of_runs(), comments(path)
    readers: dict[str, list[str]] = {}
    for name in IMPUTERS:
        for key in imputer_settings(name):
            readers.setdefault(key, []).append(name)
    parts, rows = ["## Settings of every run"], []
    for line in path.read_text(encoding="utf-8").splitlines():
        banner, setting = _BANNER.match(line), _LINE.match(line)
        if banner:
            parts += [_settings_table(rows, "read by")] if rows else []
            parts.append(f"### {banner[1].strip().capitalize()}")
            rows = []
        elif setting:
            key = setting[1]
            who = ", ".join(f"`{name}`" for name in readers.get(key, ())) or "every run"
            rows.append([*_row(key, words.get(key), values[key], texts[key]), who])
    return "\n\n".join([*parts, _settings_table(rows, "read by")])


def _of_modalities() -> str:
    glossary = {key: text.replace(*_encoders(key)) for key, text in _glossary().items()}
    rows = []
    for key, rule in modality_settings("NAME").items():
        kind = key[len("NAME_") :]
        owners = [name for name, one in KINDS.items() if kind == name or kind in one.companions]
        who = ", ".join(f"`NAME_{name}`" for name in owners) or "every source"
        words = str(rule).removesuffix(", or empty")
        rows.append([f"`{key}`", words, _without_type(glossary.get(key, "")), who])
    text = (
        "## Settings of a modality\n\nEach modality NAME in `modalities` has settings of its own. "
        "Their names begin with its name, such as `image_features`. All are empty by default."
    )
    return f"{text}\n\n{_table(['setting', 'must be', 'meaning', 'belongs to'], rows)}"


def _encoders(key: str) -> tuple[str, str]:
    """How the glossary names the defaults of a setting of encoders, and the values themselves."""
    kind = key.removeprefix("NAME_")
    file = defaults.load(defaults.root() / "encoders.yaml")
    values = {name: one[kind] for name, one in file.items() if kind in one}
    alike = len(set(values.values())) == 1
    words = [f"`{value}`" if alike else f"`{value}` ({name})" for name, value in values.items()]
    return "default in encoders.yaml", f"default: {', '.join(words[:1] if alike else words)}"


def _glossary() -> dict[str, str]:
    """Setting of a modality -> its line in the glossary, continuation lines joined."""
    found: dict[str, str] = {}
    last = ""
    for line in (defaults.root() / "overall.yaml").read_text(encoding="utf-8").splitlines():
        match = _OF_A_MODALITY.match(line)
        if match:
            last = match[1]
            found[last] = match[2].strip()
        elif last and re.match(r"^# {8,}\S", line):
            found[last] += " " + line.lstrip("# ").strip()
        else:
            last = ""
    return found


def _shared() -> str:
    """Which models read a setting, for the settings that several models declare."""
    readers: dict[str, list[str]] = {}
    for name, model in MODELS.items():
        for key in model.hyperparameters:
            readers.setdefault(key, []).append(name)
    rows = [
        [f"`{key}`", ", ".join(f"[{name}](#{name.lower()})" for name in names)]
        for key, names in sorted(readers.items())
        if len(names) > 1
    ]
    text = (
        "## Settings of models\n\nA setting of the same name has the same meaning in every model. "
        "These settings are read by several models:"
    )
    return f"{text}\n\n{_table(['setting', 'models'], rows)}"


def _of_model(name: str) -> str:
    path = defaults.root() / "model" / f"{name}.yaml"
    values, texts = defaults.read("model", name), comments(path)
    presets = values.pop("presets", {})
    own = {key: str(rule) for key, rule in MODELS[name].hyperparameters.items()}
    words = {**words_of_runs(), **own}
    rows = [_row(key, words.get(key), value, texts.get(key, "")) for key, value in values.items()]
    parts = [f"### {name}", _settings_table(rows)]
    if presets:
        parts.append(f"Presets of {name} (`preset`):")
        parts.append(
            _table(["preset", "values"], [[f"`{k}`", _flow(v)] for k, v in presets.items()])
        )
    return "\n\n".join(parts)


def _of_datasets() -> str:
    parts = [
        "## Settings of data sets",
        "These hold for a data set of that name, unless a config file says otherwise.",
    ]
    for name in defaults.names("dataset"):
        rows = [
            [f"`{key}`", f"`{yaml_text(value)}`"]
            for key, value in defaults.read("dataset", name).items()
        ]
        parts += [f"### {name}", _table(["setting", "value"], rows)]
    return "\n\n".join(parts)


def _row(key: str, words: str | None, default: Any, comment: str) -> list[str]:
    kind = _TYPE.match(comment)
    if words is None:
        words = (kind[1] or kind[2]) if kind else ""
    return [
        f"`{key}`",
        words,
        f"`{yaml_text(default)}`",
        _without_type(comment) or "RecBole's setting",
    ]


def _without_type(comment: str) -> str:
    return _TYPE.sub("", comment)


def _settings_table(rows: Iterable[list[str]], *further: str) -> str:
    return _table(["setting", "must be", "default", "meaning", *further], rows)


def yaml_text(value: Any) -> str:
    """A value as one writes it in YAML, on one line."""
    if value is None:
        return "~"
    if isinstance(value, bool):
        return str(value)
    return (
        yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    )


def _flow(values: Mapping[str, Any]) -> str:
    """Values of a preset, and those that hold for a number of modalities alone."""
    paths = values.get(defaults.BY_MODALITIES, {})
    plain = {key: value for key, value in values.items() if key != defaults.BY_MODALITIES}
    parts = [", ".join(f"`{key}: {yaml_text(value)}`" for key, value in plain.items())]
    parts += [f"with {number} modalities {_flow(path)}" for number, path in paths.items()]
    return "; ".join(parts)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [[*head], *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ------------------------------------------------------------------------------------- commands


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of the commands, each before those of its sub-commands."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name in action.choices:
                found += [action.choices[name], *_parsers(action.choices[name])]
    return found


def _command(parser: argparse.ArgumentParser) -> str:
    level = "#" * len(parser.prog.split())
    parts = [f"{level} {parser.prog}", _plain(parser.description or "")]
    rows: dict[str, list[list[str]]] = {}
    for group in parser._action_groups:
        title = "" if group in (parser._positionals, parser._optionals) else group.title or ""
        actions = [action for action in group._group_actions if action.dest != "help"]
        rows.setdefault(title, []).extend(map(_argument, actions))
    for title, found in rows.items():
        parts.append(_plain(f"{title[:1].upper()}{title[1:]}:") if title else "")
        parts.append(_table(["argument", "meaning"], found) if found else "")
    return "\n\n".join(part for part in parts if part)


def _argument(action: argparse.Action) -> list[str]:
    if isinstance(action, argparse._SubParsersAction):
        names = ", ".join(f"`{name}`" for name in action.choices)
        return [f"`{action.metavar or action.dest}`", f"one of {names}; see below"]
    value = action.metavar or (
        "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
    )
    if not action.option_strings:
        return [f"`{action.metavar or action.dest}`", _help(action) + _choices(action)]
    shown = "" if action.nargs == 0 else f" {value}"
    if action.nargs == "?":
        shown = f" [{value}]"
    elif action.nargs in ("+", "*"):
        shown = f" {value} ..."
    names = ", ".join(f"`{name}`" for name in action.option_strings[:-1])
    return [f"{names}{', ' if names else ''}`{action.option_strings[-1]}{shown}`", _help(action)]


def _plain(text: str) -> str:
    """Markdown that shows a text of the command line as it is; code in backquotes stays code."""
    outside = re.split(r"(`[^`]*`)", text)
    outside[::2] = [re.sub(r"[\\<*\[]", r"\\\g<0>", part) for part in outside[::2]]
    return "".join(outside)


def _choices(action: argparse.Action) -> str:
    return f": {', '.join(map(str, action.choices))}" if action.choices else ""


def _help(action: argparse.Action) -> str:
    text = _plain((action.help or "") % {**vars(action), "prog": "recbole-missing"})
    default = action.default
    plain = default not in (None, False, [], "") and default is not argparse.SUPPRESS
    if plain and "default" not in text:
        text += f" (default: {default})" if text else f"default: {default}"
    return f"{text} (required)" if action.required and action.option_strings else text


# --------------------------------------------------------------------------------------- Sphinx

GENERATED = {"settings": settings, "commands": commands}


def fill(text: str) -> str:
    """Put the generated parts in place of their marks."""
    for name, made in GENERATED.items():
        mark = f"<!-- generated: {name} -->"
        if mark in text:
            text = text.replace(mark, made())
    return text


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""

    def read(app: Any, name: str, source: list[str]) -> None:
        source[0] = fill(source[0])

    app.connect("source-read", read)
    return {"version": "1", "parallel_read_safe": True}
