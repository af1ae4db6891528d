"""The constraints of IHE RAD MADO 0.1.0 on R4 resources, from the differentials of its profiles.

https://profiles.ihe.net/RAD/MADO (repository IHE/RAD.MADO, input/fsh/profiles). Elements that are `must
support` are needed where their values are known. A check of the resource alone cannot find that.
"""

from typing import Any

BASE = "https://profiles.ihe.net/RAD/MADO/StructureDefinition/"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
ABSENT = {
    "extension": [
        {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
    ]
}


def conforms(resources: list[dict[str, Any]]) -> None:
    """Fail unless the ImagingStudy, which is first, and its endpoints obey MADO."""
    study = resources[0]
    endpoints = {f"Endpoint/{one['id']}": one for one in resources if one["resourceType"] == "Endpoint"}
    assert [f"{BASE}MadoImagingStudy"] == study["meta"]["profile"]
    _identifier(study)
    _extensions(study, {"MadoAnatomicalRegionExtension": ("valueCodeableConcept", None)})
    assert study["subject"]
    assert len(study.get("basedOn", [])) <= 1  # slice order 0..1, which every Reference falls into
    for asked in study.get("basedOn", []):
        accession(asked["identifier"])
    # mado-reqproc-1
    codes = study["procedureCode"]
    assert any(
        "text" in one or "_text" in one or any("display" in coding for coding in one.get("coding", []))
        for one in codes
    )
    assert 0 <= study["numberOfSeries"]
    for series in study.get("series", []):
        _series(series, endpoints)
    for one in endpoints.values():
        endpoint(one)


def _identifier(study: dict[str, Any]) -> None:
    """MadoStudyInstanceUidIdentifier, slice study-instance-uid 1..1."""
    (uid,) = (
        one
        for one in study["identifier"]
        if {(coding["system"], coding["code"]) for coding in one.get("type", {}).get("coding", [])}
        >= {(DCM, "110180")}
    )
    assert "urn:dicom:uid" == uid["system"]
    assert uid["value"]


def accession(identifier: dict[str, Any]) -> None:
    """MadoAccessionNumberIdentifier: two types, system 1..1, value 1..1."""
    coded = [(coding["system"], coding["code"]) for coding in identifier["type"]["coding"]]
    assert 1 == coded.count((V2_0203, "ACSN"))
    assert 1 == coded.count((DCM, "121022"))
    assert identifier.get("system") or ABSENT == identifier["_system"]
    assert identifier["value"]


def _series(series: dict[str, Any], endpoints: dict[str, Any]) -> None:
    assert series["uid"]
    assert 1 <= series["numberOfInstances"]
    assert series["endpoint"]
    assert all(one["reference"] in endpoints for one in series["endpoint"])
    assert series["instance"]
    for instance in series["instance"]:
        assert instance["uid"]
        _extensions(
            instance,
            {
                "MadoNumberOfFrames": ("valueInteger", 1),
                "MadoKeyObjectDocumentTitle": ("valueCodeableConcept", 1),
            },
        )


def endpoint(found: dict[str, Any]) -> None:
    """MadoWadoEndpoint."""
    assert [f"{BASE}MadoWadoEndpoint"] == found["meta"]["profile"]
    (location,) = found["extension"]
    assert f"{BASE}MadoRetrieveLocationUIDExtension" == location["url"]
    assert location.get("valueString") or ABSENT == location["_valueString"]
    assert "active" == found["status"]
    kind = found["connectionType"]
    assert ("http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "dicom-wado-rs") == (
        kind["system"],
        kind["code"],
    )
    (payload,) = found["payloadType"]
    assert "DICOM WADO-RS" == payload["text"]
    assert [
        {"system": "http://terminology.hl7.org/CodeSystem/endpoint-payload-type", "code": "none"}
    ] == payload["coding"]
    assert found["address"]
    assert ("http://notspecified" == found["address"]) is (ABSENT == found.get("_address"))


def _extensions(node: dict[str, Any], known: dict[str, tuple[str, int | None]]) -> None:
    """Every extension is a known one, of the right type, and not repeated more than allowed."""
    found = node.get("extension", [])
    for name, (kind, most) in known.items():
        mine = [one for one in found if one["url"] == f"{BASE}{name}"]
        assert most is None or len(mine) <= most
        assert all({"url", kind} == set(one) for one in mine)
    assert {one["url"] for one in found} <= {f"{BASE}{name}" for name in known}
