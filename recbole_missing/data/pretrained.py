"""Models of the sentence-transformers library, which encode a text or a picture as it is.

They learn nothing here. The library is imported when something is to be encoded. Only weights are
loaded: files that name other code are refused (:func:`check_folder`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from logging import getLogger
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch

from recbole_missing import identity
from recbole_missing.memory import fits
from recbole_missing.parallel import Serial

VERSION = 1
"""A change of what :meth:`Pretrained.encode` gives needs a new version."""

_BATCH = {"cpu": 32, "cuda": 128}  # a larger one is no faster on a CPU
_BLOCK = 1024  # texts that are encoded between two steps of the progress bar
_PICTURES = 32  # that are held at a time, at their full size
_PIXELS = 2**26  # that are held at a time, unless one picture alone has more
_UNREAD = (
    ".bin", ".ckpt", ".gguf", ".h5", ".jpg", ".md", ".msgpack", ".onnx", ".ot", ".pkl", ".png",
    ".pt", ".pth", ".py",
)  # fmt: skip
_PICKLED = "pytorch_model.bin"
_WHOLE = ("model.safetensors", "model.safetensors.index.json")
_OTHER_BACKENDS = ("onnx", "openvino")
_MODULES = frozenset({
    "CLIPModel", "Dense", "Dropout", "LayerNorm", "Normalize", "Pooling", "StaticEmbedding",
    "Transformer",
})  # fmt: skip
_FORCED = {"TOKENIZERS_PARALLELISM": "false", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


def check_installed(name: str) -> None:
    """Refuse to go on without the library.

    Raises:
        ValueError: with the command that installs it.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ValueError(
            f"{name}: the encoders sentence and clip need the library sentence-transformers, got "
            'none; run `python -m pip install "recbole-missing[encode]"` (in a checkout: '
            '`python -m pip install ".[encode]"`).'
        )


class Pretrained:
    """A model of sentence-transformers. It is loaded when it first encodes something.

    Args:
        name: the modality.
        model: a folder, or a name on huggingface.co. A name without a slash belongs to
            ``sentence-transformers/``. A model that is not in the cache of ``huggingface_hub`` yet
            is downloaded.
        base: folder that a relative path starts from.
        device: where it runs.
        progress: show a bar after three seconds.

    Attributes:
        key: digest of the files of the model. So a model has the same key wherever it lies.

    Raises:
        ValueError: if the library is absent, there is no such model, or :func:`check_folder`
            refuses it.
    """

    def __init__(
        self, name: str, model: str, base: Path, device: Any = "cpu", progress: bool = False
    ) -> None:
        """Find the model; it is not loaded yet."""
        check_installed(name)
        self.name, self.model, self.device = name, model, torch.device(device)
        self._engine = Serial(progress, delay=3.0)
        self._folder = _folder_of(name, model, base)
        self._pickled = check_folder(f"{name}: {name}_model {model}", self._folder)
        self.key = _digest(self._folder)

    def texts(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """Encode texts one block after the other; yield a row for each, float32 ``(dim,)``.

        A text that is too long is cut, as the library does; a log line counts such texts.

        Raises:
            ValueError: if the model encodes no texts.
        """
        with self._apart():
            self._try("text", "a")
            blocks = [texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK)]
            yield from self._encode(blocks, self._reader(len(texts)))

    def pictures(self, files: Sequence[tuple[Path, bytes]]) -> Iterator[np.ndarray]:
        """Encode pictures one block after the other; yield a row for each, float32 ``(dim,)``.

        Args:
            files: path of each picture, and the digest that its content must have.

        Raises:
            ValueError: if the model encodes no pictures, or a file has changed by now.
        """
        from PIL import Image

        from recbole_missing.data import pictures

        with self._apart():
            self._try("picture", Image.new("RGB", (8, 8)))
            sizes = [pictures.n_pixels(path) for path, _ in files]
            yield from self._encode(_blocks_of_pictures(files, sizes), pictures.read_again)

    @cached_property
    def _loaded(self) -> Any:
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(
                str(self._folder),
                device=str(self.device),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={} if self._pickled else {"use_safetensors": True},
            )
        except Exception as error:  # the library and the files lead to any exception
            raise ValueError(
                f"{self.name}: {self.name}_model must be a model that sentence-transformers can "
                f"load, got {self.model}: {_reason(error)}; choose another one, or save it again."
            ) from error

    def _try(self, kind: str, content: Any) -> None:
        model = self._loaded
        try:
            model.encode([content], show_progress_bar=False)
        except Exception as error:  # as above; what is wrong later is no mistake of the user
            raise ValueError(
                f"{self.name}: {self.name}_model must encode a {kind}, got {self.model}, which "
                f"does not ({_reason(error)}); choose another one."
            ) from error

    def _encode(self, blocks: Sequence[Any], read: Any) -> Iterator[np.ndarray]:
        shared = self._loaded, read, self._batch
        label = f"{self.name}: {self.model}"
        with fits(f"{label}: encoding", {}):
            for rows in self._engine.map(_encoded, shared, blocks, label):
                if not np.isfinite(rows).all():
                    raise ValueError(
                        f"{self.name}: {self.name}_model must give finite numbers, got NaN or inf "
                        f"from {self.model}; choose another one."
                    )
                yield from rows

    def _reader(self, total: int) -> Callable[[Sequence[str]], list[str]]:
        """Return a reader of blocks of texts. With the last one it says how many texts are cut."""
        from transformers import PreTrainedTokenizerBase

        tokenizer, longest = self._loaded.tokenizer, self._loaded.max_seq_length
        if longest is None or not isinstance(tokenizer, PreTrainedTokenizerBase):
            return list
        seen = cut = 0

        def read(block: Sequence[str]) -> list[str]:
            nonlocal seen, cut
            ids = tokenizer(list(block), truncation=False, verbose=False)["input_ids"]
            seen, cut = seen + len(block), cut + sum(len(words) > longest for words in ids)
            if cut and seen == total:
                getLogger().warning(
                    f"{self.name}: {cut:,} of {total:,} texts are longer than the {longest} tokens "
                    f"that {self.model} reads; the rest of them is not read."
                )
            return list(block)

        return read

    @property
    def _batch(self) -> int:
        return _BATCH.get(self.device.type, _BATCH["cpu"])

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Leave the generators of the run, its environment and its bars as they are."""
        from transformers.utils import logging

        from recbole_missing.imputation.base import fixed_generators

        before = {key: os.environ.get(key) for key in _FORCED}
        bars = logging.is_progress_bar_enabled()
        os.environ.update(_FORCED)
        logging.disable_progress_bar()
        try:
            with fixed_generators():
                yield
        finally:
            for key, value in before.items():
                os.environ.pop(key)
                if value is not None:
                    os.environ[key] = value
            if bars:
                logging.enable_progress_bar()


def _blocks_of_pictures(
    files: Sequence[tuple[Path, bytes]], sizes: Sequence[int]
) -> list[Sequence[tuple[Path, bytes]]]:
    """Split pictures so that those of a block can be held in memory together.

    Args:
        files: as of :meth:`Pretrained.pictures`.
        sizes: number of pixels of each.
    """
    blocks: list[list[tuple[Path, bytes]]] = []
    held = 0
    for file, size in zip(files, sizes):
        if not blocks or len(blocks[-1]) == _PICTURES or held + size > _PIXELS:
            blocks.append([])
            held = 0
        blocks[-1].append(file)
        held += size
    return list(blocks)


def _encoded(model: Any, read: Any, batch: int, block: Sequence[Any]) -> np.ndarray:
    found = model.encode(
        read(block), batch_size=batch, show_progress_bar=False, convert_to_numpy=True
    )
    return np.asarray(found, dtype=np.float32)


# --------------------------------------------------------------------------- the files of a model


def check_folder(who: str, folder: Path) -> bool:
    """Refuse a model whose files name code, or hold weights that could run some.

    Weights are read from safetensors. A ``pytorch_model.bin`` without ``model.safetensors`` beside
    it is a pickle. It is read with ``weights_only``, which creates nothing but tensors, and only by
    torch 2.6 or later, because the check of earlier versions can be evaded (CVE-2025-32434).

    Args:
        who: begins the message.
        folder: a model in the format of sentence-transformers or transformers.

    Returns:
        Whether a pickle has to be read.

    Raises:
        ValueError: if it is not such a folder, or for the reasons above.
    """
    if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
        raise ValueError(
            f"{who} must be a folder with modules.json or config.json, got {folder} without; save "
            "the model there with SentenceTransformer.save."
        )
    _check_modules(who, folder)
    pickled = [
        path
        for path in model_files(folder)
        if path.name == _PICKLED and not any((path.parent / name).is_file() for name in _WHOLE)
    ]
    if pickled and tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < (2, 6):
        raise ValueError(
            f"{who} must have model.safetensors, got only the pickle {pickled[0]}, which torch "
            f"{torch.__version__} cannot read safely; save the model again, or use torch >= 2.6."
        )
    return bool(pickled)


def _check_modules(who: str, folder: Path) -> None:
    """Refuse classes that are none of the library, or activations that are none of torch."""
    for module in _content(who, folder / "modules.json", []):
        kind = str(module.get("type")) if isinstance(module, Mapping) else str(module)
        package, _, last = kind.rpartition(".")
        if not package.startswith("sentence_transformers.") or last not in _MODULES:
            raise ValueError(
                f"{who} must consist of {', '.join(sorted(_MODULES))} of sentence-transformers, "
                f"got {kind} in modules.json, and no code of a model is run; choose another model."
            )
        place = str(module.get("path", ""))
        if ".." in re.split(r"[/\\]", place) or PureWindowsPath(place).anchor or ":" in place:
            raise ValueError(
                f"{who} must consist of files in its folder, got the path {place!r} in "
                "modules.json; copy them there, or choose another model."
            )
    for path in (path for path in model_files(folder) if path.name == "config.json"):
        activation = str(_content(who, path, {}).get("activation_function", "gelu"))
        if not re.fullmatch(r"torch\.nn\.(modules\.\w+\.)?\w+|\w+", activation):
            raise ValueError(
                f"{who} must have an activation of torch.nn, got {activation} in {path}, and no "
                "code of a model is run; choose another model."
            )


def _content(who: str, path: Path, default: Any) -> Any:
    """Content of a JSON file, of the kind of ``default``, which is that of an absent file."""
    if not path.is_file():
        return default
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, type(default)):
            raise ValueError(f"a {type(content).__name__}")
    except (ValueError, OSError) as error:
        raise ValueError(f"{who} must have a whole {path}, got: {error}; copy it again.") from error
    return content


def model_files(folder: Path) -> list[Path]:
    """Files of a model, sorted. Links to folders are followed, as the library does.

    Raises:
        ValueError: if links lead to one folder twice, or for ever, or a file cannot be read to an
            end, as a named pipe.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    for top, _, names in os.walk(folder, followlinks=True):
        real = Path(top).resolve()
        if real in seen:
            raise ValueError(
                f"{folder}: a model must hold a folder once, got {top} as a link to {real}, which "
                "it holds too; replace the link by a copy, or remove it."
            )
        seen.add(real)
        found += [path for name in names if (path := Path(top, name)).exists()]
    odd = [path for path in found if not path.is_file()]
    if odd:
        raise ValueError(f"{folder}: a model must consist of files, got {odd[0]}; remove it.")
    return sorted(found)


def _digest(folder: Path) -> str:
    """Digest of the names and contents of the files that decide what a model gives."""
    found = []
    for path in model_files(folder):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") or part in _OTHER_BACKENDS for part in place.parts)
        replaced = any((path.parent / name).is_file() for name in _WHOLE)
        read = path.suffix not in _UNREAD or (path.name == _PICKLED and not replaced)
        if read and not hidden:
            state = path.stat()
            content = _digest_of_file(path.resolve(), state.st_mtime_ns, state.st_size)
            found.append([place.as_posix(), content])
    return identity.digest(found)


@cache
def _digest_of_file(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return identity.of_blocks(iter(lambda: file.read(1 << 20), b""))


def _folder_of(name: str, model: str, base: Path) -> Path:
    """Folder of a model, downloaded if it is a name and not there yet."""
    local = base / Path(model).expanduser()
    if local.is_dir():
        return local
    repository = _repository(model)
    if repository is None:
        raise ValueError(
            f"{name}: {name}_model must be a folder or the name of a model, got {model}, and there "
            f"is no folder {local}; correct the path."
        )
    try:
        return _downloaded(repository)
    except Exception as error:  # of the hub, of the network, of its proxy
        raise ValueError(
            f"{name}: {name}_model must be a folder or a model that huggingface.co has, got "
            f"{model}: there is no folder {local}, and it cannot be downloaded "
            f"({_reason(error)}); correct the name, or download the model on a machine with "
            f"network access (`hf download {repository} --local-dir FOLDER`), copy the folder here "
            f"and set {name}_model to its path."
        ) from error


def is_here(model: str, base: Path) -> bool:
    """Tell whether a model is a folder or was downloaded before. Nothing is downloaded.

    Args:
        model, base: as of :class:`Pretrained`.
    """
    if (base / Path(model).expanduser()).is_dir():
        return True
    repository = _repository(model)
    if repository is None or importlib.util.find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, local_files_only=True)).is_dir()
    except Exception:  # of any kind, where it is not there
        return False


def _repository(model: str) -> str | None:
    """Owner and name of a model on huggingface.co; None if it is no such name."""
    words = model.split("/")
    if len(words) > 2 or not all(re.fullmatch(r"\w[\w.-]*", word) for word in words):
        return None
    return model if len(words) == 2 else f"sentence-transformers/{model}"


def _downloaded(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    unread = [f"*{suffix}" for suffix in _UNREAD] + [f"{part}/*" for part in _OTHER_BACKENDS]
    folder = Path(snapshot_download(repository, ignore_patterns=unread))
    if not any(folder.rglob("*.safetensors")):
        snapshot_download(repository, allow_patterns=[f"*{_PICKLED}"])
    return folder


def _reason(error: BaseException) -> str:
    """The first line of an exception, shortened, or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
