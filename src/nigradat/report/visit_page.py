"""Pages of the BIDS App: one for each visit, and for a participant with sessions one that leads to them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from nigradat.anatomy import Side
from nigradat.pair import Flag
from nigradat.report.layout import Drawing, KeyNumber, Listing, Section, render


def visit_page(
    name: str,
    *,
    found: Mapping[str, str],
    centres_mm: Mapping[Side, Sequence[float]],
    confidence: float,
    windows_png: bytes,
    flags: Sequence[Flag],
    sbr: Mapping[Side, float] | None = None,
    sbr_statement: str = "",
    regions_png: bytes = b"",
    steps: Sequence[str] = (),
) -> str:
    """The page as one HTML file that opens offline.

    Args:
        name: of the visit.
        found: what each scan was understood as, by kind of scan.
        centres_mm, confidence: nigrosome-1, RAS+ mm, and how sure the places are (0 to 1).
        windows_png: both windows, marked R and L.
        flags: what to look at.
        sbr: of both sides, where a SPECT was there.
        sbr_statement: how it was measured, or why it was not.
        regions_png: the regions on the SPECT that gave it, or nothing.
        steps: what was done to the voxels, in order.
    """
    shown = {flag.message: flag for flag in flags}
    warnings = [message for message, flag in shown.items() if flag.severity == "warning"]
    drawing = _picture("windows", "Both windows around nigrosome-1. R and L are the patient's.", windows_png)
    regions: tuple[Drawing, ...] = ()
    if regions_png:
        regions = (_picture("regions", "The regions on the DaT-SPECT. R and L are the patient's.", regions_png),)
    numbers = []
    for side in Side:
        place = ", ".join(f"{v:.1f}" for v in centres_mm[side])
        numbers.append(KeyNumber(f"nigrosome-1, {side.value}, RAS mm", place, f"confidence {confidence:.2f}"))
    if sbr is not None:
        numbers += [KeyNumber(f"SBR from SPECT, {side.value}", f"{sbr[side]:.2f}", "") for side in Side]
    rows = "".join(f"<tr><th scope='row'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in found.items())
    table = f'<div class="table"><table><caption>What was found</caption><tbody>{rows}</tbody></table></div>'
    return render(
        "visit.html",
        title=name,
        headline="Prepared by nigradat: look at both windows before anything is concluded from them.",
        opening=Section("overview", "Overview"),
        key_numbers=numbers,
        warnings=warnings,
        sections=[
            Section("windows", "Where nigrosome-1 was looked for", drawings=(drawing,)),
            Section("sbr", "SBR", paragraphs=(sbr_statement,) if sbr_statement else (), drawings=regions),
            Section("flags", "Remarks", points=tuple(shown)),
            Section("scans", "Scans", tables=(table,)),
            Section("steps", "What was done", listings=(Listing("In order", "\n".join(steps)),) if steps else ()),
        ],
    )


def failed_page(name: str, error: str) -> str:
    """The page of a visit that could not be prepared."""
    return render(
        "visit.html",
        title=name,
        headline="This visit could not be prepared.",
        opening=Section("overview", "Overview"),
        key_numbers=(),
        warnings=[error],
        sections=[],
    )


def participant_page(name: str, visits: Mapping[str, Sequence[str]]) -> str:
    """The page of a participant with sessions.

    Args:
        name: of the participant.
        visits: by visit, of each: confidence of the places, SBR right and left, and what to look at; in words.
    """
    head = "".join(
        f"<th scope='col'>{word}</th>" for word in ("Visit", "Confidence", "SBR right", "SBR left", "Remarks")
    )
    rows = "".join(
        f"<tr><th scope='row'><a href='{escape(visit)}.html'>{escape(visit)}</a></th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for visit, cells in visits.items()
    )
    table = (
        f'<div class="table"><table><caption>What was found</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    return render(
        "visit.html",
        title=name,
        headline="The page of each visit shows its windows: look at them before anything is concluded.",
        opening=Section("overview", "Overview"),
        key_numbers=(),
        warnings=(),
        sections=[Section("visits", "Visits", tables=(table,))],
    )


def _picture(name: str, caption: str, png: bytes) -> Drawing:
    data = base64.b64encode(png).decode("ascii")
    image = f'<img alt="" src="data:image/png;base64,{data}" style="max-width:100%">'
    return Drawing(name, "figure", caption, caption, "", image)
