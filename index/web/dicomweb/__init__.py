"""DICOMweb (PS3.18): search, retrieve, store and delete studies over HTTP."""
