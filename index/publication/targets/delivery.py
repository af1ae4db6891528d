"""One study to one target: what is to be written, how, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import structlog

from index.publication.targets.entries import Entry, Material, entries, ordered, study_condition
from index.publication.targets.http.answers import NO_FHIR, Action, Result, judge, no_answer, worse
from index.publication.targets.http.capability import Capability, capability_of
from index.publication.targets.http.client import Answer, NoAnswer, TargetClient
from index.publication.targets.knowledge import Current, Knowledge, Learnt, by_identifier, gives_ids
from index.publication.targets.look_up import NotFoundThere, find, search
from index.publication.targets.outbox import IMAGING_STUDY, Pending
from index.publication.targets.settings import TargetSettings
from index.publication.targets.webhook import tell

log = structlog.get_logger(__name__)

# It no longer exists there: that is what was wanted (FHIR http.html#delete).
_GONE = (404, 410)
# Others there still refer to it, or the server deletes nothing: then it stays, and harms nobody.
_STAYS = (403, 405, 409)
_VERSION_CONFLICT = 412
_SERVER_ERROR = 5
# Nobody answers at all now, or wants to be asked.
_AWAY = (429, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be sent, as it is now. `keys`: nothing else with one of them is sent at the same time."""

    pending: Pending
    resources: Sequence[Current]
    learnt: Mapping[str, Learnt]
    keys: frozenset[str]


class Delivery:
    """Sends what is pending to one target. Safe to use from many threads."""

    def __init__(self, settings: TargetSettings, client: TargetClient, knowledge: Knowledge) -> None:
        self._settings = settings
        self._client = client
        self._knowledge = knowledge
        self._capability: Capability | None = None
        self._transactions = settings.method == "transaction"

    def plan(self, pending: Pending) -> Plan:
        """Read what is to be sent. Raises NotKept."""
        if pending.type == IMAGING_STUDY:
            resources: Sequence[Current] = self._knowledge.current(pending.name)
        else:
            found = self._knowledge.one(pending.type, pending.name)
            resources = [found] if found else ()
        own = f"{pending.type}/{pending.name}"
        learnt = self._knowledge.learnt(
            [(pending.type, pending.name), *((r.type, r.name) for r in resources)]
        )
        # A patient must not be made twice; another resource neither, while the server does not have it.
        shared = {
            one.local
            for one in resources
            if one.type == "Patient" or learnt.get(one.local, Learnt("")).sha256 != one.sha256
        }
        return Plan(pending, resources, learnt, frozenset((own, *shared)))

    def deliver(self, plan: Plan) -> Result:
        """Send it. No exception tells of the server; raises NotKept."""
        learnt: dict[str, Learnt] = {}
        try:
            if self._settings.method == "webhook":
                return self._tell(plan)
            if (wrong := self._check_capability()) is not None:
                return wrong
            if not plan.resources:
                return self._delete(plan)
            if plan.pending.type != IMAGING_STUDY:
                # It is there again: a study brings it.
                return Result(Action.DONE)
            result = self._send(plan)
            learnt = result.learnt
            if result.action is Action.FORGET and (known := {**plan.learnt, **learnt}):
                log.info("publish_once_more", target=self._settings.name, reason=result.reason)
                result = self._send_again(plan, known)
        except NotFoundThere as error:
            result = replace(error.result, learnt=learnt)
        except NoAnswer as error:
            result = replace(no_answer(error), learnt=learnt)
        self._note_ids(result.learnt)
        return replace(result, action=Action.GIVE_UP) if result.action is Action.FORGET else result

    def _send_again(self, plan: Plan, known: Mapping[str, Learnt]) -> Result:
        """Send all of it once more, as if nothing were known but the ids that the server has given."""
        certain = {local: Learnt(one.server_id) for local, one in known.items() if self._has(local, one)}
        result = self._send(replace(plan, learnt=certain))
        learnt = {**certain, **result.learnt}
        return replace(result, learnt=learnt, forgotten=tuple(set(known) - set(learnt)))

    def _has(self, local: str, known: Learnt) -> bool:
        """Return whether the server still has something under an id that it has given.

        Written without that id, it would be there twice. Raises NotFoundThere, NoAnswer.
        """
        kind, _, name = local.partition("/")
        if kind in self._settings.found_types or known.server_id in ("", name):
            return False
        answer = self._client.request("GET", f"{kind}/{known.server_id}")
        result = judge(answer)
        if result.action is not Action.DONE and answer.status not in _GONE:
            raise NotFoundThere(result)
        return result.action is Action.DONE

    def _note_ids(self, learnt: Mapping[str, Learnt]) -> None:
        """Find resources by their identifiers from now on, where the server has given one another id.

        An answer that is lost would otherwise leave a second one there.
        """
        if self._settings.write == "put" and gives_ids(learnt, self._settings.found_types):
            log.warning("target_gives_ids", target=self._settings.name, advice='set write = "conditional"')
            self._settings = by_identifier(self._settings)

    def _tell(self, plan: Plan) -> Result:
        """Tell a webhook. Only of studies: other resources are parts of them."""
        if plan.pending.type != IMAGING_STUDY:
            return Result(Action.DONE)
        study = next((one for one in plan.resources if one.type == IMAGING_STUDY), None)
        complete = self._knowledge.complete(plan.pending.name) if study else None
        result = tell(self._client, self._settings, plan.pending, study, complete)
        return replace(result, action=Action.GIVE_UP) if result.action is Action.FORGET else result

    def _check_capability(self) -> Result | None:
        """Read once what the server can do; return what is wrong with it."""
        if self._capability is None:
            self._settings = self._knowledge.in_force(self._settings)
            answer = self._client.request("GET", "metadata")
            if answer.status in _AWAY:
                return judge(answer)
            capability = capability_of(answer)
            if wrong := capability.other_version(self._settings.version):
                return Result(Action.PAUSE, wrong)
            if self._transactions and capability.transactions is False:
                log.warning("target_without_transactions", target=self._settings.name)
                self._transactions = False
            # What a server could not say is asked again.
            self._capability = capability if capability.status // 100 != _SERVER_ERROR else None
        return None

    def _send(self, plan: Plan) -> Result:
        material = self._look_up(Material(ordered(plan.resources), plan.learnt))
        looked_up = {local: one for local, one in material.learnt.items() if plan.learnt.get(local) != one}
        send: Callable[[Material], Result] = self._transaction if self._transactions else self._one_by_one
        result = send(material)
        if result.action is Action.SPLIT:
            result = self._one_by_one(material)
            if result.action is Action.SPLIT:
                result = replace(result, action=Action.GIVE_UP)
        return replace(result, learnt={**looked_up, **result.learnt}, is_provisional=bool(material.missing))

    def _look_up(self, material: Material) -> Material:
        """Find what the server is the master of. Raises NotFoundThere, NoAnswer."""
        learnt, missing = dict(material.learnt), set()
        for current, resource in material.resources:
            if current.type not in self._settings.found_types:
                continue
            known = learnt.get(current.local)
            if known is not None and known.sha256 == current.sha256:
                continue
            learnt.pop(current.local, None)
            try:
                name = find(self._client, resource)
            except NotFoundThere as error:
                is_held = current.type == "Patient" and self._settings.unknown_patients == "hold"
                if is_held or not error.is_absent:
                    raise
                missing.add(current.local)
            else:
                learnt[current.local] = Learnt(name, sha256=current.sha256)
        return Material(material.resources, learnt, frozenset(missing))

    def _transaction(self, material: Material) -> Result:
        """Write all by one Bundle (FHIR http.html#transaction)."""
        sent = entries(self._settings, material, for_bundle=True)
        if not sent:
            return Result(Action.DONE)
        bundle = {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [one.in_bundle() for one in sent],
        }
        answer = self._client.request("POST", "", orjson.dumps(bundle), Prefer="return=minimal")
        result = judge(answer)
        if result.action is not Action.DONE:
            self._log_conflict(answer.status, sent)
            return result
        answers = _entry_answers(answer, len(sent))
        if answers is None:
            return Result(Action.SUSPECT, NO_FHIR)
        return self._judge_entries(sent, answers)

    def _judge_entries(self, sent: Sequence[Entry], answers: Sequence[Answer]) -> Result:
        """Return the worst of an answer's parts; what succeeded is learnt all the same."""
        learnt, worst = {}, Result(Action.DONE)
        for entry, answer in zip(sent, answers, strict=True):
            result = judge(answer)
            if result.action is Action.DONE:
                learnt[entry.local] = self._with_id(_learnt(entry, answer), entry)
            else:
                self._log_conflict(answer.status, [entry])
                why = f"{entry.local.partition('/')[0]}: {result.reason}"
                worst = worse(worst, replace(result, reason=why))
        return replace(worst, learnt=learnt)

    def _one_by_one(self, material: Material) -> Result:
        """Write one resource after the other, those referred to first (FHIR http.html#update)."""
        learnt: dict[str, Learnt] = {}
        for one in material.resources:
            known = {**material.learnt, **learnt}
            # Only this one, with what is known of all.
            wanted = Material(material.resources, known, material.missing)
            for entry in entries(self._settings, wanted, for_bundle=False):
                if entry.local != one[0].local:
                    continue
                headers = {"If-Match": entry.etag} if entry.etag else {}
                try:
                    answer = self._client.request("PUT", entry.url, orjson.dumps(entry.body), **headers)
                except NoAnswer as error:
                    return replace(no_answer(error), learnt=learnt)
                result = judge(answer)
                if result.action is not Action.DONE:
                    self._log_conflict(answer.status, [entry])
                    why = f"{one[0].type}: {result.reason}"
                    return replace(result, reason=why, learnt=learnt)
                learnt[entry.local] = self._with_id(_learnt(entry, answer), entry)
        return Result(Action.DONE, learnt=learnt)

    def _with_id(self, learnt: Learnt, entry: Entry) -> Learnt:
        """Return it with the id that the server has given, where its answer did not say it."""
        if learnt.server_id:
            return learnt
        kind, _, query = entry.url.partition("?")
        found = search(self._client, kind, query)
        if len(found) != 1:
            raise NotFoundThere(Result(Action.SUSPECT, f"{kind}: what was written is not found by its key"))
        return replace(learnt, server_id=found[0]["id"])

    def _delete(self, plan: Plan) -> Result:
        pending = plan.pending
        is_study = pending.type == IMAGING_STUDY
        conditional = self._settings.write == "conditional"
        if pending.type in self._settings.found_types or (conditional and not is_study):
            return Result(Action.DONE, forgotten=tuple(plan.learnt))
        names = [one.server_id for one in plan.learnt.values()]
        if not names and conditional:
            condition = study_condition(self._settings, pending.name)
            names = [one["id"] for one in search(self._client, IMAGING_STUDY, condition)]
        for name in names or ([] if conditional else [pending.name]):
            answer = self._client.request("DELETE", f"{pending.type}/{name}")
            result = judge(answer)
            is_over = answer.status in _GONE or (not is_study and answer.status in _STAYS)
            if result.action is not Action.DONE and not is_over:
                if result.action is Action.SPLIT:
                    result = replace(result, action=Action.GIVE_UP)
                return result
        return Result(Action.DONE, forgotten=tuple(plan.learnt))

    def _log_conflict(self, status: int, sent: Sequence[Entry]) -> None:
        if status == _VERSION_CONFLICT and any(one.etag for one in sent):
            names = [one.local for one in sent if one.etag]
            log.warning("published_resource_changed_there", target=self._settings.name, resources=names)


def _entry_answers(answer: Answer, count: int) -> list[Answer] | None:
    """Return the answers to the parts of a transaction; None: it is not one."""
    bundle = answer.resource
    if bundle is None or bundle["resourceType"] != "Bundle":
        return None
    parts = bundle.get("entry")
    if not isinstance(parts, list) or len(parts) != count:
        return None
    try:
        return [_entry_answer(part) for part in parts]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _entry_answer(part: Mapping[str, Any]) -> Answer:
    response = part["response"]
    outcome = response.get("outcome") or part.get("resource")
    headers = {
        "location": str(response.get("location") or ""),
        "etag": str(response.get("etag") or ""),
    }
    return Answer(int(str(response["status"])[:3]), headers, orjson.dumps(outcome) if outcome else b"")


def _learnt(entry: Entry, answer: Answer) -> Learnt:
    """Return what an answer says of a resource: its id and version there (FHIR http.html#update)."""
    kind = entry.local.partition("/")[0]
    resource = answer.resource or {}
    found = resource if resource.get("resourceType") == kind else {}
    parts = answer.headers.get("location", "").rstrip("/").split("/")
    if "_history" in parts:
        parts = parts[: parts.index("_history")]
    name = parts[-1] if parts[-2:-1] == [kind] else str(found.get("id") or "")
    if not name and "?" not in entry.url:
        name = entry.url.partition("/")[2]
    return Learnt(name, answer.headers.get("etag", ""), entry.sha256)
