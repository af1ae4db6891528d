"""Which part of the body a series shows, and of which side: what is true of all its instances, or nothing."""

import re
from collections.abc import Sequence

from index.imagingstudy.codes import coding
from index.imagingstudy.context import Build
from index.imagingstudy.terminology.body_parts import BODY_PARTS
from index.imagingstudy.terminology.systems import SNOMED
from index.imagingstudy.values import first, items
from index.records import Attributes, Series

_IGNORED = re.compile(r"[\s_-]+")
"""In BodyPartExamined (0018,0015): people write C SPINE, C-Spine and c_spine for CSPINE."""

_BOTH = frozenset("LRB")


def body_site(build: Build, series: Series) -> dict[str, str]:
    """Return the Coding of the body part that all instances and frames show. Empty: none, or they differ.

    AnatomicRegionSequence (0008,2218) as it stands, else BodyPartExamined (0018,0015) by PS3.16 Annex L.
    Where the regions differ, a body part that all instances name is still true of all.
    """
    said = []
    for one in bodies(series):
        part = _part(one)
        regions = _regions(build, one, part)
        if regions:
            said.append((regions, part))
    if not said:
        return {}
    for sites in (list(group) for group in zip(*said, strict=True)):
        distinct = {_key(site): site for site in reversed([site for group in sites for site in group])}
        if all(sites) and len(distinct) == 1:
            return next(iter(distinct.values()))
    build.doubts.add(f"series {series.uid}", "its instances or frames show several body parts, left out")
    return {}


def laterality(build: Build, series: Series) -> dict[str, str]:
    """Return the Coding of the side that all instances and frames show. Empty: none, or they differ.

    FrameLaterality (0020,9072) and ImageLaterality (0020,0062), else Laterality (0020,0060). Left and right
    are bilateral. A Laterality that says another thing than the images themselves makes it unknown. U,
    unpaired, has no code.
    """
    images: set[str] = set()
    every: set[str] = set()
    for one in bodies(series):
        frames = [first(item, "FrameLaterality") for item in items(one, "FrameAnatomySequence")]
        own = {side.upper() for side in (*frames, first(one, "ImageLaterality")) if side}
        of_series = {first(one, "Laterality").upper()} - {""}
        images |= own or of_series
        every |= own | of_series
    side = _together(images)
    if every and (not side or side != _together(every)):
        build.doubts.add(f"series {series.uid}", "its instances or frames differ in laterality, left out")
        return {}
    if side == "U":
        return {"display": "Unpaired"}
    known = build.dialect.lateralities.get(side)
    if known:
        return {"system": SNOMED, "code": known[0], "display": known[1]}
    return {"display": side} if side else {}


def bodies(series: Series) -> Sequence[Attributes]:
    """Return each distinct set of what instances say of the patient's body."""
    return series.body or (series.attributes,)


def _regions(build: Build, body: Attributes, part: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return what one set of attributes says, a Coding for each region; BodyPartExamined where it has none.

    A code of a known scheme goes before Annex L, Annex L before a code of an unknown one.
    """
    sources = [*items(body, "FrameAnatomySequence"), body]
    found = [item for source in sources for item in items(source, "AnatomicRegionSequence")]
    coded = [made for made in (coding(item, build.rules, build.dialect) for item in found) if made]
    if part and "system" in part[0] and not all("system" in made for made in coded):
        return part
    return coded or part


def _part(body: Attributes) -> list[dict[str, str]]:
    """Return BodyPartExamined as a Coding; one that Annex L does not have keeps its text as display."""
    text = first(body, "BodyPartExamined")
    known = BODY_PARTS.get(text) or BODY_PARTS.get(_plain(text))
    if known:
        return [{"system": SNOMED, "code": known[0], "display": known[1]}]
    return [{"display": text}] if text else []


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).upper()


def _key(site: dict[str, str]) -> tuple[str, str]:
    """Return what makes two sites one: system and code, or else the text."""
    return (site["system"], site["code"]) if "system" in site else ("", _plain(site.get("display", "")))


def _together(sides: set[str]) -> str:
    """Return the one side, or B where both occur. Empty: none, or they differ in another way."""
    if len(sides) == 1:
        return next(iter(sides))
    return "B" if sides and sides <= _BOTH else ""
