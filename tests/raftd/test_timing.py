"""Section 5.6: an election takes about one timeout if that is much longer than a broadcast, or never ends."""

from __future__ import annotations

from raftd.timing import WORLDS, availability, election_times


def test_elections_take_about_one_timeout_where_it_is_ten_broadcasts() -> None:
    (measured,) = election_times([10], servers=5, elections=60, seed=1)
    assert len(measured.times) == 60
    median, slowest = measured.quantile(50), max(measured.times)
    assert median is not None
    assert measured.timeout < median < 2 * measured.timeout
    assert slowest < 10 * measured.timeout


def test_a_timeout_shorter_than_a_broadcast_keeps_every_leader_from_leading() -> None:
    (measured,) = election_times([0.3], servers=5, elections=5, seed=1)
    assert measured.times == []
    assert measured.quantile(50) is None


def test_the_same_seed_gives_the_same_times() -> None:
    first, again, other = (next(election_times([5], 3, 20, seed)).times for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_progress_needs_bounds_and_safety_does_not() -> None:
    """FLP: the lecture's synchronous and asynchronous worlds. Safety is asserted by the simulator."""
    worlds = {measured.world: measured for measured in availability(servers=5, steps=6000, seed=1)}
    assert worlds.keys() == WORLDS.keys()
    assert worlds["synchronous"].led > 0.9
    assert worlds["slow and fast clocks"].led > 0.8
    assert 0.3 < worlds["partly synchronous"].led < worlds["synchronous"].led
    assert worlds["asynchronous"].led < 0.1
    assert worlds["asynchronous"].committed < 0.1 * worlds["synchronous"].committed
