"""Whether a target has what the index has, resource by resource; what it lacks is sent again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from index.database.connection import Database
from index.database.tables import Resource
from index.database.target_tables import PublishedAtTarget, PublishOutbox
from index.publication.resources import Resources
from index.publication.targets.entries import STUDY_UID, Entry, Material, condition, entries, keys, ordered
from index.publication.targets.http.answers import Action, judge
from index.publication.targets.http.client import NoAnswer, TargetClient
from index.publication.targets.knowledge import Knowledge, Learnt
from index.publication.targets.look_up import NotFoundThere, search
from index.publication.targets.outbox import IMAGING_STUDY, TargetOutbox
from index.publication.targets.settings import TargetSettings

# Studies that are looked up at a time.
PAGE = 500
_GONE = (404, 410)
MISSING = "is missing"
# Of what a second one would do harm.
_SEARCHED = (IMAGING_STUDY, "Patient")


@dataclass(frozen=True, slots=True)
class Difference:
    """A resource that the target does not have as we do, and whether it will be sent again."""

    type: str
    name: str
    what: str
    is_mended: bool


class TargetVerification:
    """One comparison of a target. `mends`: what differs is put into the outbox."""

    def __init__(
        self, database: Database, resources: Resources, settings: TargetSettings, *, mends: bool
    ) -> None:
        self._database = database
        self._mends = mends
        self._knowledge = Knowledge(database, resources, settings.name, settings.version)
        self._settings = self._knowledge.in_force(settings)
        self._outbox = TargetOutbox(database, settings)
        self._compared: set[str] = set()
        # What differs, by study.
        self._wrong: dict[str, dict[str, str]] = {}
        self._searches = True
        self.count = 0

    def run(self) -> Iterator[Difference]:
        """Compare all; yield what differs. What still waits is left out. Raises NoAnswer, NotKept."""
        client = TargetClient(self._settings)
        try:
            for name in self._studies():
                if not self._waits(IMAGING_STUDY, name):
                    yield from self._study(client, name)
            yield from self._deleted(client)
            if self._mends:
                self._mend()
        finally:
            client.close()

    def _mend(self) -> None:
        """Let what differs be sent again. At the end: what is forgotten could no longer be compared."""
        for uid, wrong in self._wrong.items():
            absent = [local for local, what in wrong.items() if what == MISSING]
            known = self._knowledge.learnt(tuple(local.split("/", 1)) for local in wrong.keys() - {*absent})  # type: ignore[misc]  # pairs
            with self._database.writing():
                others = self._knowledge.referring(absent)
                # Under the id that it has there: it would be there twice otherwise.
                self._knowledge.keep({local: Learnt(one.server_id) for local, one in known.items()}, absent)
                self._outbox.add_studies([uid, *others])

    def _studies(self) -> Iterator[str]:
        last, row = 0, Resource
        which = (row.fhir == self._settings.version) & (row.type == IMAGING_STUDY) & (row.deleted == 0)
        query = row.select(row.id, row.name).order_by(row.id).limit(PAGE)
        while rows := self._database.rows(query.where(which, row.id > last)):
            last = rows[-1][0]
            for _, name in rows:
                yield name

    def _waits(self, kind: str, name: str) -> bool:
        row = PublishOutbox
        is_it = (row.target == self._settings.name) & (row.type == kind) & (row.name == name)
        return bool(self._database.rows(row.select(row.id).where(is_it).limit(1)))

    def _study(self, client: TargetClient, uid: str) -> Iterator[Difference]:
        resources = self._knowledge.current(uid)
        learnt = self._knowledge.learnt([(one.type, one.name) for one in resources])
        found = self._settings.found_types
        missing = {one.local for one in resources if one.type in found and one.local not in learnt}
        # As if nothing had been sent: all of it is wanted.
        unsent = {local: replace(one, sha256="", etag="") for local, one in learnt.items()}
        material = Material(ordered(resources), unsent, frozenset(missing))
        wrong = {}
        for entry in entries(self._settings, material, for_bundle=False):
            if entry.local in self._compared:
                continue
            self._compared.add(entry.local)
            self.count += 1
            if what := _compare(client, entry):
                wrong[entry.local] = what
            yield from self._twice(client, entry)
        if wrong:
            self._wrong[uid] = wrong
        for local, what in wrong.items():
            kind, _, name = local.partition("/")
            yield Difference(kind, name, what, self._mends)

    def _twice(self, client: TargetClient, entry: Entry) -> Iterator[Difference]:
        """Yield what the server has besides of the same study or patient, where it can be searched."""
        kind = entry.local.partition("/")[0]
        if kind not in _SEARCHED or not self._searches or "?" in entry.url or not _keys(entry.body):
            return
        own = {**entry.body, "id": entry.local.partition("/")[2]}
        try:
            found = search(client, kind, condition(self._settings, own))
        except NotFoundThere:
            self._searches = False
            return
        for one in found:
            if one["id"] != entry.body["id"] and _is_same(one, entry.body):
                yield Difference(kind, one["id"], f"is a second {entry.local}", is_mended=False)

    def _deleted(self, client: TargetClient) -> Iterator[Difference]:
        """Yield what was deleted here, and is there still."""
        sent, row = PublishedAtTarget, Resource
        is_same = (row.fhir == self._settings.version) & (row.type == sent.type) & (row.name == sent.name)
        query = sent.select(sent.type, sent.name, sent.server_id).join(row, on=is_same)
        which = (sent.target == self._settings.name) & (row.deleted == 1)
        for kind, name, server_id in self._database.rows(query.where(which)):
            if kind in self._settings.found_types or self._waits(kind, name):
                continue
            if client.request("GET", f"{kind}/{server_id}").status in _GONE:
                continue
            is_mended = self._mends and kind == IMAGING_STUDY
            if is_mended:
                with self._database.writing():
                    self._outbox.add_studies([name])
            yield Difference(kind, name, "is deleted here, and still there", is_mended)


def _compare(client: TargetClient, entry: Entry) -> str:
    """Return how what the server has differs; empty: it does not. Raises NoAnswer."""
    if "?" in entry.url:
        return "was never sent"
    answer = client.request("GET", entry.url)
    if answer.status in _GONE:
        return MISSING
    result = judge(answer)
    if result.action is not Action.DONE or answer.resource is None:
        raise NoAnswer(result.reason or "the answer is no FHIR resource", is_reached=True)
    there = _plain(answer.resource, entry.body)
    here = _plain(entry.body, entry.body)
    differing = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
    return f"differs: {', '.join(differing)}" if differing else ""


def _plain(resource: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource without what servers add: meta, and a narrative where we have none."""
    added = {"meta"} if "text" in ours else {"meta", "text"}
    return {name: value for name, value in resource.items() if name not in added}


def _is_same(one: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Return whether two resources share a key: a server may ignore what it is asked for."""
    return bool(_keys(one) & _keys(ours))


def _keys(resource: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return what a resource is told by. Several studies may share an Accession Number."""
    found = {(str(one["system"]), str(one["value"])) for one in keys(resource)}
    if resource["resourceType"] == IMAGING_STUDY:
        found = {one for one in found if one[0] == STUDY_UID} | {("", str(resource.get("uid") or ""))} - {
            ("", "")
        }
    return found
