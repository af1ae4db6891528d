"""Every file and folder that the pages for developers name is there."""

import re
from pathlib import Path

import pytest

TREE = Path(__file__).parent.parent
PAGES = ("docs/ARCHITECTURE.md", "CONTRIBUTING.md")
# A path in backquotes: with a folder, or a file of the tree's root.
PATH = re.compile(r"`((?:scp|index|tests|docs|systemd)/[\w./-]*|[\w-]+\.(?:md|toml))`")


def picture() -> str:
    page = (TREE / "docs/ARCHITECTURE.md").read_text()
    return "\n".join(line for line in page.splitlines() if line.startswith("    "))


@pytest.mark.parametrize("page", PAGES)
def test_every_path_is_there(page: str) -> None:
    named = set(PATH.findall((TREE / page).read_text()))
    assert named
    assert [] == sorted(path for path in named if not (TREE / path).exists())


@pytest.mark.parametrize("package", ["scp", "index"])
def test_the_picture_shows_every_folder(package: str) -> None:
    folders = {path.parent.name for path in (TREE / package).glob("*/__init__.py")}
    shown = set(re.findall(r"\b[a-z]+\b", picture()))
    assert folders
    assert set() == folders - shown


def test_the_walks_have_ten_steps() -> None:
    sections = (TREE / "docs/ARCHITECTURE.md").read_text().split("\n## One ")[1:]
    assert 4 == len(sections)
    for section in sections:
        steps = [int(number) for number in re.findall(r"^(\d+)\. ", section.split("\n## ")[0], re.MULTILINE)]
        assert list(range(1, 11)) == steps
