"""A study: its story, why it is not in the EHR, its resources."""

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from index.errors import IndexFault, NotExpressible, NotFound
from index.facade import Index
from index.overview.situations import Situation
from index.overview.story import StudyStory

if TYPE_CHECKING:
    from index.publication.feed import Entry
    from index.publication.resources import StoredResource

VERSIONS = ("dstu2", "r4", "r5")
# The longest resource that is shown and compared, in bytes: one of 2,000 instances has a megabyte.
MAX_SHOWN = 512 * 1024
# Values of one attribute that differ, and UIDs that are missing, that are named.
MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a study is not in the EHR, or not as expected: what, why, and where that is mended."""

    what: str
    why: str
    address: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """A resource of the study in one FHIR version. `why_not`: why there is none, or empty."""

    fhir: str
    stored: "StoredResource | None"
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class StudyView:
    """What the page of a study shows."""

    story: StudyStory
    published: list[Published]
    reasons: list[Reason] = field(default_factory=list)

    @property
    def is_out(self) -> bool:
        """Whether a version of it is not published, or not as it is now."""
        return not self.story.is_published or any(one.why_not for one in self.published)


def study_view(index: Index, uid: str, versions: tuple[str, ...]) -> StudyView:
    """Return what the page of a study shows. Raises NotFound, NotKept."""
    story = index.overview.story(uid)
    published = [_published(index, story, fhir) for fhir in versions]
    return StudyView(story, published, [*_reasons(story, published)])


def _published(index: Index, story: StudyStory, fhir: str) -> Published:
    stored = index.resources.read(fhir, "ImagingStudy", story.uid)
    if stored and not stored.deleted:
        return Published(fhir, stored)
    try:
        index.resource(story.uid, fhir)
    except (NotExpressible, NotFound) as error:
        return Published(fhir, stored, str(error))
    return Published(fhir, stored, "it has not been published yet")


def _reasons(story: StudyStory, published: list[Published]) -> "list[Reason]":
    mine = f"/studies/{story.uid}"
    reasons = []
    if story.withdrawn:
        reasons.append(Reason("Deleted", "the study has been deleted; its resource says so, or is gone"))
    elif story.instances == 0:
        reasons.append(Reason("No instance", "no instance of the study is in the index"))
    if not story.is_published and not story.withdrawn:
        reasons.append(Reason("Unpublished", "it has changed since it was last published"))
    reasons += [Reason(f"Not in {one.fhir.upper()}", one.why_not) for one in published if one.why_not]
    for one in story.kept_aside[:MAX_NAMED]:
        which = "a data set of this study" if one.is_of_study else f"a data set of study {one.study_uid}"
        why = f"{which} has the SOP Instance UID {one.uid} of another one, and is kept aside"
        reasons.append(Reason("In conflict", why, f"/operating/accept?path={one.path}", "Accept it"))
    for sent in story.outbox:
        if sent.state == "dead":
            why = f"{sent.instances} instances cannot be sent to {sent.peer}: {sent.error}"
            reasons.append(Reason("Not forwarded", why, f"/operating/retry?uid={story.uid}", "Send again"))
        else:
            why = f"{sent.instances} instances wait for {sent.peer}" + (
                f": {sent.error}" if sent.error else ""
            )
            reasons.append(Reason("Being forwarded", why))
    if Situation.UNMATCHED in story.situations:
        why = story.doubt.replace("\n", "; ") or story.rule or "no order fits"
        reasons.append(Reason("No order", why, f"{mine}/match", "Match it"))
    if story.completeness.in_progress:
        steps = story.completeness
        reasons.append(
            Reason("In progress", f"{steps.in_progress} of {steps.steps} procedure steps have not ended")
        )
    if missing := story.completeness.missing:
        named = ", ".join(missing[:MAX_NAMED])
        reasons.append(
            Reason("Incomplete", f"{len(missing)} instances that steps name are not here: {named}")
        )
    return reasons


@dataclass(frozen=True, slots=True)
class ResourceView:
    """A resource as it is published, what the feed remembers of it, and what is to change in it.

    `difference`: lines of a unified diff to what would be published now; None where that is the same.
    """

    stored: "StoredResource"
    text: str
    history: "list[Entry]"
    difference: list[str] | None
    why_no_difference: str = ""


def resource_view(index: Index, uid: str, fhir: str) -> ResourceView:
    """Return the view of an ImagingStudy. Raises NotFound, NotKept."""
    stored = index.resources.read(fhir, "ImagingStudy", uid)
    if stored is None:
        raise NotFound(f"ImagingStudy {uid} was never published in {fhir.upper()}")
    text = _indented(stored.content)
    difference, why = None, ""
    if len(text) > MAX_SHOWN:
        why = f"the resource has {len(text)} bytes: it is not compared here"
    else:
        try:
            now = _indented(index.resource(uid, fhir)[0])
        except IndexFault as error:
            why = str(error)
        else:
            difference = _difference(text, now) if now != text else None
    history = index.resources.history(fhir, "ImagingStudy", uid)
    return ResourceView(stored, text[:MAX_SHOWN], history[::-1], difference, why)


def _difference(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "published", "now", lineterm="", n=2
    )
    return list(lines)


def _indented(content: bytes) -> str:
    return orjson.dumps(orjson.loads(content), option=orjson.OPT_INDENT_2).decode() if content else ""
