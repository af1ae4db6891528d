"""Which part of the body a series shows, and which side: what is true of all its instances, or nothing."""

import re
from collections.abc import Sequence

from index.imagingstudy.codes import coding
from index.imagingstudy.context import BuildContext
from index.imagingstudy.terminology.body_parts import BODY_PARTS
from index.imagingstudy.terminology.systems import SNOMED
from index.imagingstudy.values import first, items
from index.records import Attributes, Series

_IGNORED = re.compile(r"[\s_-]+")
"""In BodyPartExamined (0018,0015): C SPINE, C-Spine and c_spine are written for CSPINE."""

_BOTH = frozenset("LRB")


def body_site(context: BuildContext, series: Series) -> dict[str, str]:
    """Return the Coding of the body part that all instances and frames show. Empty: none, or they differ.

    AnatomicRegionSequence (0008,2218) as it is, else BodyPartExamined (0018,0015) by PS3.16 Annex L.
    Where the regions differ, a body part that all instances name is still true of all.
    """
    sets = []
    for body in bodies(series):
        part = _part(body)
        regions = _regions(context, body, part)
        if regions:
            sets.append((regions, part))
    if not sets:
        return {}
    for sites in (list(group) for group in zip(*sets, strict=True)):
        distinct = {_key(site): site for site in reversed([site for group in sites for site in group])}
        if all(sites) and len(distinct) == 1:
            return next(iter(distinct.values()))
    context.issues.add(f"series {series.uid}", "its instances or frames show several body parts, left out")
    return {}


def laterality(context: BuildContext, series: Series) -> dict[str, str]:
    """Return the Coding of the side that all instances and frames show. Empty: none, or they differ.

    FrameLaterality (0020,9072) and ImageLaterality (0020,0062), else Laterality (0020,0060). Left and right
    are bilateral. Where Laterality differs from the images' own, the side is not known. U, unpaired, has no
    code.
    """
    images: set[str] = set()
    every: set[str] = set()
    for body in bodies(series):
        frames = [first(item, "FrameLaterality") for item in items(body, "FrameAnatomySequence")]
        own = {side.upper() for side in (*frames, first(body, "ImageLaterality")) if side}
        of_series = {first(body, "Laterality").upper()} - {""}
        images |= own or of_series
        every |= own | of_series
    side = _combined(images)
    if every and (not side or side != _combined(every)):
        context.issues.add(f"series {series.uid}", "its instances or frames differ in laterality, left out")
        return {}
    if side == "U":
        return {"display": "Unpaired"}
    known = context.dialect.lateralities.get(side)
    if known:
        return {"system": SNOMED, "code": known[0], "display": known[1]}
    return {"display": side} if side else {}


def bodies(series: Series) -> Sequence[Attributes]:
    """Return each distinct set of the instances' attributes of the patient's body."""
    return series.body or (series.attributes,)


def _regions(context: BuildContext, body: Attributes, part: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a Coding for each region of one set of attributes; BodyPartExamined where it has none.

    A code of a known scheme is preferred to Annex L, and Annex L to a code of an unknown scheme.
    """
    sources = [*items(body, "FrameAnatomySequence"), body]
    regions = [item for source in sources for item in items(source, "AnatomicRegionSequence")]
    coded = [code for code in (coding(item, context.rules, context.dialect) for item in regions) if code]
    if part and "system" in part[0] and not all("system" in code for code in coded):
        return part
    return coded or part


def _part(body: Attributes) -> list[dict[str, str]]:
    """Return BodyPartExamined as a Coding; one that Annex L does not have is a display alone."""
    text = first(body, "BodyPartExamined")
    known = BODY_PARTS.get(text) or BODY_PARTS.get(_plain(text))
    if known:
        return [{"system": SNOMED, "code": known[0], "display": known[1]}]
    return [{"display": text}] if text else []


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).upper()


def _key(site: dict[str, str]) -> tuple[str, str]:
    """Return what equal sites have in common: system and code, or else the text."""
    return (site["system"], site["code"]) if "system" in site else ("", _plain(site.get("display", "")))


def _combined(sides: set[str]) -> str:
    """Return the only side, or B where both occur. Empty: none, or they differ in another way."""
    if len(sides) == 1:
        return next(iter(sides))
    return "B" if sides and sides <= _BOTH else ""
