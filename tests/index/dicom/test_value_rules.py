"""Whether a data set that pydicom has read ends within a value."""

from io import BytesIO

import pytest
from pydicom import dcmread

from index.dicom.value_rules import cut_off

PATIENT_ID = b"\x10\x00\x20\x00LO\x06\x00P12345"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PATIENT_ID, ""),
        (PATIENT_ID[:-2], "PatientID"),
        # An element of a VR that does not exist and without a value: pydicom cannot decode it.
        (b"\x08\x00\x50\x00S\x00\x00\x00" + PATIENT_ID, ""),
        (b"\x08\x00\x50\x00S\x00\x00\x00" + PATIENT_ID[:-2], "PatientID"),
    ],
)
def test_the_element_that_is_cut_off_is_named(content: bytes, expected: str) -> None:
    assert expected == cut_off(dcmread(BytesIO(b"\x08\x00\x05\x00CS\x00\x00" + content), force=True))
