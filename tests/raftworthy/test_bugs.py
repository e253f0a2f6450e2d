"""The table of real bugs: each way of catching them catches one, and a harmless one is said to be so."""

from __future__ import annotations

from raftd.faults import BREAKS
from raftspec.mutants import MUTANTS
from raftworthy.measure_bugs import FAULTS, fault_of, measure_bugs, page, table


def test_faults_are_raftd_s_and_bugs_are_known() -> None:
    assert set(FAULTS.values()) <= BREAKS.keys()
    assert FAULTS.keys() <= MUTANTS.keys()
    assert fault_of(MUTANTS["R01"]) == "commit.current_term"
    assert fault_of(MUTANTS["R06"]) is None


def test_a_bug_is_caught_in_all_three_ways_and_a_harmless_one_in_none() -> None:
    erases, waits = measure_bugs(["R05", "R06"], lambda done, total: None)
    assert erases.explorer is not None
    assert erases.explorer.what.startswith("match_index_is_true after ")
    assert erases.lockstep is not None
    assert erases.lockstep.what == "append.truncate_only_conflict in handle_append_entries"
    assert erases.replay is not None
    assert erases.replay.what.startswith("append.truncate_only_conflict at line ")
    assert (waits.explorer, waits.lockstep, waits.replay) == (None, None, None)
    assert "nothing unsafe" in table([waits])
    assert [line[:6] for line in page([erases, waits]).splitlines()[-2:]] == ["| R05 ", "| R06 "]
