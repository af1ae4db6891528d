"""The Native DICOM Model (PS3.19 Section A.1), made from the DICOM JSON Model: both say the same."""

import re
from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from index.web.dicomweb.formats.dicom_json import Model

_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
# Characters that XML 1.0 does not have (Section 2.2).
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


def native_model(model: Model) -> bytes:
    """Return a data set as an XML document."""
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    root = f'<NativeDicomModel xmlns="{_NAMESPACE}" xml:space="preserve">'
    return f"{head}{root}{''.join(_elements(model))}</NativeDicomModel>\n".encode()


def _elements(model: Model) -> Iterator[str]:
    for tag, element in model.items():
        yield f'<DicomAttribute {_identity(tag, model)} vr="{element["vr"]}">'
        if "BulkDataURI" in element:
            yield f"<BulkData uri={quoteattr(element['BulkDataURI'])}/>"
        elif "InlineBinary" in element:
            yield f"<InlineBinary>{element['InlineBinary']}</InlineBinary>"
        for number, value in enumerate(element.get("Value", ()), 1):
            yield _value(number, value, element["vr"])
        yield "</DicomAttribute>"


def _identity(tag: str, model: Model) -> str:
    """Return the attributes that name an element (PS3.19 Table A.1.5-2).

    A private element is named by its creator; the block that it has in this data set stands nowhere.
    """
    if keyword := keyword_for_tag(int(tag, 16)):
        return f'tag="{tag}" keyword={quoteattr(keyword)}'
    if int(tag[:4], 16) % 2:
        creators = model.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value")
        if creators and tag[4:6] != "00":
            return f'tag="{tag[:4]}00{tag[6:]}" privateCreator={quoteattr(_clean(creators[0]))}'
    return f'tag="{tag}"'


def _value(number: int, value: object, vr: str) -> str:
    if vr == "SQ" and isinstance(value, dict):
        return f'<Item number="{number}">{"".join(_elements(value))}</Item>'
    if vr == "PN":
        return _name(number, value) if isinstance(value, Mapping) else f'<PersonName number="{number}"/>'
    return f'<Value number="{number}">{_text(value)}</Value>'


def _name(number: int, name: Mapping[str, str]) -> str:
    groups = []
    for group, text in name.items():
        parts = zip(_COMPONENTS, text.split("^"), strict=False)
        inner = "".join(f"<{tag}>{_text(part)}</{tag}>" for tag, part in parts if part)
        groups.append(f"<{group}>{inner}</{group}>")
    return f'<PersonName number="{number}">{"".join(groups)}</PersonName>'


def _text(value: object) -> str:
    return "" if value is None else escape(_clean(value))


def _clean(value: object) -> str:
    return _NO_XML.sub("\ufffd", str(value))
