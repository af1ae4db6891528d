"""Modality (0008,0060) as codes of the DICOM Controlled Terminology (PS3.16 Annex D)."""

ACQUISITION: dict[str, str] = {
    "AR": "Autorefraction",
    "BDUS": "Ultrasound Bone Densitometry",
    "BI": "Biomagnetic Imaging",
    "BMD": "Bone Mineral Densitometry",
    "CFM": "Confocal Microscopy",
    "CR": "Computed Radiography",
    "CT": "Computed Tomography",
    "DG": "Diaphanography",
    "DMS": "Dermoscopy",
    "DX": "Digital Radiography",
    "ECG": "Electrocardiography",
    "EEG": "Electroencephalography",
    "EMG": "Electromyography",
    "EOG": "Electrooculography",
    "EPS": "Cardiac Electrophysiology",
    "ES": "Endoscopy",
    "GM": "General Microscopy",
    "HD": "Hemodynamic Waveform",
    "IO": "Intra-oral Radiography",
    "IVOCT": "Intravascular Optical Coherence Tomography",
    "IVUS": "Intravascular Ultrasound",
    "KER": "Keratometry",
    "LEN": "Lensometry",
    "LS": "Laser Scan",
    "MG": "Mammography",
    "MR": "Magnetic Resonance",
    "NM": "Nuclear Medicine",
    "OAM": "Ophthalmic Axial Measurements",
    "OCT": "Optical Coherence Tomography",
    "OP": "Ophthalmic Photography",
    "OPM": "Ophthalmic Mapping",
    "OPT": "Ophthalmic Tomography",
    "OPTBSV": "Ophthalmic Tomography B-scan Volume Analysis",
    "OPTENF": "Ophthalmic Tomography En Face",
    "OPV": "Ophthalmic Visual Field",
    "OSS": "Optical Surface Scanner",
    "PA": "Photoacoustic",
    "POS": "Position Sensor",
    "PT": "Positron emission tomography",
    "PX": "Panoramic X-Ray",
    "RESP": "Respiratory Waveform",
    "RF": "Radiofluoroscopy",
    "RG": "Radiographic imaging",
    "RTIMAGE": "RT Image",
    "SM": "Slide Microscopy",
    "SRF": "Subjective Refraction",
    "TG": "Thermography",
    "US": "Ultrasound",
    "VA": "Visual Acuity",
    "XA": "X-Ray Angiography",
    "XC": "External-camera Photography",
}
"""PS3.16 CID 29 Acquisition Modality: code and meaning."""

NON_ACQUISITION: dict[str, str] = {
    "ASMT": "Content Assessment Result",
    "AU": "Basic Voice Audio",
    "CTPROTOCOL": "CT Protocol",
    "DOC": "Document",
    "FID": "Spatial Fiducials",
    "HC": "Hard Copy",
    "IOL": "Intraocular Lens Calculation",
    "KO": "Key Object Selection",
    "M3D": "Model for 3D Manufacturing",
    "OT": "Other",
    "PLAN": "Plan",
    "PR": "Presentation State",
    "REG": "Registration",
    "RTDOSE": "RT Dose",
    "RTPLAN": "RT Plan",
    "RTRECORD": "RT Treatment Record",
    "RTSTRUCT": "RT Structure Set",
    "RWV": "Real World Value Map",
    "SEG": "Segmentation",
    "SMR": "Stereometric Relationship",
    "SR": "Structured Report Document",
    "STAIN": "Automated Slide Stainer",
    "TEXTUREMAP": "Texture Map",
}
"""PS3.16 CID 32 Non-Acquisition Modality: code and meaning."""

MODALITIES = (
    ACQUISITION
    | NON_ACQUISITION
    | {
        "ANN": "Annotation",
        "RTINTENT": "Radiotherapy Intent",
        "RTRAD": "RT Radiation",
        "RTSEGANN": "Radiotherapy Segment Annotation",
        "XAPROTOCOL": "XA Protocol (Performed)",
    }
)
"""Defined Terms of PS3.3 C.7.3.1.1.1: PS3.16 CID 33 Modality, which is CID 29 and CID 32, and five more."""

RETIRED: dict[str, str] = {
    "AS": "Angioscopy",
    "CD": "Color flow Doppler",
    "CF": "Cinefluorography",
    "CP": "Culposcopy",
    "CS": "Cystoscopy",
    "DD": "Duplex Doppler",
    "DF": "Digital fluoroscopy",
    "DM": "Digital microscopy",
    "DS": "Digital Subtraction Angiography",
    "EC": "Echocardiography",
    "FA": "Fluorescein angiography",
    "FS": "Fundoscopy",
    "LP": "Laparoscopy",
    "MA": "Magnetic resonance angiography",
    "MS": "Magnetic resonance spectroscopy",
    "OPR": "Ophthalmic Refraction",
    "ST": "Single-photon emission computed tomography",
    "VF": "Videofluorography",
}
"""Retired Defined Terms of PS3.3 C.7.3.1.1.1; PS3.16 Annex D has them still."""

RETIRED_ACQUISITION = frozenset(("OPR",))
"""In the CID 29 of DSTU2 (ValueSet/dicom-cid29, version 20121129) and no longer in the standard's."""

OTHER = "OT"
"""The modality of a series without one: DSTU2 to R5 require it."""
