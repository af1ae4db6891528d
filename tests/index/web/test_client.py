"""Whole sessions of dicomweb-client, which nobody here wrote."""

import numpy as np
import pydicom
from dicomweb_client.api import DICOMwebClient

from index import Index
from support.dicom import instance, sample
from support.dicomweb import STUDY, pixels, serving


def client_of(served) -> DICOMwebClient:
    # It leaves the port out of the header Host otherwise, and is given URLs without one.
    return DICOMwebClient(served.url, headers={"Host": served.url.split("/")[2]})


def test_it_queries_and_retrieves(served):
    client = client_of(served)
    assert 6 == len(client.search_for_studies())
    assert 2 == len(client.search_for_studies(limit=2))
    assert [STUDY] == [
        one["0020000D"]["Value"][0] for one in client.search_for_studies(search_filters={"PatientID": "P1"})
    ]
    assert [] == client.search_for_studies(search_filters={"PatientID": "nobody"})
    assert 2 == len(client.search_for_series(STUDY))
    assert 2 == len(client.search_for_instances(STUDY, f"{STUDY}.1", fields=["PatientName"]))
    for name in ("CT_small.dcm", "JPEG2000.dcm", "SC_rgb_rle_2frame.dcm"):
        path = served.files[name]
        dataset = pydicom.dcmread(path)
        uids = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
        syntax = dataset.file_meta.TransferSyntaxUID
        assert dataset == client.retrieve_instance(*uids, media_types=(("application/dicom", syntax),))
        assert dataset.Rows == client.retrieve_instance_metadata(*uids)["00280010"]["Value"][0]
        plain = client.retrieve_instance(*uids, media_types=(("application/dicom", "1.2.840.10008.1.2.1"),))
        assert np.array_equal(dataset.pixel_array, plain.pixel_array)
        (frame,) = client.retrieve_instance_frames(*uids, [1], media_types=("application/octet-stream",))
        expected = dataset.pixel_array[0] if dataset.get("NumberOfFrames", 1) > 1 else dataset.pixel_array
        assert expected.tobytes() == frame
        assert client.retrieve_instance_rendered(*uids, media_types=("image/png",)).startswith(b"\x89PNG")
        bulk = client.retrieve_bulkdata(client.retrieve_instance_metadata(*uids)["7FE00010"]["BulkDataURI"])
        assert len(bulk) == dataset.get("NumberOfFrames", 1)
    assert 3 == len(client.retrieve_study(STUDY))
    assert 2 == len(client.retrieve_series(STUDY, f"{STUDY}.1"))
    assert 3 == len(client.retrieve_study_metadata(STUDY))
    assert {1, 2} == {d["00200013"]["Value"][0] for d in client.retrieve_series_metadata(STUDY, f"{STUDY}.1")}


def test_it_stores_and_deletes(tmp_path):
    with Index(tmp_path / "data") as index:
        index.serve()
        with serving(index, {}) as one:
            client = client_of(one)
            sent = [pydicom.dcmread(sample("CT_small.dcm")), pydicom.dcmread(sample("JPEG2000.dcm"))]
            made = pixels(instance(1, 1, 1))
            made.file_meta = sent[0].file_meta
            response = client.store_instances([*sent, made])
            assert 3 == len(response.ReferencedSOPSequence)
            assert 3 == len(client.search_for_studies())
            (found,) = client.retrieve_study(sent[0].StudyInstanceUID)
            assert sent[0].PixelData == found.PixelData
            client.delete_study(sent[0].StudyInstanceUID)
            assert 2 == len(client.search_for_studies())
