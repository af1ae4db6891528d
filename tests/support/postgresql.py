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


class Server:
    """A server in a folder, with its socket there; `url` is that of an empty database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        # The server refuses to run as root; its socket's path may not be long.
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as_user:
            shutil.chown(folder, "postgres")

    def run(self, command: str, *arguments: str) -> None:
        """Run a command of PostgreSQL's."""
        whole = [*self._as_user, str(_binaries() / command), *arguments]
        subprocess.run(whole, check=True, capture_output=True, cwd=self.folder)

    def control(self, *arguments: str) -> None:
        """Run pg_ctl."""
        self.run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), *arguments)

    def start(self) -> None:
        """Start it. It listens on its socket only."""
        self.control("-o", f"-k {self.folder} -c listen_addresses='' -c fsync=off", "start")

    def stop(self) -> None:
        """Let it crash."""
        self.control("-m", "immediate", "stop")


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="pg", dir="/tmp") as name:
        yield Path(name)


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of an empty database. The server listens on a socket in its folder only."""
    with _folder() as folder:
        made = Server(folder)
        made.run("initdb", "-D", str(made.data), "-U", "postgres", "--auth=trust", "--no-sync")
        made.start()
        try:
            yield made.url
        finally:
            made.stop()


@contextmanager
def replica_of(port: int) -> Iterator[Server]:
    """Yield a replica of the server behind this port, which follows it by streaming."""
    with _folder() as folder:
        made = Server(folder)
        source = f"postgresql://postgres@127.0.0.1:{port}/"
        made.run("pg_basebackup", "-d", source, "-D", str(made.data), "-R", "-c", "fast", "--no-sync")
        made.start()
        try:
            yield made
        finally:
            made.stop()


def restart(url: str) -> None:
    """Let the server crash, and start it again: commits that did not wait for the disk may be lost."""
    made = Server(Path(url.rpartition("host=")[2]))
    made.control("-m", "immediate", "restart")


def emptied(url: str) -> str:
    """Empty the database, and return its URL."""
    database = open_unmigrated(url, Path())
    with database.connection():
        database.peewee.execute_sql("DROP SCHEMA public CASCADE")
        database.peewee.execute_sql("CREATE SCHEMA public")
    database.close()
    return url
