"""Patients updated (ADT^A08), merged (A40) and unlinked (A37).

The row of a merged patient points to its survivor: later instances with the old PatientID are the survivor's
(instance_rows.py). The attributes from ADT are in the row, and overrule those of instances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from index.database.connection import Database, tried_again
from index.database.instance_rows import identity_key
from index.database.mark_changed import mark_patients_changed
from index.database.tables import ImagingOrder, Patient, StudyVariant
from index.errors import IndexFault
from index.orders.patients.identities import (
    IDENTITY,
    UPDATED,
    current_attributes,
    is_same,
    issuer_names,
    known_identities,
    patient_columns,
    patient_row,
    rows_of,
)
from index.orders.patients.unlink import unlink_rows
from index.records import Attributes


class Ambiguous(IndexFault):
    """Raised when it is not clear which patient is meant, or the change is not possible."""


@dataclass(frozen=True, slots=True)
class PatientUpdate:
    """A patient's identifiers, that of the local authority first, and attributes. None: to be deleted."""

    identities: Sequence[Attributes]
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Merge:
    """Old identifiers of a patient, and the patient that they are merged into."""

    olds: Sequence[Attributes]
    survivor: PatientUpdate


class Patients:
    """The patients of an index. `local` is the authority whose PatientIDs scanners send without an issuer.

    Without it, a PatientID without an issuer belongs to the authority that the message names. An identifier
    that names no authority has the local one, else that of the other patient in a merge, else the only one
    that the index has for the number.
    """

    def __init__(self, database: Database, local: str | None = None) -> None:
        self._database = database
        self.local = local

    @tried_again
    def update(self, update: PatientUpdate) -> None:
        """Update a patient, its orders and its resource (ADT^A08).

        A patient without an order or a study is not added: many are never imaged. Raises Ambiguous.
        """
        with self._database.deciding():
            self._update(update)

    def _update(self, update: PatientUpdate) -> None:
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
            self._set_attributes(row, {k: v for k, v in update.attributes.items() if k in UPDATED})
        self._update_orders(sorted(rows), update.attributes)
        mark_patients_changed(self._database, sorted(rows))

    @tried_again
    def merge_all(self, merges: Sequence[Merge]) -> None:
        """Merge patients: survivors get all their studies and orders (ADT^A40). Raises Ambiguous."""
        with self._database.deciding():
            for merge in merges:
                for old in merge.olds:
                    survivor = self._counterpart(old, merge.survivor.identities)
                    attributes = merge.survivor.attributes
                    self._merge(self._named(old, survivor), self._named(survivor, old), attributes)

    def _counterpart(self, old: Attributes, survivors: Sequence[Attributes]) -> Attributes:
        """Return the survivor's identifier of the same authority, or the first one."""
        names = issuer_names(old) or ({self.local} if self.local else set())
        if not names:
            names = {name for one in known_identities(self._database, old) for name in issuer_names(one)}
        return next((one for one in survivors if names & issuer_names(one)), survivors[0])

    def _merge(self, old: Attributes, survivor: Attributes, attributes: Attributes) -> None:
        into = self._survivor_row(survivor)
        for identity in self._alternatives(old):
            patient_row(self._database, identity)
        gone = sorted(rows_of(self._database, self._alternatives(old), resolve=False) - {into})
        execute = self._database.execute
        # The survivor may have been merged into another patient before.
        execute(Patient.update(survivor=None, merged=None).where(Patient.id == into))
        execute(Patient.update(merged=into).where(Patient.id.in_(gone)))
        execute(Patient.update(survivor=into).where(Patient.id.in_(gone) | Patient.survivor.in_(gone)))
        mark_patients_changed(self._database, [*gone, into])
        execute(StudyVariant.update(patient=into).where(StudyVariant.patient.in_(gone)))
        execute(ImagingOrder.update(patient=into).where(ImagingOrder.patient.in_(gone)))
        identity = {k: survivor[k] for k in IDENTITY if survivor.get(k)}
        updated = {k: v for k, v in attributes.items() if k in UPDATED}
        self._set_attributes(into, {**identity, **updated}, other=old)
        self._update_orders([into], attributes)

    def _named(self, identity: Attributes, partner: Attributes | None = None) -> Attributes:
        """Return an identifier with its authority, if it has one. Raises Ambiguous."""
        if issuer_names(identity):
            return identity
        expected = {"IssuerOfPatientID": self.local} if self.local else partner or {}
        wanted = issuer_names(expected)
        known = [one for one in known_identities(self._database, identity) if issuer_names(one)]
        agreeing = [one for one in known if wanted & issuer_names(one)]
        if wanted and (agreeing or not known or self.local):
            issuer = agreeing[0] if agreeing else expected
        elif not known:
            return identity
        elif wanted or any(not is_same(one, known[0]) for one in known):
            names = ", ".join(sorted({name for one in known for name in issuer_names(one)}))
            raise Ambiguous(f"the number is known of {names}: the assigning authority has to be named")
        else:
            issuer = known[0]
        return {**identity, **{k: issuer[k] for k in IDENTITY[1:] if issuer.get(k)}}

    def _alternatives(self, identity: Attributes) -> list[Attributes]:
        """Return the forms of an identifier: with each name of the authority; without, if that is local."""
        number = {"PatientID": identity["PatientID"]}
        names = issuer_names(identity)
        forms: list[Attributes] = [identity]
        forms += [{**number, "IssuerOfPatientID": name} for name in sorted(names)]
        if names:
            forms += [one for one in known_identities(self._database, identity) if names & issuer_names(one)]
        if names and (self.local is None or self.local in names):
            forms.append(number)
        return forms

    def _survivor_row(self, patient: Attributes) -> int:
        """Return the row of a survivor: its only row with studies, else that of its identifier."""
        patient_row(self._database, patient)
        own_key = Patient.key == identity_key(patient, "")
        ((exact,),) = self._database.rows(Patient.select(Patient.id).where(own_key))
        rows = rows_of(self._database, self._alternatives(patient), resolve=False)
        query = StudyVariant.select(StudyVariant.patient).where(StudyVariant.patient.in_(rows)).distinct()
        with_studies = [row for (row,) in self._database.rows(query)]
        return int(with_studies[0]) if len(with_studies) == 1 else int(exact)

    @tried_again
    def unlink(self, first: PatientUpdate, second: PatientUpdate) -> None:
        """Separate two patients of which one was merged into the other (ADT^A37), and update both.

        Two patients that are not merged are only updated. Raises Ambiguous if both were merged into a third.
        """
        with self._database.deciding():
            forms = [self._all_forms(update) for update in (first, second)]
            one, other = (rows_of(self._database, each, resolve=False) for each in forms)
            merged, identities, survivor = one, first.identities, self._survivor_of(one, other)
            if survivor is None:
                merged, identities, survivor = other, second.identities, self._survivor_of(other, one)
            if survivor is not None:
                unlink_rows(self._database, sorted(merged), survivor)
                self._remove_other(survivor, identities)
            elif rows_of(self._database, forms[0]) & rows_of(self._database, forms[1]):
                raise Ambiguous("both patients were merged into another one, which the message does not name")
            for update in (first, second):
                self._update(update)

    def _all_forms(self, update: PatientUpdate) -> list[Attributes]:
        return [one for identity in update.identities for one in self._alternatives(self._named(identity))]

    def _survivor_of(self, rows: set[int], others: set[int]) -> int | None:
        """Return which of the other rows one of these rows was merged into; None: none of them."""
        query = Patient.select(Patient.survivor).where(Patient.id.in_(rows) & Patient.survivor.in_(others))
        return next((int(row) for (row,) in self._database.rows(query)), None)

    def _remove_other(self, row: int, identities: Sequence[Attributes]) -> None:
        ((before,),) = self._database.rows(Patient.select(Patient.attributes).where(Patient.id == row))
        others = [
            one
            for one in before.pop("OtherPatientIDsSequence", [])
            if not any(is_same(one, identity) for identity in identities)
        ]
        now = {**before, "OtherPatientIDsSequence": others} if others else before
        self._database.execute(Patient.update(attributes=now).where(Patient.id == row))

    def _set_attributes(
        self, row: int, attributes: dict[str, Any], *, other: Attributes | None = None
    ) -> None:
        """Set attributes of a patient; `other` is added to its OtherPatientIDsSequence."""
        ((before,),) = self._database.rows(Patient.select(Patient.attributes).where(Patient.id == row))
        now = {**before, **attributes}
        if other:
            identity = {k: other[k] for k in IDENTITY if other.get(k)}
            others = [one for one in before.get("OtherPatientIDsSequence", []) if one != identity]
            now["OtherPatientIDsSequence"] = [*others, identity]
        self._database.execute(Patient.update(attributes=now).where(Patient.id == row))

    def _update_orders(self, patients: Sequence[int], patient: Attributes) -> None:
        """Update the patient attributes of the orders of these patients (row ids)."""
        table = ImagingOrder
        query = table.select(table.id, table.patient, table.patient_attributes)
        given = {k: v for k, v in patient.items() if k not in IDENTITY}
        for order, row, attributes in self._database.rows(query.where(table.patient.in_(patients))):
            now = current_attributes(self._database, row, {**attributes, **given})
            self._database.execute(table.update(**patient_columns(now)).where(table.id == order))
