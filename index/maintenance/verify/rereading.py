"""An instance's row made again from its object, where the row is wrong and the object is whole."""

from collections.abc import Iterable
from typing import Any

from peewee import JOIN

from index.database.instance_rows import InstanceRows, StoredObject, patient_key, study_digest
from index.database.tables import Instance, Series, SeriesVariant, Source, Study, StudyVariant, canonical
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import IndexFault
from index.maintenance.verify.context import VerifyContext
from index.maintenance.verify.counts import recount
from index.records import Header, Origin
from index.storage.durable import open_file

# What `describe` gives, as columns; of instances joined with all that they refer to.
SAID = (
    Instance.uid,
    Instance.sop_class_uid,
    Study.uid,
    Series.uid,
    StudyVariant.digest,
    StudyVariant.attributes,
    SeriesVariant.attributes,
    Instance.attributes,
)


def describe(header: Header) -> tuple[str, ...]:
    """Return what a row, with those that it refers to, is to say of an instance."""
    return (
        header.sop_instance_uid,
        header.sop_class_uid,
        header.study_uid,
        header.series_uid,
        study_digest(patient_key(header), canonical(header.patient), canonical(header.study)),
        canonical(header.study),
        canonical(header.series),
        canonical(header.instance),
    )


def said(values: Iterable[Any]) -> tuple[str, ...]:
    """Return what a row says, its SAID columns, in the same form."""
    return tuple(value if isinstance(value, str) else canonical(value) for value in values)


def reread(context: VerifyContext, row: int) -> bool:
    """Make a row and all that hangs on it again from its object; return whether that could be done."""
    query = Instance.select(
        Instance.path,
        Instance.size,
        Instance.sha1,
        Instance.received,
        Source.calling_aet,
        Source.called_aet,
        Source.address,
        Series.study,
    )
    query = query.join(Source, JOIN.LEFT_OUTER).join_from(Instance, Series, JOIN.LEFT_OUTER)
    rows = context.database.rows(query.where(Instance.id == row))
    for path, size, sha1, received, calling, called, address, study in rows:
        try:
            with open_file(context.data / path) as file:
                header, meta = read_object(file)
        except (NotPart10, IndexFault, OSError):
            return False
        origin = Origin(calling or "", called or "", address or "")
        filed = StoredObject(header, origin, meta.transfer_syntax, path, size, sha1, received)
        with context.database.writing():
            writer = InstanceRows(context.database)
            known = writer.find([header.sop_instance_uid]).get(header.sop_instance_uid)
            if known and known.id != row:
                return False
            context.database.execute(Instance.delete().where(Instance.id == row))
            for changed in {*writer.add([filed]), study} - {None}:
                recount(context.database, changed)
        return True
    return False
