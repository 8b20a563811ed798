"""blind_spots.html: the moves of every metric as tables, a sentence read off each row, and slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jxrecon.evaluation.blind_spots import Case
from jxrecon.metrics.perturbations import Change
from jxrecon.metrics.volume import METRICS
from jxrecon.report.drawing import data_uri, render
from jxrecon.report.slices import DIFFERENCE_HU, DISPLAY_HU, PLANES, draw_slice, panels

BLIND = 0.01
"""A metric that moves by less than this share of its largest move hardly notices."""

WORSE, BETTER = (209, 73, 91), (11, 110, 153)
"""Red and blue of the cells, by what the metric says."""


def write_page(
    path: Path,
    summary: dict[str, Any],
    pictures: dict[str, dict[str, Change]],
    case: Case,
    private: bool,
) -> None:
    """Writes the page.

    Args:
        path: of the page.
        summary: of `evaluation.blind_spots.summarise`.
        pictures: kind of pair -> perturbation -> what it does to the case that is shown.
        case: that case.
        private: whether the page has to be kept where the data is.
    """
    rows = [m for pair in summary["pairs"].values() for m in pair["perturbations"].values()]
    names = [name for name in summary["conventions"] if any(moved[name]["n"] for moved in rows)]
    render(
        "blind_spots.html.jinja",
        path,
        summary=summary,
        names=names,
        metrics=METRICS,
        readings={
            kind: {name: reading(moved, names) for name, moved in pair["perturbations"].items()}
            for kind, pair in summary["pairs"].items()
        },
        value=value,
        signed=signed,
        colour=colour,
        pictures={
            name: data_uri(_figure(pictures["truth"][name], after, case.spacing_mm))
            for name, after in pictures["reconstruction"].items()
        },
        case=case.name,
        private=private,
        blind=BLIND,
        display=DISPLAY_HU,
        difference=DIFFERENCE_HU,
    )


def reading(moved: dict[str, dict[str, Any]], names: list[str]) -> str:
    """What a row of the table, metric -> its means, change and share, says in words made of these alone."""
    shares = {n: moved[n]["share"] for n in names if moved[n]["share"] is not None}
    if not shares:
        return "No metric has a value here."
    psnr = moved["psnr_db"]
    if psnr["change"] is not None:
        first = f"PSNR moves by {signed(psnr['change'])} dB"
        if value("psnr_db", psnr, "before") == value("psnr_db", psnr, "after"):
            first += ", in no digit that tables print"
    elif psnr["after"] is not None:
        first = f"PSNR falls from infinity to {value('psnr_db', psnr, 'after')} dB"
    else:
        first = "PSNR stays infinite"
    most = max(shares, key=lambda n: abs(shares[n]))
    parts = [first]
    if abs(shares[most]) >= BLIND:
        parts.append(
            f"most strongly moved on its own scale is {METRICS[most].label} ({abs(shares[most]):.0%} of its "
            "largest move)"
        )
    blind = [METRICS[n].label for n in shares if abs(shares[n]) < BLIND]
    praise = [METRICS[n].label for n in shares if shares[n] <= -BLIND]
    total = len(shares)
    if blind:
        parts.append(f"{len(blind)} of {total} hardly notice: {', '.join(blind)}")
    if praise:
        parts.append(f"{len(praise)} of {total} call it better: {', '.join(praise)}")
    if not blind and not praise:
        parts.append(f"all {total} metrics call it worse")
    return "; ".join(parts) + "."


def value(name: str, moved: dict[str, Any], state: str) -> str:
    """A mean as tables print it; PSNR of equal volumes is infinite."""
    if moved["n"] and moved[state] is None:
        return "∞"
    return METRICS[name].text(moved[state])


def signed(change: float | None) -> str:
    """A change with its sign: two decimals, or one digit where that is less than 0.1."""
    if change is None:
        return ""
    if abs(change) < 5e-7:
        return "±0"
    if abs(change) >= 0.1:
        return f"{change:+.2f}"
    return np.format_float_positional(change, precision=1, fractional=False, trim="-", sign=True)


def colour(share: float | None) -> str:
    """The ground of a cell: red where the metric says worse, blue where better, deeper with the share."""
    if share is None or abs(share) < BLIND:
        return "transparent"
    r, g, b = WORSE if share > 0 else BETTER
    return f"rgba({r},{g},{b},{min(abs(share), 1.0) * 0.6:.3f})"


def _figure(ideal: Change, real: Change, spacing_mm: Float[np.ndarray, "3"]) -> Figure:
    """Coronal slices: truth; the perturbed truth and reconstruction, each with its difference."""
    truth = real.after.truth_hu
    shown = [("truth", truth, False)]
    for name, change in (("truth", ideal), ("reconstruction", real)):
        hu = change.after.recon_hu
        shown += [(f"perturbed {name}", hu, False), ("- truth", hu - truth, True)]
    wide, high = (truth.shape[axis] * spacing_mm[axis] for axis in (0, 2))
    figure, panel = panels([1.0], [1.0] * len(shown))
    figure.set_figheight(min(11.0 / len(shown) * high / wide, 3.6) + 0.3)
    for axes, (title, hu, off) in zip(panel[0], shown):
        draw_slice(axes, hu, spacing_mm, PLANES[1], off, letters=False, place=real.focus[1])
        axes.set_title(title)
    return figure
