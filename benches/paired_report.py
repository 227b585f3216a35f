"""What the runs of `paired.py` say: gaps to fp32 seed by seed with their 95 % interval, a table, and a plot.

The gap of a seed is its loss over that of fp32 with the same seed, less one. The margin is 0.2 %; where a task says so,
it is wider by half the interval of `nudged`, which differs from fp32 by nothing but chance. An arm is within the margin
if its whole interval is and no run of it diverged.
"""

from __future__ import annotations

import math
import pathlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from paired_tasks import Task
from plot import Axis, Panel, Points, write

Record = dict[str, Any]

ARMS = {"fp32": "#f0a030", "ours": "#1560bd", "linear": "#c0392b", "nudged": "#777777"}
MARGIN = 0.2

# The 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom. The last stands for all above, a little wide.
T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Gap:
    """Paired gaps of an arm to fp32, in percent."""

    each: list[float]
    num_diverged: int

    @property
    def mean(self) -> float:
        return statistics.mean(self.each) if self.each else math.nan

    @property
    def half(self) -> float:
        """Half the 95 % interval of the mean; without bounds for fewer than two pairs."""
        if len(self.each) < 2:
            return math.inf
        quantile = T_QUANTILES[min(len(self.each) - 1, len(T_QUANTILES)) - 1]
        return quantile * statistics.stdev(self.each) / math.sqrt(len(self.each))

    def within(self, margin: float) -> bool:
        return not self.num_diverged and abs(self.mean) + self.half <= margin

    def verdict(self, margin: float) -> str:
        """What the interval says of the margin."""
        if self.num_diverged:
            return "failed: diverged"
        if len(self.each) < 2:
            return "too few pairs for an interval"
        if self.within(margin):
            return "within"
        return "failed: outside" if abs(self.mean) - self.half > margin else "not shown: the interval is too wide"


def by_arm(runs: list[Record]) -> dict[str, dict[int, Record]]:
    """The runs of each arm by seed."""
    arms: dict[str, dict[int, Record]] = {arm: {} for arm in ARMS}
    for run in runs:
        arms[run["arm"]][run["seed"]] = run
    return arms


def gap(arms: dict[str, dict[int, Record]], arm: str) -> Gap:
    losses = {seed: run["loss"] for seed, run in arms["fp32"].items() if run["loss"] is not None}
    found = {seed: run["loss"] for seed, run in arms[arm].items()}
    each = [
        100 * (loss / losses[seed] - 1) for seed, loss in sorted(found.items()) if loss is not None and seed in losses
    ]
    return Gap(each, sum(loss is None for loss in found.values()))


def margin_of(task: Task, arms: dict[str, dict[int, Record]]) -> float:
    noise = gap(arms, "nudged").half
    return MARGIN + (noise if task.widened and math.isfinite(noise) else 0)


def show(task: Task, runs: list[Record]) -> bool:
    """Print the table of a task. False where ours missed the margin or the control of AdamW did not fail."""
    arms = by_arm(runs)
    margin = margin_of(task, arms)
    print(f"\n{task.title}: {runs[0]['steps']:,} steps, margin +-{margin:.2f} %")
    print(f"  linear: {task.control_title}")
    print(f"  {'':8s} {'runs':>5s} {'diverged':>9s} {'loss':>8s} {'gap':>9s} {'95 % interval':>19s} {'s a run':>8s}")
    for arm, own in arms.items():
        if not own:
            continue
        found = gap(arms, arm)
        losses = [run["loss"] for run in own.values() if run["loss"] is not None]
        loss = f"{statistics.mean(losses):8.4f}" if losses else f"{'none':>8s}"
        seconds = statistics.median(run["seconds"] for run in own.values())
        if arm == "fp32":
            compared = f"{'':9s} {'':19s} {seconds:8.1f}"
        elif math.isfinite(found.half):
            interval = f"{_short(found.mean - found.half)} to {_short(found.mean + found.half)}"
            compared = f"{_short(found.mean):>7s} % {interval:>19s} {seconds:8.1f}  {found.verdict(margin)}"
        else:
            mean = f"{_short(found.mean):>7s} %" if found.each else ""
            compared = f"{mean:>9s} {'':>19s} {seconds:8.1f}  {found.verdict(margin)}"
        print(f"  {arm:8s} {len(own):5d} {found.num_diverged:9d} {loss} {compared}")
    print(f"  {_versions(runs)}")
    return _passed(task, arms, margin)


def _passed(task: Task, arms: dict[str, dict[int, Record]], margin: float) -> bool:
    ours, control = gap(arms, "ours"), gap(arms, "linear")
    enough = len(ours.each) > 1 or ours.num_diverged
    passed = not enough or ours.within(margin)
    if len(control.each) > 1 and control.within(margin):
        # Of SGD's momentum linear bytes may well be enough.
        print("  the control did not fail" + ("" if task.must_fail else ", and need not here"))
        passed &= not task.must_fail
    return passed


def _short(percent: float) -> str:
    return f"{percent:+.3f}" if abs(percent) < 10 else f"{percent:+,.0f}"


def _versions(runs: list[Record]) -> str:
    """Versions of the runs; more than one of a kind are all named."""
    kinds = {name: sorted({run["versions"][name] for run in runs}) for name in runs[0]["versions"]}
    return "; ".join(f"{name} {' and '.join(found)}" for name, found in kinds.items())


def draw(path: pathlib.Path, task: Task, runs: list[Record]) -> None:
    """Plot mean validation losses with the range over seeds, and the gaps."""
    arms = by_arm(runs)
    steps, seeds = runs[0]["steps"], max(len(own) for own in arms.values())
    footer = f"paired seeds: {seeds}; bands are the range over seeds; {_versions(runs)}"
    write(path, task.title, [_curves(arms, steps), _gaps(task, arms)], footer=footer)


def _curves(arms: dict[str, dict[int, Record]], steps: int) -> Panel:
    curves = {arm: list(_curve(own)) for arm, own in arms.items() if own}
    plain = next((curve for curve in curves.values() if curve), [(0, 0.0, 0.0, 0.0)])
    # The top of what fp32 comes down is left out, so that the end can be seen.
    lowest, start = min(low for _, low, _, _ in plain), plain[0][2]
    high = lowest + 0.6 * (start - lowest) if start > lowest else lowest + 1
    y = Axis("validation loss", lowest - 0.05 * (high - lowest), high)
    panel = Panel("Validation loss, mean over seeds", Axis("step", 0, steps), y)
    for arm, curve in curves.items():
        low: Points = [(step, low) for step, low, _, _ in curve]
        panel.band(low, [(step, high) for step, _, _, high in curve], ARMS[arm])
    for arm, curve in curves.items():
        num_lost = sum(run["loss"] is None for run in arms[arm].values())
        name = f"{arm}, {num_lost} diverged" if num_lost else arm
        points = [(step, mean) for step, _, mean, _ in curve]
        panel.line(points, ARMS[arm], name, width=5 if arm == "fp32" else 1.8, dashes="2 3" if arm == "nudged" else "")
    return panel


def _curve(own: dict[int, Record]) -> Iterator[tuple[int, float, float, float]]:
    """Step, least, mean and greatest loss, as far as every seed got."""
    for points in zip(*(run["evaluations"] for run in own.values()), strict=False):
        losses = [loss for _, loss in points]
        if None in losses:
            return
        yield points[0][0], min(losses), statistics.mean(losses), max(losses)


def _gaps(task: Task, arms: dict[str, dict[int, Record]]) -> Panel:
    margin = margin_of(task, arms)
    gaps = {arm: gap(arms, arm) for arm in ("ours", "nudged", "linear") if arms[arm]}
    near = [abs(value) for arm, found in gaps.items() if arm != "linear" for value in found.each]
    reach = 1.15 * max([1.5 * margin, *near])
    rows = list(gaps)
    panel = Panel(
        "Gap to fp32 with the same seed",
        Axis(f"percent; shaded: margin of {margin:.2f} %; bars: 95 % interval of the mean", -reach, reach),
        Axis("", -0.5, len(rows) - 0.5),
        row_names=rows,
    )
    panel.shade(-margin, margin, "#2e8b57")
    panel.rule(0)
    for row, (arm, found) in enumerate(gaps.items()):
        panel.dots(found.each, row + 0.18, ARMS[arm])
        if math.isfinite(found.half) and abs(found.mean) < reach:
            panel.interval(found.mean - found.half, found.mean, found.mean + found.half, row, ARMS[arm])
        if found.each and abs(found.mean) >= reach:
            where = f"mean {_short(found.mean)} %, beyond the axis"
            panel.note(where, 0.45 * math.copysign(reach, found.mean), row, ARMS[arm])
        if found.num_diverged:
            panel.note(f"{found.num_diverged} diverged", 0.5 * reach, row + 0.32, ARMS[arm])
    return panel
