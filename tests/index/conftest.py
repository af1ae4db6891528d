"""The tests of the index by another engine than SQLite: `--engine postgresql`."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from index import Index, IndexSettings
from index.database.opening import open_database
from support.postgresql import create_database, drop_database, server


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that has a database `migrated`, from which others are copied."""
    with server() as url:
        template = create_database(url, "migrated")
        open_database(template, tmp_path_factory.mktemp("migrated")).close()
        yield url


@pytest.fixture(autouse=True)
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An index for which the test names no database gets one on the server, the same for one directory."""
    if request.config.getoption("--engine") == "sqlite":
        yield
        return
    url = request.getfixturevalue("postgresql_server")
    urls: dict[Path, str] = {}
    plain, numbers = Index.__init__, itertools.count()

    def init(self, data, storage=None, index=None, *arguments, **options):
        index = index or IndexSettings()
        if index.url is None:
            key = data.resolve()
            if key not in urls:
                urls[key] = create_database(url, f"test{next(numbers)}", "migrated")
            index = index.model_copy(update={"url": SecretStr(urls[key])})
        plain(self, data, storage, index, *arguments, **options)

    monkeypatch.setattr(Index, "__init__", init)
    yield
    for number in range(len(urls)):
        drop_database(url, f"test{number}")
