"""The elements of ImagingStudy, and the resources that it refers to."""
