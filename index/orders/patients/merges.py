"""Patients as the hospital tells of them: who an order is for, what was updated (A08), who was merged (A40).

A merged patient's row points to its survivor: instances that still come with the old PatientID are counted
for the survivor (rows.py). What ADT says of a patient stands in the row and overrules what instances say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from index.database.connection import Database
from index.database.instance_rows import identity_key
from index.database.mark_changed import mark_patients_changed
from index.database.tables import ImagingOrder, Patient, StudyVariant
from index.errors import IndexFault
from index.orders.patients.identities import (
    IDENTITY,
    UPDATED,
    is_same,
    known_as,
    known_identities,
    names_of,
    patient_columns,
    patient_row,
    rows_of,
)
from index.orders.patients.unlink import part
from index.records import Attributes


class Ambiguous(IndexFault):
    """It cannot be told which patient is meant, or what is meant cannot be done; the text says why."""


@dataclass(frozen=True, slots=True)
class Update:
    """What the hospital says of a patient: all its identifiers, first of them ours. None: to be deleted."""

    identities: Sequence[Attributes]
    said: Attributes


@dataclass(frozen=True, slots=True)
class Merge:
    """Old identifiers of a patient, and the patient that has everything of them from now on."""

    olds: Sequence[Attributes]
    survivor: Update


class Patients:
    """Updates and merges. With `local` authority only its PatientIDs may come without an issuer.

    Scanners often leave the issuer out. Where none is configured, a PatientID without an issuer is taken for
    the one that the message names. An identifier without an authority is of the local one, else of that of
    the other patient in a merge, else of the one authority that the number is known of.
    """

    def __init__(self, database: Database, local: str | None = None) -> None:
        self._database = database
        self.local = local

    def update(self, update: Update) -> None:
        """Take over what the hospital says of a patient now (ADT^A08), for its orders and its resource.

        Of patients without an order or a study nothing is kept: a hospital has many that are never imaged.
        Raises Ambiguous.
        """
        with self._database.writing():
            self._update(update)

    def _update(self, update: Update) -> None:
        rows: set[int] = set()
        for identity in update.identities:
            try:
                named = self._named(identity)
            except Ambiguous:
                if len(update.identities) == 1:
                    raise
                continue
            rows |= rows_of(self._database, self._alternatives(named))
        for row in sorted(rows):
            self._say(row, {k: v for k, v in update.said.items() if k in UPDATED})
        self._rewrite_orders(sorted(rows), update.said)
        mark_patients_changed(self._database, sorted(rows))

    def merge_all(self, merges: Iterable[Merge]) -> None:
        """Let survivors have everything of old patients, now and later (ADT^A40). Raises Ambiguous."""
        with self._database.writing():
            for merge in merges:
                for old in merge.olds:
                    survivor = self._counterpart(old, merge.survivor.identities)
                    self._merge(self._named(old, survivor), self._named(survivor, old), merge.survivor.said)

    def _counterpart(self, old: Attributes, survivors: Sequence[Attributes]) -> Attributes:
        """Return the survivor's identifier of the same authority, or the first one."""
        names = names_of(old) or ({self.local} if self.local else set())
        if not names:
            names = {name for one in known_identities(self._database, old) for name in names_of(one)}
        return next((one for one in survivors if names & names_of(one)), survivors[0])

    def _merge(self, old: Attributes, survivor: Attributes, said: Attributes) -> None:
        into = self._survivor(survivor)
        for identity in self._alternatives(old):
            patient_row(self._database, identity)
        gone = sorted(rows_of(self._database, self._alternatives(old), resolve=False) - {into})
        execute = self._database.execute
        # A patient that was merged away before and survives now has come back.
        execute(Patient.update(survivor=None, merged=None).where(Patient.id == into))
        execute(Patient.update(merged=into).where(Patient.id.in_(gone)))
        execute(Patient.update(survivor=into).where(Patient.id.in_(gone) | Patient.survivor.in_(gone)))
        mark_patients_changed(self._database, [*gone, into])
        execute(StudyVariant.update(patient=into).where(StudyVariant.patient.in_(gone)))
        execute(ImagingOrder.update(patient=into).where(ImagingOrder.patient.in_(gone)))
        mine = {k: survivor[k] for k in IDENTITY if survivor.get(k)}
        self._say(into, {**mine, **{k: v for k, v in said.items() if k in UPDATED}}, also=old)
        self._rewrite_orders([into], said)

    def _named(self, identity: Attributes, partner: Attributes | None = None) -> Attributes:
        """Return an identifier with its authority, as far as that can be told. Raises Ambiguous."""
        if names_of(identity):
            return identity
        supposed = {"IssuerOfPatientID": self.local} if self.local else partner or {}
        wanted = names_of(supposed)
        known = [one for one in known_identities(self._database, identity) if names_of(one)]
        fitting = [one for one in known if wanted & names_of(one)]
        if wanted and (fitting or not known or self.local):
            issuer = fitting[0] if fitting else supposed
        elif not known:
            return identity
        elif wanted or any(not is_same(one, known[0]) for one in known):
            names = ", ".join(sorted({name for one in known for name in names_of(one)}))
            raise Ambiguous(f"the number is known of {names}: the assigning authority has to be named")
        else:
            issuer = known[0]
        return {**identity, **{k: issuer[k] for k in IDENTITY[1:] if issuer.get(k)}}

    def _alternatives(self, identity: Attributes) -> list[Attributes]:
        """Return what a patient may be called: by each name of the authority, by none where that is local."""
        number = {"PatientID": identity["PatientID"]}
        names = names_of(identity)
        made: list[Attributes] = [
            identity,
            *({**number, "IssuerOfPatientID": name} for name in sorted(names)),
        ]
        if names:
            made += [one for one in known_identities(self._database, identity) if names & names_of(one)]
        if names and (self.local is None or self.local in names):
            made.append(number)
        return made

    def _survivor(self, patient: Attributes) -> int:
        """Return the row of the survivor: the one that has studies, where only one of its rows has."""
        patient_row(self._database, patient)
        own_key = Patient.key == identity_key(patient, "")
        ((exact,),) = self._database.rows(Patient.select(Patient.id).where(own_key))
        rows = rows_of(self._database, self._alternatives(patient), resolve=False)
        query = StudyVariant.select(StudyVariant.patient).where(StudyVariant.patient.in_(rows)).distinct()
        with_studies = [row for (row,) in self._database.rows(query)]
        return int(with_studies[0]) if len(with_studies) == 1 else int(exact)

    def unlink(self, first: Update, second: Update) -> None:
        """Part two patients of whom one was merged into the other (ADT^A37); each is told of anew.

        Nothing is to be done where they are two. Raises Ambiguous where both went into a third one.
        """
        with self._database.writing():
            one, other = (self._all_rows(update) for update in (first, second))
            away, identities, root = one, first.identities, self._root(one, other)
            if root is None:
                away, identities, root = other, second.identities, self._root(other, one)
            if root is not None:
                part(self._database, sorted(away), root)
                self._forget_other(root, identities)
            elif rows_of(self._database, self._every(first)) & rows_of(self._database, self._every(second)):
                raise Ambiguous("both patients were merged into another one, which the message does not name")
            for update in (first, second):
                self._update(update)

    def _every(self, update: Update) -> list[Attributes]:
        return [one for identity in update.identities for one in self._alternatives(self._named(identity))]

    def _all_rows(self, update: Update) -> set[int]:
        return rows_of(self._database, self._every(update), resolve=False)

    def _root(self, gone: set[int], survivors: set[int]) -> int | None:
        """Return whom these rows were merged into, where that is one of the others."""
        query = Patient.select(Patient.survivor).where(Patient.id.in_(gone) & Patient.survivor.in_(survivors))
        return next((int(root) for (root,) in self._database.rows(query)), None)

    def _forget_other(self, row: int, identities: Sequence[Attributes]) -> None:
        ((before,),) = self._database.rows(Patient.select(Patient.attributes).where(Patient.id == row))
        others = [
            one
            for one in before.pop("OtherPatientIDsSequence", [])
            if not any(is_same(one, identity) for identity in identities)
        ]
        now = {**before, "OtherPatientIDsSequence": others} if others else before
        self._database.execute(Patient.update(attributes=now).where(Patient.id == row))

    def _say(self, row: int, said: dict[str, Any], *, also: Attributes | None = None) -> None:
        ((before,),) = self._database.rows(Patient.select(Patient.attributes).where(Patient.id == row))
        now = {**before, **said}
        if also:
            other = {k: also[k] for k in IDENTITY if also.get(k)}
            others = [one for one in before.get("OtherPatientIDsSequence", []) if one != other]
            now["OtherPatientIDsSequence"] = [*others, other]
        self._database.execute(Patient.update(attributes=now).where(Patient.id == row))

    def _rewrite_orders(self, patients: Sequence[int], patient: Attributes) -> None:
        """Bring what the worklist says of these patients up to date."""
        query = ImagingOrder.select(ImagingOrder.id, ImagingOrder.patient, ImagingOrder.patient_attributes)
        said = {k: v for k, v in patient.items() if k not in IDENTITY}
        for order, row, attributes in self._database.rows(query.where(ImagingOrder.patient.in_(patients))):
            now = known_as(self._database, row, {**attributes, **said})
            self._database.execute(
                ImagingOrder.update(**patient_columns(now)).where(ImagingOrder.id == order)
            )
