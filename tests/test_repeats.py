"""Rows that repeat, found in arrays of digests."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recipekit.repeats import repeats

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), max_size=12)


def found(rows):
    ids, bodies, labels = zip(*rows, strict=True) if rows else ((), (), ())
    arrays = np.array(ids, np.uint64), np.array(bodies, np.uint64), np.array(labels, np.uint32)
    return list(repeats(*arrays))


def plain(rows):
    """Say the same in loops: (line, kind)."""
    said = set()
    once = []
    for line, row in enumerate(rows, 1):
        if not row[1]:
            continue
        if row in [other for _, other in once]:
            said.add((line, "twice"))
        else:
            once.append((line, row))
    for line, (name, body, label) in once:
        group = [(at, row) for at, row in once if row[1] == body]
        if any(row[2] != label for _, row in group):
            said.add((line, "conflict"))
        elif line > group[0][0]:
            said.add((line, "again"))
        if name and any(row[0] == name for at, row in once if at < line):
            said.add((line, "id"))
    return said


@given(ROWS)
def test_repeats_are_those_that_loops_find(rows):
    assert {(finding.line, finding.kind) for finding in found(rows)} == plain(rows)
    assert len(found(rows)) == len(plain(rows))


def test_each_names_the_line_that_it_repeats():
    rows = [
        (1, 1, 1),
        (2, 2, 1),
        (1, 1, 1),
        (3, 2, 2),
        (0, 3, 1),
        (2, 4, 1),
        (4, 3, 1),
        (1, 1, 1),
        (5, 2, 1),
        (0, 0, 0),
    ]
    said = {(f.line, f.kind): f.message for f in found(rows)}
    assert {place: message.split(";")[0].split(",")[0] for place, message in said.items()} == {
        (3, "twice"): "the same id", (8, "twice"): "the same id",
        (2, "conflict"): "the article of line 4", (4, "conflict"): "the article of line 2",
        (9, "conflict"): "the article of line 4", (7, "again"): "the article of line 5",
        (6, "id"): "stands on line 2 already",
    }  # fmt: skip
    assert "line 1;" in said[3, "twice"] and "line 1;" in said[8, "twice"]


def test_none_of_nothing():
    assert found([]) == [] == found([(1, 1, 1)]) == found([(0, 0, 0), (0, 0, 0)])
