"""Resources: that the files below `fhir/` are those that the builders make, and no others."""

import hashlib
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from index.database.tables import Resource, Study, StudyResource, StudyVariant
from index.errors import NotExpressible, NotFound
from index.maintenance.verify.context import PAGE, VerifyContext
from index.maintenance.verify.findings import Finding, Kind
from index.publication.feed import Key
from index.publication.study_rows import load_study
from index.storage.durable import open_file
from index.storage.processes import is_alive

# How often a study that is being published is looked at, and how many seconds apart; after that it is left to
# the publisher.
LOOKS = 10
LOOK_SECONDS = 0.5


def check_resources(context: VerifyContext) -> Iterator[Finding]:
    """Compare the files of every published study with the resources that it should have."""
    last = 0
    handed_over: set[Path] = set()
    query = Study.select(Study.id, Study.uid)
    while rows := context.database.rows(query.where(Study.id > last).order_by(Study.id).limit(PAGE)):
        for last, uid in rows:
            found = _settled(context, last, uid)
            if found and context.repair:
                _hand_over(context, last, found)
            for key, kind in found.items():
                path = context.directory.path(*key).relative_to(context.data)
                handed_over.add(path)
                detail = f"{key[1]}/{key[2]} of study {uid}, {key[0]}"
                yield Finding(kind, uid, str(path), detail, context.repair)
    if context.publication.directory.is_kept:
        yield from _strays(context, handed_over)


def _settled(context: VerifyContext, study: int, uid: str) -> dict[Key, Kind]:
    """Return what is wrong with a study's resources; nothing while they are still changing."""
    for _ in range(LOOKS if context.served else 1):
        if not _is_changing(context, study):
            found = _compare(context, study, uid)
            if found and context.served:
                time.sleep(LOOK_SECONDS)  # the files follow the feed
            if not found or (not _is_changing(context, study) and found == _compare(context, study, uid)):
                return found
        if context.served:
            time.sleep(LOOK_SECONDS)
    return {}


def _is_changing(context: VerifyContext, study: int) -> bool:
    """Return whether this study, or another one of its patient, is still to be published."""
    patients = StudyVariant.select(StudyVariant.patient).where(StudyVariant.study == study)
    related = StudyVariant.select(StudyVariant.study).where(StudyVariant.patient.in_(patients))
    query = Study.select(Study.id).where(
        (Study.revision != Study.published) & ((Study.id == study) | Study.id.in_(related))
    )
    return bool(context.database.rows(query.limit(1)))


def _compare(context: VerifyContext, study: int, uid: str) -> dict[Key, Kind]:
    wanted = _wanted(context, uid)
    query = Resource.select(Resource.fhir, Resource.type, Resource.name, Resource.sha256).join(StudyResource)
    mine = {
        (fhir, kind, name): sha256
        for fhir, kind, name, sha256 in context.database.rows(query.where(StudyResource.study == study))
    }
    has_files = context.publication.directory.is_kept
    found = {}
    for key, sha256 in wanted.items():
        path = context.directory.path(*key)
        actual = _sha256(path) if has_files else mine.get(key)
        if actual is None:
            found[key] = Kind.RESOURCE_MISSING
        elif actual != sha256:
            found[key] = Kind.RESOURCE_ALTERED
        elif key not in mine:
            found[key] = Kind.RESOURCE_UNRECORDED
    return found | dict.fromkeys(set(mine) - set(wanted), Kind.RESOURCE_STRAY)


def _sha256(path: Path) -> str | None:
    """Return a file's SHA-256, in hexadecimal; None: it is missing; empty: it cannot be read."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _wanted(context: VerifyContext, uid: str) -> dict[Key, str]:
    try:
        record = load_study(context.database, uid)
    except NotFound:
        return {}
    wanted: dict[Key, str] = {}
    for version in context.versions:
        try:
            resources = context.publication.resources(record, version)
            wanted |= {resource.key: resource.sha256 for resource in resources}
        except NotExpressible:
            continue
    return wanted


def _hand_over(context: VerifyContext, study: int, found: dict[Key, Kind]) -> None:
    """Have the publisher write these resources: only it writes files, so that no two writers conflict."""
    with context.database.writing():
        for fhir, kind, name in found:
            which = (Resource.fhir == fhir) & (Resource.type == kind) & (Resource.name == name)
            context.database.execute(Resource.update(sha256="").where(which))
        context.database.execute(Study.update(revision=Study.revision + 1).where(Study.id == study))


def _strays(context: VerifyContext, handed_over: AbstractSet[Path]) -> Iterator[Finding]:
    """Find files that were not published, and temporary files of processes that have ended."""
    for folder in sorted(path for path in context.directory.root.glob("*/*") if path.is_dir()):
        query = Resource.select(Resource.name).where(
            (Resource.fhir == folder.parent.name) & (Resource.type == folder.name) & (Resource.deleted == 0)
        )
        known = {name for (name,) in context.database.rows(query)}
        for path in sorted(folder.iterdir()):
            if path.suffix == ".json" and (
                path.stem in known or path.relative_to(context.data) in handed_over
            ):
                continue
            # A temporary name is .<name>.<process>.tmp: see index/storage/durable.py.
            is_temporary = path.suffix == ".tmp"
            is_in_use = is_temporary and is_alive(path.stem.rpartition(".")[2])
            if is_in_use or not context.is_settled(path):
                continue
            kind = Kind.LEFTOVER if is_temporary else Kind.RESOURCE_STRAY
            yield _useless(context, kind, path, "belongs to no study")


def check_incoming(context: VerifyContext) -> Iterator[Finding]:
    """Find files in `incoming/` of processes that have ended."""
    for path in sorted(context.objects.left_behind()):
        if context.is_settled(path):
            yield _useless(context, Kind.LEFTOVER, path, "was not completed")


def _useless(context: VerifyContext, kind: Kind, path: Path, why: str) -> Finding:
    """Return the finding of a useless file, and remove it to repair that; a foreign folder stays."""
    name = str(path.relative_to(context.data))
    try:
        if context.repair:
            path.unlink(missing_ok=True)
    except OSError as error:
        return Finding(kind, name, name, f"{why}, and cannot be removed: {error.strerror}")
    return Finding(kind, name, name, why, context.repair)


def check_unpublished(context: VerifyContext) -> Iterator[Finding]:
    """Find studies that are still to be published, where no daemon does it."""
    query = Study.select(Study.uid).where(Study.revision != Study.published).order_by(Study.id)
    for (uid,) in context.database.rows(query):
        yield Finding(
            Kind.STUDY_UNPUBLISHED,
            uid,
            _path(context, uid),
            "has changed and is not published",
            context.repair,
        )


def _path(context: VerifyContext, uid: str) -> str:
    path: Path = context.directory.path(context.versions[0], "ImagingStudy", uid)
    return str(path.relative_to(context.data))
