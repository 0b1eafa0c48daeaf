from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from minetrace.errors import InputError
from minetrace.status import classify_status

# bsp, ndvi, ntl: "+" up, "-" down, "0" no trend, "." missing → status and conflict.
# Written down case by case from the published tree, in blocks of one bare-surface trend.
TABLE = """
+++ active conflict   ++- active conflict   ++0 active conflict   ++. active conflict
+-+ active            +-- active conflict   +-0 active            +-. active
+0+ active            +0- active conflict   +00 active            +0. active
+.+ active            +.- active conflict   +.0 active            +.. active
-++ closed conflict   -+- closed            -+0 closed            -+. closed
--+ closed conflict   --- closed conflict   --0 closed conflict   --. closed conflict
-0+ closed conflict   -0- closed            -00 closed            -0. closed
-.+ closed conflict   -.- closed            -.0 closed            -.. closed
0++ closed conflict   0+- closed            0+0 closed            0+. closed
0-+ active            0-- active conflict   0-0 active            0-. active
00+ active            00- closed            000 undefined         00. undefined
0.+ active            0.- closed            0.0 undefined         0.. undefined
.++ closed conflict   .+- closed            .+0 closed            .+. closed
.-+ active            .-- active conflict   .-0 active            .-. active
.0+ active            .0- closed            .00 undefined         .0. undefined
..+ active            ..- closed            ..0 undefined         ... undefined
"""
SIGN = {"+": 1, "-": -1, "0": 0, ".": None}
STAGE = {"+": "expanding", "-": "shrinking", "0": "stable", ".": None}


def cases():
    words = TABLE.split()
    for i, word in enumerate(words):
        if word in ("active", "closed", "undefined", "conflict"):
            continue
        yield word, words[i + 1], words[i + 2 : i + 3] == ["conflict"]


CASES = list(cases())


def test_the_table_is_complete():
    assert {c[0] for c in CASES} == {"".join(p) for p in itertools.product("+-0.", repeat=3)}


@pytest.mark.parametrize(("signs", "status", "conflict"), CASES)
def test_scalars_follow_the_table(signs, status, conflict):
    result = classify_status(*(SIGN[c] for c in signs))
    assert result == (status, STAGE[signs[0]], conflict)
    assert type(result.conflict) is bool


MISSING = {"Int8": pd.NA, "float64": np.nan, "object": None}


@pytest.mark.parametrize("dtype", MISSING)
def test_series_follow_the_table_and_keep_their_index(dtype):
    index = [f"site {c[0]}" for c in CASES]
    columns = [
        pd.Series([SIGN[c[0][i]] for c in CASES], index=index, dtype=dtype) for i in range(3)
    ]
    result = classify_status(*columns)
    assert result.status.index.tolist() == index
    assert result.status.tolist() == [c[1] for c in CASES]
    assert [None if pd.isna(s) else s for s in result.stage] == [STAGE[c[0][0]] for c in CASES]
    assert result.conflict.tolist() == [c[2] for c in CASES]
    assert result.conflict.dtype == bool


def test_arrays_and_lists_give_arrays():
    for kind in (list, np.array):
        result = classify_status(kind([1, 0]), kind([0, 0]), kind([0, -1]))
        assert isinstance(result.status, np.ndarray)
        assert result.status.tolist() == ["active", "closed"]
        assert result.stage.tolist() == ["expanding", "stable"]


@pytest.mark.parametrize("value", [np.int8(1), np.float32(1), np.array(1), 1.0])
def test_numpy_scalars_are_scalars(value):
    assert classify_status(value, np.float32("nan"), pd.NA).status == "active"


def test_no_sites_give_no_rows():
    assert classify_status([], [], []).status.size == 0
    empty = pd.Series([], dtype="Int8")
    assert classify_status(empty, empty, empty).stage.empty


@pytest.mark.parametrize("value", [2, -3, 0.5, np.inf, "up", True, np.bool_(True)])
def test_other_values_are_refused_by_name(value):
    with pytest.raises(InputError, match="ndvi_trend holds"):
        classify_status(0, value, 0)
    with pytest.raises(InputError, match="ndvi_trend holds"):
        classify_status([0], [value], [0])


def test_lengths_must_agree():
    with pytest.raises(InputError, match="one length"):
        classify_status([1, 0], [1], [0, 0])
    with pytest.raises(InputError, match="scalar"):
        classify_status([1, 0], 1, [0, 0])
    with pytest.raises(InputError, match="2 dimensions"):
        classify_status(np.zeros((2, 2)), [1], [0])


def test_indexes_must_agree():
    a, b = pd.Series([1, 0], index=["p", "q"]), pd.Series([1, 0], index=["q", "p"])
    with pytest.raises(InputError, match="different indexes"):
        classify_status(a, b, a)
