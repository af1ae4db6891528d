"""A study to FHIR resources: pure functions of index.records.Study, a version and the rules.

No clock, no database, no randomness: the same study gives the same resources, key for key.
"""

from index.imagingstudy.rules import Built, Resource, Rules
from index.records import Study

__all__ = ["VERSIONS", "Built", "Resource", "Rules", "build"]

VERSIONS = ("dstu2", "r4", "r5")
"""FHIR DSTU2 (1.0.2), R4 (4.0.1) and R5 (5.0.0)."""


def build(study: Study, version: str, rules: Rules) -> Built:
    """Return the ImagingStudy of a study, its Patient, the other resources that it refers to, and the issues.

    Raises NotExpressible with the reason where this version cannot hold the study, and ValueError for a
    version that is not in VERSIONS.
    """
    from index.imagingstudy.context import BuildContext
    from index.imagingstudy.elements.people import patient
    from index.imagingstudy.versions import dstu2, r4, r5
    from index.imagingstudy.versions.mado import conform

    if version not in VERSIONS:
        raise ValueError(f"version {version!r} is none of {', '.join(VERSIONS)}")
    context = BuildContext(study, version, rules)
    imaging_study = {"dstu2": dstu2, "r4": r4, "r5": r5}[version].imaging_study(context)
    of_patient = patient(context, study.patient)
    resources = [imaging_study, of_patient, *context.others]
    if rules.profile == "mado" and version == "r4":
        resources = conform(context, resources)
    return Built(resources, context.issues.sentences())
