"""A PostgreSQL server of the tests' own, in a temporary folder, stopped at the end."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from index.database.opening import open_unmigrated


def _binaries() -> Path:
    """Return the folder of the newest server's commands, on Debian."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))


def create_database(url: str, name: str, template: str = "template1") -> str:
    """Make a database beside that of the URL, as a copy of another one; return its URL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return url.replace("/postgres?", f"/{name}?")


def drop_database(url: str, name: str) -> None:
    """Remove such a database, whoever uses it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of an empty database. The server listens on a socket in its folder only."""
    binaries = _binaries()
    # The server refuses to run as root; its socket's path may not be long.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with TemporaryDirectory(prefix="pg", dir="/tmp") as name:
        folder = Path(name)
        if as_user:
            shutil.chown(folder, "postgres")
        data = folder / "data"

        def run(*command: str) -> None:
            subprocess.run([*as_user, *command], check=True, capture_output=True, cwd=folder)

        run(str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run(
            str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start"
        )
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            run(str(binaries / "pg_ctl"), "-D", str(data), "-w", "-m", "immediate", "stop")


def restart(url: str) -> None:
    """Let the server crash, and start it again: commits that did not wait for the disk may be lost."""
    folder = Path(url.rpartition("host=")[2])
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    command = [*as_user, str(_binaries() / "pg_ctl"), "-D", str(folder / "data"), "-w", "-m", "immediate"]
    subprocess.run(
        [*command, "-l", str(folder / "log"), "restart"], check=True, capture_output=True, cwd=folder
    )


def emptied(url: str) -> str:
    """Empty the database, and return its URL."""
    database = open_unmigrated(url, Path())
    with database.connection():
        database.peewee.execute_sql("DROP SCHEMA public CASCADE")
        database.peewee.execute_sql("CREATE SCHEMA public")
    database.close()
    return url
