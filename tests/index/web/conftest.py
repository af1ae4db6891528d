"""An index with a few studies, and DICOMweb over it."""

from collections.abc import Iterator

import pytest

from index import Index
from support.dicom import sample, save
from support.dicomweb import Served, made, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("dicomweb")
    files = {}
    for number, dataset in enumerate(made()):
        files[str(dataset.SOPInstanceUID)] = save(dataset, folder / "in" / f"{number}.dcm")
    for name in ("JPEG2000.dcm", "SC_rgb_rle_2frame.dcm", "CT_small.dcm", "examples_ybr_color.dcm"):
        path = sample(name)
        files[name] = path
    with Index(folder / "data") as index:
        index.import_files([folder / "in", *files.values()])
        with serving(index, files) as made_of:
            yield made_of
