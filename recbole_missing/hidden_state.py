"""What training changes in a model beside its parameters and persistent buffers.

A model may count batches, keep tensors that are no buffers, or own a random generator. A checkpoint
from which a run goes on exactly must hold these, too. They are found by comparing the model with
what it was before training. So a model needs no code of its own.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recbole_missing import identity
from recbole_missing.graph.sparse import FORMATS

_INTERNAL = frozenset(vars(nn.Module()))
# RecBole's models make these anew in every epoch.
_REMADE = frozenset({"sub_graph1", "sub_graph2", "restore_user_e", "restore_item_e"})
_LIBRARIES = ("recbole", "torch", "logging", "pandas", "enum", "pathlib")
_SMALL = 4096  # numbers of a tensor whose content is compared
# RecBole's base classes take these from the data set; training never changes them.
_OF_DATA = frozenset({"USER_ID", "ITEM_ID", "NEG_ITEM_ID", "n_users", "n_items"})
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class HiddenState:
    """Compares a model with what it was when this object was made.

    Args:
        model: any module. Attributes that its classes, or those of its parts, name in ``remade``
            do not count.
    """

    def __init__(self, model: nn.Module) -> None:
        """Note what all attributes are before training."""
        self._model = model
        found = dict(_attributes(model))
        self._before = {path: _token(value) for path, value in found.items()}
        self._held = found  # a token may be an id, which must not be given to another object

    def changed(self) -> tuple[dict[str, Any], list[str]]:
        """Attributes that differ from those before training.

        Returns:
            Path of an attribute -> its value as tensors and plain values, for :meth:`restore`; and
            the paths of those that no checkpoint can hold.
        """
        values: dict[str, Any] = {}
        lost = []
        for path, value in _attributes(self._model):
            if self._before.get(path) != _token(value):
                try:
                    values[path] = _packed(value)
                except TypeError:
                    lost.append(f"{path} ({type(value).__name__})")
        return values, lost

    def restore(
        self, values: Mapping[str, Any], device: torch.device | str, file: str = "checkpoint"
    ) -> None:
        """Put values that :meth:`changed` returned into the model.

        Args:
            values: path of an attribute -> value.
            device: where tensors go that the model does not have yet.
            file: path of the checkpoint, for messages.

        Raises:
            ValueError: for a path that training does not change (parameters, methods, sizes of the
                data), and for a value that :meth:`changed` does not return.
        """
        known = dict(_attributes(self._model))
        modules = dict(self._model.named_modules())
        for path in values:
            if path not in known and not _is_new(modules, path):
                raise ValueError(
                    f"{file}: hidden must hold attributes that training changes, got "
                    f"{str(path)!r}; train again."
                )
        for path, value in values.items():
            prefix, _, name = path.rpartition(".")
            module, old = modules[prefix], known.get(path)
            try:
                restored = _unpacked(value, old, device)
                if name in module._buffers:
                    module._buffers[name] = _tensor(restored)
                elif restored is not old:
                    setattr(module, name, restored)
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError,
                    ValueError) as error:  # fmt: skip
                raise ValueError(
                    f"{file}: hidden must hold values as training leaves them, got a bad {path} "
                    f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); train again."
                ) from error


def _is_new(modules: Mapping[str, nn.Module], path: Any) -> bool:
    """Tell whether a path leads to an attribute that the model has not yet; training may make it.

    Methods, parameters and properties are attributes that it has.
    """
    prefix, dot, name = str(path).rpartition(".")
    fits = dot and prefix in modules and name.isidentifier() and not name.startswith("__")
    return bool(fits) and name not in _REMADE and not hasattr(modules[prefix], name)


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, (Tensor, type(None))):
        return value
    raise TypeError(f"a buffer must be a tensor, got a {type(value).__name__}")


def _attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Path and value of everything in a model that its ``state_dict`` does not hold."""
    for prefix, module in model.named_modules():
        remade = {name for kind in type(module).__mro__ for name in vars(kind).get("remade", ())}
        left_out = _INTERNAL | _REMADE | _OF_DATA | remade
        passing = {name: module._buffers.get(name) for name in module._non_persistent_buffers_set}
        for name, value in {**vars(module), **passing}.items():
            if name not in left_out and not callable(value):
                yield f"{prefix}.{name}", value


def _token(value: Any, depth: int = 3) -> Any:
    """A value that differs after a change of ``value``; large values are not copied.

    A large tensor that is changed behind the back of autograd (``.data``) looks unchanged.
    """
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return type(value).__name__, repr(value)
    if isinstance(value, Tensor):
        small = (
            value.numel() <= _SMALL and value.device.type == "cpu" and value.layout == torch.strided
        )
        content = identity.digest(value.detach()) if small else None
        return id(value), None if value.is_inference() else value._version, content
    if isinstance(value, np.generic) or _is_array(value):
        return identity.digest(np.asarray(value) if isinstance(value, np.generic) else value)
    if isinstance(value, _GENERATORS):
        return identity.digest(_generator_state(value))
    if isinstance(value, Mapping):
        return [(_token(key, depth), _token(item, depth)) for key, item in value.items()]
    if isinstance(value, np.ndarray):  # of objects
        return [_token(item, depth) for item in value.ravel().tolist()]
    if isinstance(value, (list, tuple, deque)):
        return [_token(item, depth) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_token(item, depth)) for item in value)
    if isinstance(value, nn.Module):
        return [_token(part, depth) for part in (*value.parameters(), *value.buffers())]
    inner = {} if depth == 0 or _is_foreign(value) else getattr(value, "__dict__", {})
    parts = [(k, _token(part, depth - 1)) for k, part in inner.items() if not callable(part)]
    return id(value), parts


def _is_foreign(value: Any) -> bool:
    """Tell whether an object belongs to a library, whose objects training does not change."""
    return type(value).__module__.partition(".")[0] in _LIBRARIES


def _is_array(value: Any) -> bool:
    plain = isinstance(value, np.ndarray) and not value.dtype.hasobject
    return plain or sparse.issparse(value)


def _packed(value: Any) -> list[Any]:
    """Kind and content of a value, as tensors and plain values.

    Raises:
        TypeError: for an object of another kind.
    """
    if value is None or type(value) in (bool, int, float, str):
        return ["plain", value]
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        return ["tensor", value.detach()]
    if isinstance(value, np.generic) or isinstance(value, np.ndarray) and _is_array(value):
        kind = "array" if isinstance(value, np.ndarray) else "number"
        content = torch.frombuffer(bytearray(value.tobytes() or b"\0"), dtype=torch.uint8)
        return [kind, content, value.dtype.str, list(value.shape)]
    if sparse.issparse(value):
        edges = value.tocoo()
        arrays = [_packed(part) for part in (edges.data, edges.row, edges.col)]
        return ["sparse", value.format, list(value.shape), *arrays]
    if isinstance(value, _GENERATORS):
        return ["generator", _packed(_generator_state(value))]
    if type(value) in (list, tuple, set):
        return [type(value).__name__, [_packed(item) for item in value]]
    if type(value) is dict:
        return ["dict", [[_packed(key), _packed(item)] for key, item in value.items()]]
    raise TypeError(type(value).__name__)


def _unpacked(value: list[Any], old: Any, device: torch.device | str) -> Any:
    """Reverse :func:`_packed`. A generator keeps its place, for others may hold it too."""
    kind, *content = value
    if kind == "plain":
        return content[0]
    if kind == "tensor":
        return content[0].to(old.device if isinstance(old, Tensor) else device)
    if kind in ("array", "number"):
        array = np.frombuffer(content[0].cpu().numpy().tobytes(), content[1])
        array = array[: math.prod(content[2])].reshape(content[2]).copy()
        return array if kind == "array" else array[()]
    if kind == "sparse":
        form, shape, *arrays = content
        if form not in FORMATS:
            raise ValueError(f"no sparse format: {form!r}")
        data, row, col = (_unpacked(array, None, device) for array in arrays)
        return sparse.coo_matrix((data, (row, col)), shape=shape).asformat(form)
    if kind == "generator":
        if not isinstance(old, _GENERATORS):
            raise TypeError("the state of a generator for something else")
        _set_generator(old, _unpacked(content[0], None, "cpu"))
        return old
    if kind == "dict":
        known = old if isinstance(old, dict) else {}
        pairs = [(_unpacked(key, None, device), item) for key, item in content[0]]
        return {key: _unpacked(item, known.get(key), device) for key, item in pairs}
    known_items = list(old) if isinstance(old, (list, tuple)) else []
    known_items += [None] * (len(content[0]) - len(known_items))
    items = [_unpacked(item, one, device) for item, one in zip(content[0], known_items)]
    return {"list": list, "tuple": tuple, "set": set}[kind](items)


def _generator_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return generator.bit_generator.state


def _set_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        _check_places({"pos": state[2]})
        generator.set_state(state)
    else:
        _check_places(state)
        _check_places(state["state"])
        generator.bit_generator.state = state


def _check_places(state: Any) -> None:
    """Refuse places beyond the memory of a generator of numpy, which would read there."""
    for key, last in (("pos", 624), ("buffer_pos", 4)):
        if isinstance(state, Mapping) and not 0 <= state.get(key, 0) <= last:
            raise ValueError(f"{key} must be between 0 and {last}, got {state[key]!r}")
