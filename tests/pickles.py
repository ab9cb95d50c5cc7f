"""Pickled files as other projects publish them."""

from __future__ import annotations

import pickle

import numpy as np


def save_object(path, value):
    """Write what ``np.save`` writes for an object that it has to pickle."""
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(value if isinstance(value, bytes) else pickled(value))


def pickled(value, protocol=3):
    outer = np.empty((), dtype=object)
    outer[()] = value
    return pickle.dumps(outer, protocol=protocol)


class Call:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        """Store the call."""
        self.call = (function, arguments)

    def __reduce__(self):
        """Return the call."""
        return self.call


class Stateful:
    """Pickles as ``kind`` (module and name) without arguments, with a state."""

    def __init__(self, module, name, state):
        """Store the arguments."""
        self.kind, self.state = (module, name), state

    def dumps(self):
        """Bytes of the pickle, protocol 2."""
        module, name = (part.encode() for part in self.kind)
        state = pickle.dumps(self.state, protocol=2)[2:-1]  # without PROTO and STOP
        # The state's memo begins at 0, and nothing before it uses the memo.
        return b"\x80\x02c" + module + b"\n" + name + b"\n)\x81" + state + b"b."


def python2(module, name, shape, protocol=2, **arrays):
    """A sparse matrix as Python 2 pickles it: text and bytes are byte strings.

    In protocol 0, the default of Python 2, these are quoted text.
    """
    string = _binary if protocol else _quoted
    state = string("_shape") + _integer(shape[0]) + _integer(shape[1]) + b"\x86"
    for key, array in arrays.items():
        state += string(key) + _python2_array(array, string)
    kind = f"c{module}\n{name}\n".encode()
    empty = b"ccopy_reg\n_reconstructor\n(" + kind + b"c__builtin__\nobject\nNtR"
    return (b"\x80\x02" + kind + b")\x81" if protocol else empty) + b"}(" + state + b"ub."


def _python2_array(array, string):
    code = array.dtype.str[1:]
    dtype = b"cnumpy\ndtype\n" + string(code) + b"K\x00K\x01\x87R(K\x03" + string("<")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    built = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string("b")
    shape = _integer(len(array)) + b"\x85"
    return built + b"\x87R(K\x01" + shape + dtype + b"\x89" + string(array.tobytes()) + b"tb"


def _binary(text):
    content = text.encode() if isinstance(text, str) else text
    return b"T" + len(content).to_bytes(4, "little") + content


def _quoted(text):
    content = text.encode() if isinstance(text, str) else text
    return b"S" + repr(content)[1:].encode() + b"\n"


def _integer(value):
    return b"J" + value.to_bytes(4, "little", signed=True)
