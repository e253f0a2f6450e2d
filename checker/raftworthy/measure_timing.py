"""How long elections take against T / broadcast time, and in which worlds a cluster makes progress."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from raftd.simulator import Progress
from raftd.timing import BROADCAST_TIME, Availability, ElectionTimes, availability, election_times
from raftworthy.replay.verdict import check

POINTS = 200  # of each line of a plot


class PlotError(Exception):
    """There is nothing to plot with: what to install."""


@dataclass(frozen=True)
class Timing:
    """What was measured, in virtual time."""

    servers: int
    elections: list[ElectionTimes]
    worlds: list[Availability]
    verdicts: list[str]  # of replay, on the trace of each world

    def __str__(self) -> str:
        lines = [
            f"{self.servers} servers, broadcast time {BROADCAST_TIME * 1000:g} ms, virtual time; "
            "each timeout is drawn from [T, 2T]",
            f"{'T / broadcast time':>18}{'T, ms':>8}{'elections':>11}"
            f"{'p50, ms':>10}{'p99, ms':>10}{'p50 / T':>10}",
        ]
        for e in self.elections:
            p50, p99 = e.quantile(50), e.quantile(99)
            shown = (
                f"{p50 * 1000:>10.0f}{p99 * 1000:>10.0f}{p50 / e.timeout:>10.1f}"
                if p50 is not None and p99 is not None
                else f"{'none':>10}{'none':>10}{'':>10}"
            )
            lines.append(f"{e.ratio:>18g}{e.timeout * 1000:>8.1f}{len(e.times):>11}{shown}")
        lines += [
            "",
            f"{'world':<22}{'time with a leader':>19}{'entries/s':>11}{'elections':>11}{'won':>7}"
            f"{'events':>11}  replay",
        ]
        for w, verdict in zip(self.worlds, self.verdicts, strict=True):
            counts = f"{w.summary.elections:>11}{w.summary.leaders:>7}"
            lines.append(
                f"{w.world:<22}{w.led:>18.1%} {w.committed:>11.1f}{counts}{w.summary.events:>11,}  {verdict}"
            )
        return "\n".join(lines)


def measure_timing(
    ratios: list[float], servers: int, elections: int, steps: int, seed: int, progress: Progress
) -> Timing:
    """Time elections for each T of so many broadcast times, and run the same cluster in each world."""
    times = list(election_times(ratios, servers, elections, seed, progress))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        worlds = list(availability(servers, steps, seed, folder))
        verdicts = [check([folder / f"{w.world}.ndjson"]).verdict for w in worlds]
    return Timing(servers, times, worlds, verdicts)


def plot(timing: Timing, file: Path) -> None:
    """Draw which share of elections had ended after which time, a line for each T. The paper's Figure 16.

    Raises:
        PlotError: matplotlib is missing, or doesn't know the file's ending.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PlotError("plotting needs matplotlib; try: pip install 'raftworthy[plot]'") from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for e in timing.elections:
        if len(e.times) > 1:
            times = [1000 * x for x in quantiles(e.times, n=POINTS)]
            shares = [100 * n / POINTS for n in range(1, POINTS)]
            axes.plot(times, shares, label=f"{e.ratio:g} ({e.timeout * 1000:g}-{2000 * e.timeout:g} ms)")
    axes.set_xscale("log")
    axes.set_xlabel("time without a leader, ms")
    axes.set_ylabel("elections that had ended, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="T / broadcast time (timeouts)")
    axes.set_title(f"{timing.servers} servers, broadcast time {BROADCAST_TIME * 1000:g} ms")
    try:
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    except ValueError as error:
        raise PlotError(f"{file}: {error}; try a name that ends in .svg or .png") from error
