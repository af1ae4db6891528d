"""QIDO-RS (PS3.18 Section 10.6)."""

import re
import xml.etree.ElementTree as ET

import pytest

from support.dicomweb import STUDY, parts

STUDIES = "/studies"
# PS3.18 Table 10.6.3-3.
STUDY_ATTRIBUTES = {
    "00080020", "00080030", "00080050", "00080056", "00080061", "00080090", "00080201", "00081190",
    "00100010", "00100020", "00100030", "00100040", "0020000D", "00200010", "00201206", "00201208",
}  # fmt: skip


def uids(response, tag="0020000D"):
    assert 200 == response.status_code, response.text
    return [one[tag]["Value"][0] for one in response.json()]


def test_studies_have_the_attributes_of_the_standard(served):
    response = served.get(STUDIES, StudyInstanceUID=STUDY)
    assert "application/dicom+json" == response.headers["content-type"]
    (study,) = response.json()
    assert STUDY_ATTRIBUTES <= set(study)
    assert [{"Alphabetic": "Doe^Jane"}] == study["00100010"]["Value"]
    assert ["CT", "SR"] == study["00080061"]["Value"]
    assert ([2], [3]) == (study["00201206"]["Value"], study["00201208"]["Value"])
    assert {"vr": "DA"} == study["00100030"]
    assert [f"{served.url}/studies/{STUDY}"] == study["00081190"]["Value"]


@pytest.mark.parametrize(
    "query",
    [
        "PatientName=Doe^J*",
        "00100010=doe^jane",
        "PatientID=P1",
        "StudyDate=20260101-20260103",
        "AccessionNumber=A1&ModalitiesInStudy=SR",
        "ModalitiesInStudy=PT,SR",
        "ModalitiesInStudy=PT\\SR",
        "ModalitiesInStudy=PT&ModalitiesInStudy=SR",
        f"StudyInstanceUID=1.2.3,{STUDY}",
        f"StudyInstanceUID=1.2.3&StudyInstanceUID={STUDY}",
        "PatientName=doe*&fuzzymatching=true&limit=101&offset=0&includefield=00081030%2C00080060",
    ],
)
def test_keys_match_as_in_c_find(served, query):
    assert [STUDY] == uids(served.client.get(f"{STUDIES}?{query}"))


def test_the_port_is_named_where_a_user_agent_leaves_it_out(served):
    """As dicomweb-client does: what it is given then is to be fetched from where it asked."""
    port = served.url.split("/")[2].partition(":")[2]
    for host, expected in (("127.0.0.1", f"127.0.0.1:{port}"), ("pacs.example", "pacs.example")):
        (study,) = served.client.get(f"{STUDIES}?PatientID=P1", headers={"host": host}).json()
        assert [f"http://{expected}/dicom-web/studies/{STUDY}"] == study["00081190"]["Value"]


def test_fuzzy_matching_finds_words_without_accents(served):
    assert [f"{STUDY[:-1]}2"] == uids(served.get(STUDIES, PatientName="muller zoe", fuzzymatching="true"))
    assert 204 == served.get(STUDIES, PatientName="muller zoe").status_code


def test_series_and_instances_at_every_level(served):
    series = served.get(f"/studies/{STUDY}/series").json()
    assert {f"{STUDY}.1", f"{STUDY}.2"} == {one["0020000E"]["Value"][0] for one in series}
    assert all(STUDY == one["0020000D"]["Value"][0] for one in series)
    assert f"{served.url}/studies/{STUDY}/series/{STUDY}.1" == series[0]["00081190"]["Value"][0]
    assert 3 == len(served.get(f"/studies/{STUDY}/instances").json())
    images = served.get(f"/studies/{STUDY}/series/{STUDY}.1/instances").json()
    assert [1, 2] == [one["00200013"]["Value"][0] for one in images]
    assert [[4], [4], [16]] == [images[0][tag]["Value"] for tag in ("00280010", "00280011", "00280100")]
    assert [f"{STUDY}.2"] == uids(served.get("/series", Modality="SR"), "0020000E")
    assert [f"{STUDY}.2.1"] == uids(served.get("/instances", Modality="SR"), "00080018")
    assert 204 == served.get(f"/studies/{STUDY}/series", StudyInstanceUID="1.2.3").status_code
    assert 204 == served.get("/studies/1.2.3/series").status_code


def test_include_field(served):
    plain = served.get(STUDIES, PatientID="P1").json()[0]
    assert "00081030" not in plain
    for asked in ("StudyDescription", "00081030", "all", "00081030,00080060", "PatientName,StudyDescription"):
        (study,) = served.get(STUDIES, PatientID="P1", includefield=asked).json()
        assert {"vr": "LO", "Value": ["Head"]} == study["00081030"]
    repeated = served.client.get(
        f"{STUDIES}?PatientID=P1&includefield=PatientAge&includefield=StudyDescription"
    )
    assert "00081030" in repeated.json()[0]


def test_pages_by_limit_and_offset(served):
    everything = uids(served.get(STUDIES))
    assert 6 == len(everything)
    paged = [uid for offset in (0, 2, 4) for uid in uids(served.get(STUDIES, limit=2, offset=offset))]
    assert everything == paged
    assert "additional results" in served.get(STUDIES, limit=2).headers["warning"]
    assert "warning" not in served.get(STUDIES, limit=6).headers
    assert 204 == served.get(STUDIES, offset=6).status_code
    assert 204 == served.get(STUDIES, limit=0).status_code
    for parameters, total in (
        ({"limit": 2, "offset": 2}, "6"), ({"offset": 9}, "6"), ({"PatientID": "P1"}, "1"),
        ({"PatientID": "nobody"}, None), ({"PatientName": "*", "limit": 1}, "6"),
        ({"PatientName": "d*", "limit": 1}, "1"),
    ):  # fmt: skip
        assert total == served.get(STUDIES, **parameters).headers.get("x-total-count"), parameters
    many = {"StudyDate": "19000101-", "limit": 1}
    assert "x-total-count" not in served.get(STUDIES, **many).headers  # only matching them all would tell


def test_what_is_ignored_is_said(served):
    response = served.get(STUDIES, PatientID="P1", _="1", PixelData="x", emptyvaluematching="true")
    assert [STUDY] == uids(response)
    warning = response.headers["warning"]
    assert warning.startswith(f"299 {served.url}: ")
    assert "The emptyvaluematching parameter is not supported." in warning
    assert re.search(r"ignored: _, PixelData$", warning)
    for name in ("", "%20", "%0A", "%C3%BC", "x%20"):  # all of them can stand in a header
        assert "ignored:" in served.client.get(f"{STUDIES}?{name}=1").headers["warning"]


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=x", "offset=1.5", "fuzzymatching=maybe", "StudyDate=yesterday", "limit=1&limit=2",
     "PatientID=1&PatientID=2", "limit=99999999999999999999"],
)  # fmt: skip
def test_bad_parameters(served, query):
    response = served.client.get(f"{STUDIES}?{query}")
    assert 400 == response.status_code
    assert query.partition("=")[0] in response.text


def test_xml_says_the_same(served):
    response = served.get(STUDIES, 'multipart/related; type="application/dicom+xml"', PatientID="P1")
    ((kind, content),) = parts(response)
    assert "application/dicom+xml" == kind
    root = ET.fromstring(content)  # noqa: S314  our own
    names = {"n": "http://dicom.nema.org/PS3.19/models/NativeDICOM"}
    assert "Doe" == root.find(".//n:*[@keyword='PatientName']//n:FamilyName", names).text
    assert STUDY == root.find("n:DicomAttribute[@tag='0020000D']/n:Value", names).text
    assert 406 == served.get(STUDIES, "text/html").status_code
