"""Queries of the Query/Retrieve Service Class, as data sets and by pynetdicom as SCU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from index import PATIENT_ROOT, STUDY_ROOT, Index, QueryOptions, StudyQuery

PATIENT_MODEL, STUDY_MODEL = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"


def identifier(level: str | None, **keys: Any) -> Dataset:
    """Return an identifier; a key of None has no value."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    if level is not None:
        dataset.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(dataset, keyword, "" if value is None else value)
    return dataset


def ask(index: Index, asked: Dataset, **options: Any) -> tuple[StudyQuery, list[Dataset]]:
    """Query the index; return the query and its answers. `patient_root` chooses the model."""
    levels = PATIENT_ROOT if options.pop("patient_root", False) else STUDY_ROOT
    query = index.queries.find(asked, QueryOptions(levels, "US", options.pop("limit", 1000), **options))
    return query, [answer for answer in query if answer is not None]


@contextmanager
def querying(
    port: int, model: str = STUDY_MODEL, options: bytes = b"", aet: str = "WS"
) -> Iterator[Association]:
    """Yield an association for one information model; `options` are its extended negotiation."""
    ae = AE(aet)
    ae.add_requested_context(model)
    items = []
    if options:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = model, options
        items.append(item)
    association = ae.associate("127.0.0.1", port, ae_title="IMAGINGSTUDYD", ext_neg=items)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def found(
    association: Association, asked: Dataset, model: str = STUDY_MODEL
) -> tuple[list[int], list[Dataset]]:
    """Return the statuses and the answers of a query."""
    responses = list(association.send_c_find(asked, model))
    return [status.Status for status, _ in responses], [answer for _, answer in responses if answer]
