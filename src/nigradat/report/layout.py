"""What all pages share: sections, figures with their captions, key numbers, and the base template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from nigradat import __version__
from nigradat.errors import MissingExtraError
from nigradat.models.weights import INTENDED_USE


@dataclass(frozen=True)
class Drawing:
    """A figure as it is stored and shown; ``png`` where it is stored as that, too."""

    name: str
    kind: str
    caption: str
    alt: str
    label: str
    svg: str
    png: bytes | None = None


@dataclass(frozen=True)
class Listing:
    """A titled text, or a titled table as HTML."""

    title: str
    text: str


@dataclass(frozen=True)
class KeyNumber:
    """A number that is read first."""

    name: str
    value: str
    interval: str


@dataclass(frozen=True)
class Section:
    """A section of a page; what is empty is not shown. ``tables`` are HTML, ``more`` are such tables, folded."""

    id: str
    title: str
    paragraphs: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[str, ...] = ()
    more: tuple[Listing, ...] = ()
    listings: tuple[Listing, ...] = ()

    @property
    def has_content(self) -> bool:
        """Anything to show."""
        return any((self.paragraphs, self.points, self.drawings, self.tables, self.more, self.listings))


def render(
    template: str,
    *,
    title: str,
    headline: str,
    opening: Section,
    key_numbers: Sequence[KeyNumber],
    sections: Sequence[Section],
    **values: Any,
) -> str:
    """A page as one HTML file that needs nothing but itself.

    Args:
        template: name of a file in ``templates`` that extends ``page.html``.
        title, headline: the headline says what was trained on what, and comes first.
        opening: of the first section, which the template fills around the key numbers.
        key_numbers: what is read first.
        sections: the others; empty ones are left out.
        values: what the template's own blocks need.

    Raises:
        MissingExtraError: Jinja2 is not installed (extra ``report``).
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    environment = Environment(
        loader=PackageLoader("nigradat.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(template).render(
        title=title,
        headline=headline,
        style=(resources.files("nigradat.report") / "templates" / "style.css").read_text(encoding="utf-8"),
        intended_use=INTENDED_USE,
        opening=opening,
        key_numbers=key_numbers,
        sections=[section for section in sections if section.has_content],
        version=__version__,
        **values,
    )
    return page
