"""The transaction Bundle of a study."""

from index.imagingstudy.bundle import in_order, local_reference, transaction_bundle, with_references

PATIENT = {"resourceType": "Patient", "id": "p"}
ORGANIZATION = {"resourceType": "Organization", "id": "o"}
ENDPOINT = {
    "resourceType": "Endpoint",
    "id": "e",
    "managingOrganization": {"reference": "Organization/o", "display": "Clinic"},
}
STUDY = {
    "resourceType": "ImagingStudy",
    "id": "1.2",
    "subject": {"reference": "Patient/p"},
    "endpoint": [{"reference": "Endpoint/e"}],
    "series": [{"uid": "1.2.3", "endpoint": [{"reference": "Endpoint/e"}]}],
}
ALL = [STUDY, ENDPOINT, PATIENT, ORGANIZATION]


def test_each_resource_stands_after_those_that_it_refers_to() -> None:
    names = [local_reference(one) for one in in_order(ALL)]
    assert {"Organization/o", "Patient/p", "Endpoint/e", "ImagingStudy/1.2"} == set(names)
    assert names.index("Organization/o") < names.index("Endpoint/e")
    assert "ImagingStudy/1.2" == names[-1]


def test_a_circle_of_references_ends() -> None:
    one = {"resourceType": "A", "id": "1", "to": {"reference": "B/2"}}
    other = {"resourceType": "B", "id": "2", "to": {"reference": "A/1"}}
    assert 2 == len(in_order([one, other]))


def test_a_bundle_puts_each_resource_by_its_id() -> None:
    bundle = transaction_bundle([STUDY, PATIENT], "http://server/fhir/")
    assert {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": "http://server/fhir/Patient/p",
                "resource": PATIENT,
                "request": {"method": "PUT", "url": "Patient/p"},
            },
            {
                "fullUrl": "http://server/fhir/ImagingStudy/1.2",
                "resource": STUDY,
                "request": {"method": "PUT", "url": "ImagingStudy/1.2"},
            },
        ],
    } == bundle
    assert "fullUrl" not in transaction_bundle([STUDY])["entry"][0]


def test_references_are_replaced_and_the_display_stays() -> None:
    new = with_references(
        ENDPOINT | {"network": [{"reference": "Patient/p"}]},
        {"Organization/o": {"reference": "Organization/77"}, "Patient/p": {"type": "Patient"}},
    )
    assert {"reference": "Organization/77", "display": "Clinic"} == new["managingOrganization"]
    assert [{"type": "Patient"}] == new["network"]
    assert {"reference": "Organization/o", "display": "Clinic"} == ENDPOINT["managingOrganization"]
