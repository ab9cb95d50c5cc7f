"""What a setting may be, scalars of numpy included."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_missing.config.constraints import Bool, Float, Int, ListOf, Optional, check


@pytest.mark.parametrize("value", [3, np.int64(3), np.int32(3), np.uint8(3)])
def test_integers_of_python_and_numpy(value):
    assert Int(min=1, max=3).accepts(value) and Float(min=1).accepts(value)
    assert not Int(min=4).accepts(value) and not Bool().accepts(value)
    assert ListOf(Int()).accepts([value]) and Optional(Int()).accepts(value)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5)])
def test_numbers_of_python_and_numpy(value):
    assert Float(0, 1).accepts(value)
    assert not Int().accepts(value) and not Float(min=1).accepts(value)


@pytest.mark.parametrize("value", [True, False, np.bool_(True), np.bool_(False)])
def test_a_bool_is_no_number(value):
    assert Bool().accepts(value)
    assert not Int().accepts(value) and not Float().accepts(value)


@pytest.mark.parametrize("value", ["3", None, [3], np.float64("nan"), np.inf, np.array([3])])
def test_anything_else_is_no_number(value):
    assert not Int().accepts(value) and not Float().accepts(value) and not Bool().accepts(value)


def test_the_message_says_who_what_and_got():
    with pytest.raises(ValueError, match="featprop: layers must be an int >= 1, got 0"):
        check("featprop", {"layers": np.int64(0)}, {"layers": Int(min=1)})
