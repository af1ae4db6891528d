"""`[index]`: which database."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from index.settings import Section


class IndexSettings(Section):
    """`[index]`: the database."""

    # A secret, since it may contain a password.
    url: SecretStr | None = Field(
        None,
        description="Database URL. Default: index.sqlite in the data directory. postgresql://… works too.",
    )

    @field_validator("url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            from index.database.opening import check_url

            check_url(value.get_secret_value())
        return value

    @property
    def file(self) -> Path | None:
        """The file of an SQLite index that a URL names."""
        if self.url is None:
            return None
        from index.database.opening import sqlite_path

        return sqlite_path(self.url.get_secret_value(), Path())
