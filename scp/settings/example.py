"""The commented example of a configuration file, made from the models of the settings."""

import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import orjson
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scp.settings.sections import Configuration

WIDTH = 100

_HEAD = """\
# imagingstudyd: every key with its default. Remove the # before a key to set it.
#
# What stands here is overruled by credentials and by environment variables named IMAGINGSTUDYD_SECTION__KEY,
# these by the flags of `imagingstudyd serve`. `imagingstudyd check --config FILE` says what is in force and
# from where. A reload (SIGHUP) takes over [[peers]], [[routes]], [limits], [log], certificates, and of
# [dicom] all but addresses.
"""

# Keys that have no default, shown by an example.
_EXAMPLES = {
    "aet": "CT1",
    "to": ["PACS"],
    "name": "ehr",
    "url": "https://ehr.example/fhir",
    "certificate": "/etc/imagingstudyd/tls/certificate.pem",
    "key": "/etc/imagingstudyd/tls/key.pem",
}


def example() -> str:
    """Return the example, as TOML."""
    return _HEAD + "\n".join(_section((), Configuration)) + "\n"


def _section(key_path: tuple[str, ...], model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the lines of a section: its keys, then its sections. `prefix` comments them all out."""
    inner: list[tuple[str, FieldInfo, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        if (within := _model(field.annotation)) is not None:
            inner.append((name, field, within))
        else:
            yield from _key(name, field)
    for name, field, within in inner:
        path = (*key_path, name)
        is_list = get_origin(field.annotation) is tuple
        # A section that is missing by default is commented out.
        shut = "#" if prefix or is_list or field.default is None else ""
        title = f"[[{'.'.join(path)}]]" if is_list else f"[{'.'.join(path)}]"
        yield ""
        yield from _comment((within.__doc__ or "").strip())
        yield f"{shut}{title}"
        yield from _section(path, within, shut)


def _key(name: str, field: FieldInfo) -> Iterator[str]:
    allowed = _allowed(field.annotation)
    text = (field.description or "").rstrip(".") + (f". Allowed: {', '.join(allowed)}" if allowed else "")
    yield from _comment(text + ".")
    default = _EXAMPLES.get(name, "") if field.is_required() else field.get_default(call_default_factory=True)
    # TOML has no null: a key without a default has no value here.
    yield f"#{name} = {'' if default is None else _toml(default)}".rstrip()


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        keys = (f"{orjson.dumps(key).decode()} = {_toml(one)}" for key, one in value.items())
        return f"{{{', '.join(keys)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return orjson.dumps(value, default=str).decode()


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a section, or of a list of them."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _allowed(annotation: Any) -> list[str]:
    """Return the words that a key allows, as TOML; none where it allows other values too."""
    if get_origin(annotation) is Literal:
        return [_toml(word) for word in get_args(annotation)]
    return [word for one in get_args(annotation) for word in _allowed(one)]
