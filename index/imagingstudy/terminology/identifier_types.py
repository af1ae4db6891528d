"""Identifier types: HL7 v2 Table 0203, which IdentifierTypeCode (0040,0035) refers to."""

import re

_CODES = """
AC ACSN AIN AM AMA AN ANC AND ANON ANT APRN ASID BA BC BCFN BCT BR BRN BSNR CAAI CC CONM CY CZ DC DCFN DDS
DEA DFN DI DL DN DO DP DPM DR DS DSG EI EN ESN FDR FDRFN FGN FI FILL GI GIN GL GN HC IND IRISTEM JHN LACSN
LANR LI LN LR MA MB MC MCD MCN MCR MCT MD MI MR MRT MS MT MTN NBSNR NCT NE NH NI NII NIIP NP NPI OBI OD PA
PC PCN PE PEN PHC PHE PHO PI PIN PLAC PN PNT PPIN PPN PRC PRN PT QA RI RN RPH RR RRI RRP SAMN SB SID SL SN
SNBSN SNO SP SR SRX SS STN TAX TN TPR TRL U UDI USID VN VP VS WC WCN WP XV XX
"""

IDENTIFIER_TYPES = frozenset(_CODES.split())

NATIONAL = re.compile(r"NN[A-Z]{3}")
"""A national person identifier: NN and the country's code of three letters (ISO 3166)."""


def is_identifier_type(code: str) -> bool:
    """Return whether the text is a code of HL7 v2 Table 0203."""
    return code in IDENTIFIER_TYPES or NATIONAL.fullmatch(code) is not None
