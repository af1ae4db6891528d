"""Studies to FHIR resources: pure functions of index.records.Study, a version and the rules.

No clock, no database, no randomness: the same study gives the same resources, key for key.
"""

from index.imagingstudy.rules import Built, Resource, Rules
from index.records import Study

__all__ = ["VERSIONS", "Built", "Resource", "Rules", "build", "doubts", "resources"]

VERSIONS = ("dstu2", "r4", "r5")
"""FHIR DSTU2 (1.0.2), R4 (4.0.1) and R5 (5.0.0)."""


def build(study: Study, version: str, rules: Rules) -> Built:
    """Return the ImagingStudy of a study, the Patient, everything else that it refers to, and the doubts.

    Raises NotExpressible with the reason where this version cannot hold the study, and ValueError for a
    version that is none of VERSIONS.
    """
    from index.imagingstudy.context import Build
    from index.imagingstudy.elements.people import patient
    from index.imagingstudy.versions import dstu2, r4, r5
    from index.imagingstudy.versions.mado import conform

    if version not in VERSIONS:
        raise ValueError(f"version {version!r} is none of {', '.join(VERSIONS)}")
    work = Build(study, version, rules)
    main = {"dstu2": dstu2, "r4": r4, "r5": r5}[version].imaging_study(work)
    person = patient(work, study.patient)
    made = [main, person, *work.others]
    if rules.profile == "mado" and version == "r4":
        made = conform(work, made)
    return Built(made, work.doubts.sentences())


def resources(study: Study, version: str, rules: Rules) -> list[Resource]:
    """Return the resources of `build` alone: the ImagingStudy first, then the Patient, then the others."""
    return build(study, version, rules).resources


def doubts(study: Study, version: str, rules: Rules) -> list[str]:
    """Return the doubts of `build` alone. Raises as `build` does."""
    return build(study, version, rules).doubts
