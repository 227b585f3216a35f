"""Plots as SVG, written by hand: panels with axes, lines, bands, intervals and a legend, on a light ground.

A figure is a row of panels. A panel maps its own numbers to the page and leaves out what lies beyond its frame.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

INK, FAINT, GROUND = "#222222", "#e3e3e3", "#ffffff"
FONT = "font-family='Helvetica, Arial, sans-serif'"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """What a side of a panel shows."""

    label: str
    low: float
    high: float

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers inside the axis, about so many."""
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


@dataclass
class Panel:
    """One coordinate system; what is drawn later lies above."""

    title: str
    x: Axis
    y: Axis
    width: int = 520
    height: int = 330
    row_names: Sequence[str] = ()
    """Names of the rows 0, 1, ... of the y axis, from the top, instead of numbers."""
    _parts: list[str] = field(default_factory=list)
    _legend: list[str] = field(default_factory=list)

    def line(self, points: Points, color: str, name: str, *, width: float = 1.8, dashes: str = "") -> None:
        """Draw a line and put it into the legend."""
        style = f"fill='none' stroke='{color}' stroke-width='{width}' stroke-dasharray='{dashes}'"
        self._parts.append(f"<polyline points='{self._path(points)}' stroke-linejoin='round' {style}/>")
        y = 16 + 18 * len(self._legend)
        x = self.width - 170
        self._legend.append(f"<line x1='{x}' y1='{y}' x2='{x + 26}' y2='{y}' {style}/>{_text(x + 34, y + 4, name)}")

    def band(self, low: Points, high: Points, color: str) -> None:
        """Fill what lies between two lines."""
        points = self._path([*low, *reversed(high)])
        self._parts.append(f"<polygon points='{points}' fill='{color}' fill-opacity='0.16'/>")

    def shade(self, low: float, high: float, color: str) -> None:
        """Fill a range of the x axis."""
        left, right = self._x(max(low, self.x.low)), self._x(min(high, self.x.high))
        size = f"width='{right - left:.1f}' height='{self.height}'"
        self._parts.append(f"<rect x='{left:.1f}' y='0' {size} fill='{color}' fill-opacity='0.1'/>")

    def rule(self, x: float) -> None:
        """Draw a vertical line."""
        at = f"{self._x(x):.1f}"
        self._parts.append(f"<line x1='{at}' y1='0' x2='{at}' y2='{self.height}' stroke='{INK}' stroke-width='1'/>")

    def dots(self, xs: Iterable[float], row: float, color: str) -> None:
        """Draw values along a row."""
        for x in xs:
            at = f"cx='{self._x(x):.1f}' cy='{self._y(row):.1f}'"
            self._parts.append(f"<circle {at} r='3' fill='{color}' fill-opacity='0.4'/>")

    def interval(self, low: float, middle: float, high: float, row: float, color: str) -> None:
        """Draw a mean with its interval along a row."""
        left, right, y = f"{self._x(low):.1f}", f"{self._x(high):.1f}", self._y(row)
        for x1, x2, y1, y2 in ((left, right, y, y), (left, left, y - 6, y + 6), (right, right, y - 6, y + 6)):
            ends = f"x1='{x1}' y1='{y1:.1f}' x2='{x2}' y2='{y2:.1f}'"
            self._parts.append(f"<line {ends} stroke='{color}' stroke-width='2'/>")
        self._parts.append(f"<circle cx='{self._x(middle):.1f}' cy='{y:.1f}' r='5' fill='{color}'/>")

    def note(self, text: str, x: float, row: float, color: str) -> None:
        """Write a line that is centred on a point."""
        self._parts.append(_text(self._x(x), self._y(row), text, color=color, anchor="middle"))

    def svg(self, left: float, top: float) -> str:
        """The panel with its upper left corner at a place of the page."""
        size = f"width='{self.width}' height='{self.height}'"
        inside = f"<svg {size} overflow='hidden'>{''.join(self._parts)}</svg>"
        frame = f"<rect {size} fill='none' stroke='{INK}' stroke-width='1'/>"
        heading = _text(0, -12, self.title, size=14, bold=True)
        parts = [*self._grid(), inside, frame, heading, *self._legend]
        return f"<g transform='translate({left},{top})'>{''.join(parts)}</g>"

    def _grid(self) -> Iterable[str]:
        for tick in self.x.ticks():
            at = f"{self._x(tick):.1f}"
            yield f"<line x1='{at}' y1='0' x2='{at}' y2='{self.height}' stroke='{FAINT}'/>"
            yield _text(self._x(tick), self.height + 17, f"{tick:,.6g}", anchor="middle")
        yield _text(self.width / 2, self.height + 38, self.x.label, anchor="middle")
        for row, name in enumerate(self.row_names):
            yield _text(-10, self._y(row) + 4, name, anchor="end")
        for tick in () if self.row_names else self.y.ticks():
            at = f"{self._y(tick):.1f}"
            yield f"<line x1='0' y1='{at}' x2='{self.width}' y2='{at}' stroke='{FAINT}'/>"
            yield _text(-8, self._y(tick) + 4, f"{tick:,.6g}", anchor="end")
        middle = self.height / 2
        yield f"<g transform='translate(-50,{middle}) rotate(-90)'>{_text(0, 0, self.y.label, anchor='middle')}</g>"

    def _x(self, value: float) -> float:
        return self.width * (value - self.x.low) / (self.x.high - self.x.low)

    def _y(self, value: float) -> float:
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return self.height * (share if self.row_names else 1 - share)

    def _path(self, points: Points) -> str:
        # Far beyond the frame some readers of SVG lose the line.
        far = 50 * self.height
        return " ".join(f"{self._x(x):.1f},{max(-far, min(far, self._y(y))):.1f}" for x, y in points)


def write(path: pathlib.Path, title: str, panels: Sequence[Panel], *, left: int = 80, footer: str = "") -> None:
    """Write a figure: the panels side by side below its title; `footer` says what was measured on what."""
    gap, top, bottom = 120, 78, 78
    width = left + sum(panel.width for panel in panels) + gap * (len(panels) - 1) + 30
    height = top + max(panel.height for panel in panels) + bottom
    parts = [f"<rect width='{width}' height='{height}' fill='{GROUND}'/>", _text(left, 32, title, size=17, bold=True)]
    at = left
    for panel in panels:
        parts.append(panel.svg(at, top))
        at += panel.width + gap
    parts.append(_text(left, height - 14, footer, size=11, color="#666666"))
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'>"
    path.write_text("\n".join([head, *parts, "</svg>\n"]), encoding="utf-8")


def _text(
    x: float, y: float, text: str, *, size: int = 12, bold: bool = False, anchor: str = "start", color: str = INK
) -> str:
    style = f"{FONT} font-size='{size}' font-weight='{'bold' if bold else 'normal'}' text-anchor='{anchor}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' fill='{color}' {style}>{escape(text)}</text>"
