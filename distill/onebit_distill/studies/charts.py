"""Line and bar charts as SVG that are readable on light and on dark pages: each brings its own background for both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 220, 44, 52

#: colours of lines on light and on dark: Okabe and Ito's, which colour-blind readers can tell apart; lighter for dark
_COLOURS = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff9a4d"),
    ("#009e73", "#3ddcae"),
    ("#aa4499", "#e08ad2"),
    ("#7a6a00", "#e6d44a"),
    ("#555555", "#b8b8b8"),
    ("#8c510a", "#d8a05a"),
    ("#00808c", "#7fe5ef"),
)


def _style() -> str:
    light = "".join(f".c{i}{{stroke:{a}}}.f{i}{{fill:{a}}}" for i, (a, _) in enumerate(_COLOURS))
    dark = "".join(f".c{i}{{stroke:{b}}}.f{i}{{fill:{b}}}" for i, (_, b) in enumerate(_COLOURS))
    return (
        "<style>text{font:12px system-ui,sans-serif;fill:#222}.t{font-size:14px;font-weight:600}.b{fill:#fff}"
        ".g{stroke:#ddd}.a{stroke:#888}.l{fill:none;stroke-width:2}.d{stroke-dasharray:6 4}"
        f"{light}@media(prefers-color-scheme:dark){{text{{fill:#ddd}}.b{{fill:#161b22}}.g{{stroke:#333}}"
        f".a{{stroke:#888}}{dark}}}</style>"
    )


def _page(title: str, height: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        f' role="img"><title>{escape(title)}</title>{_style()}<rect class="b" width="{_WIDTH}" height="{height}"/>'
    )
    return "\n".join([head, _text(_LEFT, 26, title, extra=' class="t"'), *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str = "start", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def number(value: float) -> str:
    """Three digits or all of a whole number, without an exponent where that is short."""
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class Axis:
    label: str
    log: bool = False
    #: where the marks are; none: chosen
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]
    #: points are marked
    marked: bool = True
    #: a level: dashed over the whole width
    level: float | None = None


class _Scale:
    """From values to pixels."""

    def __init__(self, axis: Axis, values: Sequence[float], first: float, last: float) -> None:
        self.axis, self.first, self.last = axis, first, last
        wide = [*values, *axis.ticks]
        low, high = self._at(min(wide)), self._at(max(wide))
        margin = 0.04 * (high - low) or 0.5
        self.low, self.high = low - margin, high + margin

    def _at(self, value: float) -> float:
        return math.log10(value) if self.axis.log else value

    def __call__(self, value: float) -> float:
        return self.first + (self._at(value) - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        if self.axis.ticks:
            return list(self.axis.ticks)
        if not self.axis.log:
            step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
            step *= next(f for f in (1, 2, 5, 10) if (self.high - self.low) / (step * f) <= 7)
            return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            found = [f * 10.0**d for d in decades for f in factors]
            found = [value for value in found if self.low <= math.log10(value) <= self.high]
            if len(found) <= 8:
                return found
        return found[:: math.ceil(len(found) / 8)]


def _axes(x: _Scale, y: _Scale) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for value in y.ticks():
        at = y(value)
        parts.append(f'<line class="g" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(_LEFT - 8, at + 4, number(value), "end"))
    for value in x.ticks():
        at = x(value)
        parts.append(f'<line class="a" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(_text(at, bottom + 20, number(value), "middle"))
    parts.append(f'<path class="a" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    parts.append(_text((_LEFT + right) / 2, bottom + 42, x.axis.label, "middle"))
    middle = (_TOP + bottom) / 2
    parts.append(_text(16, middle, y.axis.label, "middle", f' transform="rotate(-90 16 {middle:.0f})"'))
    return parts


def line_chart(title: str, x_axis: Axis, y_axis: Axis, lines: Sequence[Line]) -> str:
    """Points that are no finite numbers are left out (a run that diverged has none). Raises ValueError without any."""
    kept = [
        Line(line.name, [p for p in line.points if all(map(math.isfinite, p))], line.marked, line.level)
        for line in lines
    ]
    xs = [x for line in kept for x, _ in line.points]
    ys = [y for line in kept for _, y in line.points] + [line.level for line in kept if line.level is not None]
    if not xs:
        raise ValueError(f"{title}: there is nothing to draw")
    x = _Scale(x_axis, xs, _LEFT, _WIDTH - _RIGHT)
    y = _Scale(y_axis, ys, _HEIGHT - _BOTTOM, _TOP)
    parts = _axes(x, y)
    for index, line in enumerate(kept):
        parts += _line(index % len(_COLOURS), line, x, y)
        at = _TOP + 12 + 22 * index
        dashed = " d" if line.level is not None else ""
        left = _WIDTH - _RIGHT + 14
        parts.append(f'<path class="l c{index % len(_COLOURS)}{dashed}" d="M{left} {at}h22"/>')
        parts.append(_text(left + 28, at + 4, line.name))
    return _page(title, _HEIGHT, parts)


def _line(colour: int, line: Line, x: _Scale, y: _Scale) -> list[str]:
    if line.level is not None:
        at = y(line.level)
        return [f'<path class="l d c{colour}" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>']
    points = [(x(a), y(b)) for a, b in line.points]
    if not points:
        return []
    parts = [f'<path class="l c{colour}" d="M{" ".join(f"{a:.1f} {b:.1f}" for a, b in points)}"/>']
    if line.marked:
        parts += [f'<circle class="f{colour}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in points]
    return parts


def bar_chart(title: str, bars: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars from 0, each with its label above and its value behind. Values must be finite."""
    each, room = 40, 90
    longest = max(value for _, value in bars)
    parts = []
    for index, (name, value) in enumerate(bars):
        top = _TOP + each * index
        width = value / longest * (_WIDTH - 20 - room)
        parts.append(_text(20, top + 12, name))
        parts.append(f'<rect class="f0" x="20" y="{top + 17}" width="{width:.1f}" height="14" rx="2"/>')
        parts.append(_text(26 + width, top + 29, number(value)))
    page = _page(title, _TOP + each * len(bars) + 14, parts)
    return page.replace(f'<text x="{_LEFT:.1f}" y="26.0"', '<text x="20.0" y="26.0"', 1)
