"""Loads the configuration from flags, environment, credentials and file; names each faulty value's source."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from scp.settings.consistency import KeyPath, find_inconsistencies
from scp.settings.sections import ENVIRONMENT_PREFIX, Configuration, ConfigurationError
from scp.settings.values import files_are_checked

# The most characters of a wrong value in a message.
_VALUE_LENGTH = 200

# The flags of `serve` by the keys that they set.
_FLAGS: dict[KeyPath, str] = {
    ("dicom", "aet"): "--aet",
    ("dicom", "host"): "--host",
    ("dicom", "port"): "--port",
    ("http", "host"): "--http-host",
    ("http", "port"): "--http-port",
    ("http", "enabled"): "--no-http",
    ("storage", "path"): "--data",
}

# In an address (RFC 3986 Section 3.2.1).
_PASSWORD = re.compile(r"(://[^/@:\s]*):[^/@\s]*@")
_TABLE = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"'-]+)\s*=")


@dataclass(frozen=True)
class Sources:
    """Where the values of one configuration come from."""

    file: Path | None = None
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    # Files of the service manager's credentials by the keys that they set (systemd.exec(5), LoadCredential=).
    credentials: Mapping[KeyPath, Path] = field(default_factory=dict)

    def of(self, key_path: KeyPath) -> str | None:
        """Return the source of a value: a flag, a variable, a credential or a line; None for a default."""
        if key_path in _FLAGS and _holds(self.flags, key_path):
            return _FLAGS[key_path]
        names = {name.upper(): name for name in os.environ}
        for parent in _parents(key_path):
            variable = ENVIRONMENT_PREFIX + "__".join(str(part).upper() for part in parent)
            if variable in names:
                return f"environment {names[variable]}"
        if key_path in self.credentials:
            return f"credential {self.credentials[key_path]}"
        if key_path in self.lines:
            return f"{self.file}:{self.lines[key_path]}"
        return None

    def near(self, key_path: KeyPath) -> str:
        """Return the source of a value, or of the nearest section around it."""
        for parent in _parents(key_path):
            if where := self.of(parent):
                return where
        return str(self.file or "configuration")

    def fault(self, key_path: KeyPath, why: str, value: Any = None) -> str:
        """Return the sentence for a fault of a value; without the value where that is None."""
        shown = "" if value is None else _PASSWORD.sub(r"\1:…@", f" = {value!r}")
        if len(shown) > _VALUE_LENGTH:
            shown = f"{shown[:_VALUE_LENGTH]}…"
        return f"{self.near(key_path)}: {dotted(key_path)}{shown}: {why}"


def load(
    file: Path | None = None, flags: Mapping[str, Any] | None = None, *, check_files: bool = False
) -> Configuration:
    """Return the configuration in force. Raises ConfigurationError that lists every fault.

    `check_files`: also check the certificates and other files that it names.
    """
    return load_with_sources(file, flags, check_files=check_files)[0]


def load_with_sources(
    file: Path | None = None, flags: Mapping[str, Any] | None = None, *, check_files: bool = False
) -> tuple[Configuration, Sources]:
    """Return the configuration in force, and the sources of its values. Raises ConfigurationError."""
    text, from_file = _read(file) if file else ("", {})
    paths, secrets = _credentials()
    sources = Sources(file, dict(_key_lines(text)), flags or {}, paths)

    class _WithFile(Configuration):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            own = super().settings_customise_sources(settings_cls, *sources, **named)
            lower = (InitSettingsSource(settings_cls, values) for values in (secrets, from_file))
            return (*own, *lower)

    faults = _unknown_variables()
    token = files_are_checked.set(check_files)
    try:
        configuration = _WithFile(**(flags or {}))
    except ValidationError as error:
        faults += [_describe(fault, sources) for fault in error.errors()]
    except ValueError as error:  # pydantic-settings: a variable that should hold JSON does not
        faults.append(f"environment: {error}: {error.__cause__}")
    else:
        faults += [
            sources.fault(one.key_path, one.why, one.value) for one in find_inconsistencies(configuration)
        ]
    finally:
        files_are_checked.reset(token)
    if faults:
        raise ConfigurationError(*faults)
    return configuration, sources


def _unknown_variables() -> list[str]:
    """Return a sentence for each variable of an unknown section, which pydantic-settings ignores."""
    sections = Configuration.model_fields
    return [
        f"environment {name}: unknown section; allowed are {', '.join(sections)}"
        for name in sorted(os.environ)
        if name.upper().startswith(ENVIRONMENT_PREFIX)
        # Without a key it may be one that Kubernetes names after a service.
        and "__" in name
        and name.upper().removeprefix(ENVIRONMENT_PREFIX).split("__")[0].lower() not in sections
    ]


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # numbers too long, brackets nested too deep
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from error


def _credentials() -> tuple[dict[KeyPath, Path], dict[str, Any]]:
    """Read the files of $CREDENTIALS_DIRECTORY that have names of our environment variables, in any case."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    paths: dict[KeyPath, Path] = {}
    values: dict[str, Any] = {}
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else ():
        name = path.name.upper()
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        key_path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        try:
            content = path.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"credential {path}: cannot be read: {error}") from error
        node = values
        for part in key_path[:-1]:
            node = node.setdefault(part, {})
        node[key_path[-1]] = content
        paths[key_path] = path
    return paths, values


def _key_lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Yield the key path of every table and key in a TOML text, as pydantic names it, with its line."""
    table: KeyPath = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TABLE.match(line):
            brackets, name = match.groups()
            table = tuple(name.replace('"', "").split("."))
            if brackets == "[[":
                counts[name] = counts.get(name, -1) + 1
                table = (*table, counts[name])
            elif table[0] in counts:
                table = (table[0], counts[table[0]], *table[1:])
            yield table, number
        elif match := _KEY.match(line):
            yield (*table, *match[1].replace('"', "").replace("'", "").split(".")), number


def _parents(key_path: KeyPath) -> Iterator[KeyPath]:
    """Yield a key path and those of all sections around it, itself first."""
    for length in range(len(key_path), 0, -1):
        yield key_path[:length]


def _describe(fault: Any, sources: Sources) -> str:
    key_path: KeyPath = tuple(fault["loc"])
    is_silent = fault["type"] in ("missing", "extra_forbidden") or _is_secret(key_path)
    return sources.fault(key_path, _allowed(fault), None if is_silent else fault["input"])


def _holds(flags: Mapping[str, Any], key_path: KeyPath) -> bool:
    node: Any = flags
    for part in key_path:
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def dotted(key_path: KeyPath) -> str:
    """Return a key path as it is written in messages: peers[0].aet."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key_path).lstrip(".")


def _allowed(fault: Any) -> str:
    if fault["type"] == "missing":
        return "is required"
    if fault["type"] != "extra_forbidden":
        return str(fault["msg"]).removeprefix("Value error, ")
    node: Any = Configuration
    for part in fault["loc"][:-1]:
        if isinstance(part, str):
            node = _types(node.model_fields[part].annotation)[0]
    return f"unknown key; allowed are {', '.join(node.model_fields)}"


def _is_secret(key_path: KeyPath) -> bool:
    """Whether a value is a secret, or has one in it: it is never printed."""
    node: Any = Configuration
    for part in key_path:
        if isinstance(part, str) and part in getattr(node, "model_fields", {}):
            types = _types(node.model_fields[part].annotation)
            if SecretStr in types:
                return True
            node = types[0]
    return _has_secret(node)


def _has_secret(node: Any) -> bool:
    for one in getattr(node, "model_fields", {}).values():
        types = _types(one.annotation)
        if SecretStr in types or _has_secret(types[0]):
            return True
    return False


def _types(annotation: Any) -> list[Any]:
    """Return the parts of an annotation, such as `tuple[Peer, ...]` or `Tls | None`."""
    return [one for one in get_args(annotation) if one not in (type(None), ...)] or [annotation]
