"""Charts of the report: matplotlib figures as inline SVG that takes its colours and font from the page.

Colours are drawn as marker values and replaced by CSS variables, so that one picture serves light and dark. Equal input gives
equal bytes: fixed hash salt, no date, no global state (figures are made without pyplot). matplotlib is imported when needed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coderl.config import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Marker colour -> CSS variable of style.css.
_MARKERS: dict[str, str] = {
    "#0a0b00": "--ink",
    "#0a0b01": "--muted",
    "#0a0b02": "--rule",
    "#0a0b03": "--paper",
    **{f"#0a0c{number:02x}": f"--series-{number}" for number in range(8)},
    "#0a0d00": "--compile-error",
    "#0a0d01": "--runtime-error",
    "#0a0d02": "--failed-test",
    "#0a0d03": "--passed-test",
}
INK, MUTED, RULE, PAPER = list(_MARKERS)[:4]
SERIES: tuple[str, ...] = tuple(list(_MARKERS)[4:12])
OUTCOME_COLOURS: tuple[str, ...] = tuple(list(_MARKERS)[12:])
"""In the order of coderl.records.OUTCOMES."""


def css_variable(colour: str) -> str:
    """Name of the CSS variable that a colour of this module becomes in the page."""
    return _MARKERS[colour]


WIDTH = 10.0
"""Inches of a full-width figure; fonts are set for this width."""


@dataclass(frozen=True)
class Interval:
    """One line of a forest plot: a value with its interval."""

    label: str
    value: float
    low: float | None
    high: float | None
    colour: str = INK
    hollow: bool = False


def _figure(height: float, width: float = WIDTH) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("report: matplotlib is not installed; install it with `pip install 'coderl[report]'`") from None
    return Figure(figsize=(width, height), layout="constrained")


def _style(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: str = "y") -> None:
    axes.set_facecolor("none")
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(side == "bottom" or (side == "left" and grid == "x"))
        axes.spines[side].set_color(RULE)
    axes.tick_params(colors=MUTED, labelcolor=MUTED, length=0, labelsize=9)
    if grid:
        axes.grid(axis=grid, color=RULE, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.set_xlabel(x, color=MUTED, fontsize=9)
    axes.set_ylabel(y, color=MUTED, fontsize=9, labelpad=8)


def _legend(axes: Axes, **options: Any) -> None:
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, **options)


def render(figure: Figure, label: str, name: str) -> str:
    """The figure as an `<svg>` element without ids that clash; `name` is its prefix, `label` what a screen reader says."""
    import matplotlib as mpl

    out = io.StringIO()
    figure.patch.set_alpha(0)
    with mpl.rc_context({"svg.hashsalt": "coderl", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # The page's own font in place of matplotlib's; sizes stay.
    text = re.sub(r"(font: )([^;\"]*?)([\d.]+px)\s[^;\"]*", r"\1\2\3 var(--font)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    for marker, variable in _MARKERS.items():
        text = text.replace(marker, f"var({variable})")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()


def forest(groups: Mapping[str, Sequence[Interval]], label: str, name: str, *, reference: float = 0.0, unit: str = "points") -> str:
    """Dots with intervals around a reference line, in titled groups; hollow dots for intervals that contain it."""
    lines: list[str | Interval] = [line for title, rows in groups.items() for line in ([title] if title else []) + list(rows)]
    figure = _figure(0.55 + 0.27 * len(lines))
    axes = figure.subplots()
    axes.axvline(reference, color=MUTED, linewidth=1)
    axes.set_yticks(range(len(lines)), [line if isinstance(line, str) else line.label for line in reversed(lines)])
    for y, (line, tick) in enumerate(zip(reversed(lines), axes.get_yticklabels(), strict=True)):
        if isinstance(line, str):
            tick.set_fontweight("bold")
            continue
        if line.low is not None and line.high is not None:
            axes.plot([line.low, line.high], [y, y], color=line.colour, linewidth=2, solid_capstyle="round")
        face = PAPER if line.hollow else line.colour
        axes.plot([line.value], [y], "o", markersize=7, markerfacecolor=face, markeredgecolor=line.colour, markeredgewidth=1.8)
    axes.set_ylim(-0.6, len(lines) - 0.4)
    _style(axes, x=unit, grid="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", labelcolor=INK)
    return render(figure, label, name)


def curves(lines: Mapping[str, tuple[Sequence[float], Sequence[float], str, bool]], label: str, name: str, *, x: str, y: str) -> str:
    """Lines over a logarithmic x: name -> (x, y, colour, dashed), each named at its end."""
    figure = _figure(3.6)
    axes = figure.subplots()
    for title, (xs, ys, colour, dashed) in lines.items():
        axes.plot(xs, ys, color=colour, linewidth=2, linestyle="--" if dashed else "-", label=title)
    axes.set_xscale("log")
    longest = max(max(xs) for xs, _, _, _ in lines.values())
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k < 0.8 * longest] + [round(longest)]
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    _style(axes, x=x, y=y)
    _legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return render(figure, label, name)


def stacked(groups: Mapping[str, Mapping[str, Sequence[float]]], parts: Sequence[str], label: str, name: str) -> str:
    """Horizontal bars of shares that sum to 100: panel -> bar -> share of each part, colours by outcome."""
    tallest = max(len(bars) for bars in groups.values())
    figure = _figure(0.9 + 0.36 * tallest)
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for number, (axes, (title, bars)) in enumerate(zip(panels, groups.items(), strict=True)):
        left = [0.0] * len(bars)
        places = list(range(len(bars) - 1, -1, -1))
        for part, colour in enumerate(OUTCOME_COLOURS):
            widths = [shares[part] for shares in bars.values()]
            axes.barh(places, widths, left=left, height=0.68, color=colour, edgecolor=PAPER, linewidth=1, label=parts[part])
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_yticks(places, list(bars))
        axes.set_xlim(0, 100)
        _style(axes, title=title, x="percent of programs", grid="")
        axes.tick_params(axis="y", labelcolor=INK)
        axes.spines["bottom"].set_visible(False)
        if number == 0:
            handles, names = axes.get_legend_handles_labels()
            figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=INK)
    return render(figure, label, name)


def levels(bars: Mapping[str, Sequence[Interval]], difficulties: Sequence[str], label: str, name: str, *, y: str) -> str:
    """Grouped dots with intervals: per model one dot for every difficulty."""
    figure = _figure(3.2)
    axes = figure.subplots()
    step = 0.7 / max(len(bars), 1)
    for number, (model, values) in enumerate(bars.items()):
        xs = [place + (number - (len(bars) - 1) / 2) * step for place in range(len(values))]
        for x, value in zip(xs, values, strict=True):
            if value.low is not None and value.high is not None:
                axes.plot([x, x], [value.low, value.high], color=value.colour, linewidth=2, solid_capstyle="round")
        axes.plot(xs, [value.value for value in values], "o", markersize=7, color=values[0].colour, label=model)
    axes.set_xticks(range(len(difficulties)), list(difficulties))
    axes.set_xlim(-0.5, len(difficulties) - 0.5)
    axes.set_ylim(bottom=0)
    _style(axes, y=y)
    axes.tick_params(axis="x", labelcolor=INK)
    _legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return render(figure, label, name)


def panels(plots: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float], str]]], label: str, name: str) -> str:
    """Small line charts, three in a row: title -> line -> (x, y, colour)."""
    rows = -(-len(plots) // 3)
    figure = _figure(2.2 * rows)
    grid = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes in grid[len(plots) :]:
        axes.set_visible(False)
    for axes, (title, lines) in zip(grid, plots.items(), strict=False):
        for line, (xs, ys, colour) in lines.items():
            axes.plot(xs, ys, color=colour, linewidth=1.5, label=line)
        axes.locator_params(axis="both", nbins=4)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")  # no common factor above the axis
        _style(axes, title=title, x="step")
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return render(figure, label, name)
