"""The tests of the index by another engine than SQLite: `--engine postgresql`."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from index import Index, IndexSettings
from index.database.opening import open_database
from support.postgresql import create_database, drop_database

_numbers = itertools.count()


@pytest.fixture(scope="session")
def migrated(postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a server that has a database `migrated`, from which others are copied."""
    template = create_database(postgresql_server, "migrated")
    open_database(template, tmp_path_factory.mktemp("migrated")).close()
    return postgresql_server


@pytest.fixture(autouse=True)
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An index for which the test names no database gets one on the server, the same for one directory."""
    if request.config.getoption("--engine") == "sqlite":
        yield
        return
    url = request.getfixturevalue("migrated")
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


@pytest.fixture
def shared_url(migrated: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL index that several nodes can share."""
    name = f"shared{next(_numbers)}"
    yield create_database(migrated, name, "migrated")
    drop_database(migrated, name)
