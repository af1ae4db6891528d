"""FHIR Subscriptions: who is told of which changes of studies, and the notifications."""
