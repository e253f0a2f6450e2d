"""A log counts its entries from 1, compacted or not."""

from __future__ import annotations

from copy import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.log import Log
from raftd.messages import Entry

TERMS = st.lists(st.integers(1, 4), max_size=8)


def log_of(terms: list[int]) -> Log:
    return Log(Entry(term, b"%d" % n) for n, term in enumerate(terms, 1))


@given(TERMS, st.data())
def test_a_compacted_log_says_of_what_is_left_what_the_whole_one_says(
    terms: list[int], data: st.DataObject
) -> None:
    """Dissertation, section 5.1: only the beginning is gone, and its last term is known."""
    whole, log = log_of(terms), log_of(terms)
    n = data.draw(st.integers(0, len(terms)))
    log.compact(data.draw(st.integers(0, n)))
    log.compact(n)
    assert (log.last_index, log.last_term) == (whole.last_index, whole.last_term)
    assert [log.term_at(k) for k in range(n, len(terms) + 1)] == [
        whole.term_at(k) for k in range(n, len(terms) + 1)
    ]
    first = data.draw(st.integers(n + 1, len(terms) + 1))
    count = data.draw(st.integers(0, 9))
    assert log.entries(first) == whole.entries(first)
    assert log.entries(first, count) == whole.entries(first, count)

    new = [Entry(5, b"x"), Entry(5, b"y")]
    keep = data.draw(st.integers(n, len(terms)))
    for each in (whole, log):
        each.truncate(keep)
        each.append(new)
    assert log.entries(n + 1) == whole.entries(n + 1)
    whole.compact(n)
    assert log == whole


def test_what_is_compacted_cannot_be_asked_for() -> None:
    """A mistake of the server stops it; it never gets another entry for the one it asked for."""
    log = log_of([1, 1, 2, 3])
    log.compact(2)
    assert log.term_at(2) == 1
    for use in (
        lambda: log.term_at(1),
        lambda: log.entry(2),
        lambda: log.entries(2),
        lambda: log.truncate(1),
        lambda: log.compact(1),
    ):
        with pytest.raises(AssertionError):
            use()
    assert log == Log([Entry(2, b"3"), Entry(3, b"4")], 2, 1)


def test_a_copy_is_another_log() -> None:
    log = log_of([1, 2])
    other = copy(log)
    other.append([Entry(3, b"x")])
    assert log == log_of([1, 2])
    assert log != other
