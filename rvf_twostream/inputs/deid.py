"""Look for identity in DICOM headers before anything is read or written (specification 5.2).

What identifies is told by table E.1-1 of DICOM PS3.15, as the package dicom-anonymizer keeps it;
which of it names a person outright (level 1) is ours. Findings name tags and never values.
Sequences are searched at every depth, private ones included, and so are the file's preamble and
meta header.
"""

import re
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from dicomanonymizer.dicom_anonymization_databases import (
    dicomfields_2023,
    dicomfields_2024b,
    dicomfields_2026c,
)
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.tag import Tag

from common.files import InputError
from common.tables import write_table

# An attribute of any edition counts: some were retired.
EDITIONS = (dicomfields_2023, dicomfields_2024b, dicomfields_2026c)
RULES = {  # list of the package: rule of the table
    "D_TAGS": "D",
    "Z_TAGS": "Z",
    "X_TAGS": "X",
    "U_TAGS": "U",
    "Z_D_TAGS": "Z/D",
    "X_Z_TAGS": "X/Z",
    "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
}
IDENTITY = {  # names a person, or is a number that an office can turn into one
    "AccessionNumber",
    "AdmissionID",
    "CountryOfResidence",
    "CurrentPatientLocation",
    "InsurancePlanIdentification",
    "IssuerOfPatientID",
    "MedicalRecordLocator",
    "MilitaryRank",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientAddress",
    "PatientBirthDate",
    "PatientBirthDateInAlternativeCalendar",
    "PatientBirthName",
    "PatientDeathDateInAlternativeCalendar",
    "PatientInstitutionResidence",
    "PatientInsurancePlanCodeSequence",
    "PatientMotherBirthName",
    "PatientName",
    "PatientTelecomInformation",
    "PatientTelephoneNumbers",
    "PersonAddress",
    "PersonTelecomInformation",
    "PersonTelephoneNumbers",
    "RegionOfResidence",
    "ResponsiblePerson",
    "ServiceEpisodeID",
}
TEXT = {"AE", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "UN"}  # may say who
FREE_TEXT = {"LT", "PN", "ST", "UT"}  # outside the table too: text values of structured content
META = (0x00020016, 0x00020017, 0x00020018, 0x00020026, 0x00020027, 0x00020028)  # addresses
META_PRIVATE = (0x00020100, 0x00020102)
OLDEST = 89  # years; above, an age is an identifier (HIPAA 45 CFR 164.514)
NO_DATES = {"19000101", "19010101", "18000101", "00010101", "00000000"}  # fillers of anonymisers
WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        anon anonym anonymous anonymus anonymized anonymised anonymization anonyme anonymisiert de
        deid deidentified identified redacted removed deleted masked hidden withheld blank empty
        unknown unbekannt none no nil null na nn not available name noname nobody patient pat pt
        subject participant case study person id test pseudonym pseudonymized pseudonymised first
        last given family firstname lastname dummy default
        """,
    )
)
SHORT_NUMBER = 4  # digits beside such a word: a running number; longer may be a hospital's


class Finding(NamedTuple):
    """One tag that may identify a person; the value is not kept."""

    tag: str  # (gggg,eeee)
    keyword: str
    level: int  # 1 identity, 2 may lead to a person, 3 filled, of the table
    rule: str = ""  # of PS3.15 E.1-1, or why it is looked at


def _read_tables():
    """Return ({tag: rule}, [(tag, mask, rule)]) of all editions; newer ones win."""
    plain, repeated = {}, []
    for table in EDITIONS:
        for name, rule in RULES.items():
            for entry in getattr(table, name):
                if len(entry) == 2:
                    plain[entry[0] << 16 | entry[1]] = rule
                else:
                    repeated.append((entry[0] << 16 | entry[1], entry[2] << 16 | entry[3], rule))
    return plain, repeated


PLAIN, REPEATED = _read_tables()


def rule_of(tag: int) -> str | None:
    """Return the rule of PS3.15 table E.1-1 for a tag, or None where it has none."""
    if tag in PLAIN:
        return PLAIN[tag]
    return next((rule for base, mask, rule in REPEATED if tag & mask == base & mask), None)


def says_nobody(text: str, patient_id: str = "") -> bool:
    """Say whether a value stands for nobody: "Anonymous", "De-identified", "xxx^xxx", the study id.

    Digits alone, or long ones beside such a word, may be a hospital's number, a date of birth.
    """
    text = text.strip()
    if not text or (patient_id and text.casefold() == patient_id.casefold()):
        return True
    words = re.findall(r"[^\W\d_]+", text.casefold())
    digits = sum(char.isdigit() for char in text)
    known = all(word in WORDS or re.fullmatch("xx+|zz+", word) for word in words)
    return known and (digits == 0 or (bool(words) and digits <= SHORT_NUMBER))


def check_header(data: Dataset, known_ids: Collection[str] | None = None) -> list[Finding]:
    """Return the Findings in a data set, each tag once.

    Args:
        data: pydicom data set, pixels not needed.
        known_ids: study ids; a PatientID that is none of them is a finding of level 2.
    """
    patient_id = str(_value(data, 0x00100020) or "").strip()
    findings = set(_walk(data, patient_id))
    findings.update(_file_head(data))
    if str(_value(data, 0x00120062) or "").strip().upper() != "YES":
        findings.add(Finding("(0012,0062)", "PatientIdentityRemoved", 2, "is not YES"))
    if known_ids is not None and patient_id and patient_id not in known_ids:
        findings.add(Finding("(0010,0020)", "PatientID", 2, "is no study id"))
    return sorted(findings, key=lambda f: (f.level, f.tag))


def _value(data, tag):
    """Return the value of an element, None when it is absent or damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return data[tag].value
    except Exception:
        # pydicom raises what the converter of the element's type raises; the walk reports it.
        return None


def _file_head(data):
    """Yield the Findings before the data set: preamble and meta header."""
    preamble = getattr(data, "preamble", None) or b""
    if preamble.strip(b"\0") and preamble[:4] not in (b"II*\0", b"MM\0*"):  # both: also a TIFF
        text = re.search(rb"[A-Za-z0-9]{3}", preamble)
        yield Finding("(preamble)", "File Preamble", 1 if text else 2, "128 bytes before DICM")
    meta = getattr(data, "file_meta", None)
    for tag in META if meta is not None else ():
        if tag in meta and not says_nobody(str(_value(meta, tag) or "")):
            yield Finding(_shown(tag), keyword_for_tag(tag), 2, "file meta")
    for tag in META_PRIVATE if meta is not None else ():
        if tag in meta and not _empty(_value(meta, tag)):
            yield Finding(_shown(tag), keyword_for_tag(tag), 1 if tag & 2 else 2, "file meta")


def _shown(tag):
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _walk(data: Dataset, patient_id: str) -> Iterator[Finding]:
    """Yield the Findings of a data set and of the sequences in it."""
    for tag in list(data.keys()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                element = data[tag]
        except Exception:
            # Damaged elements cannot be judged: a person has to.
            yield Finding(_shown(tag), "unreadable element", 2, "damaged")
            continue
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _walk(item, patient_id)
        finding = _judge(int(tag), element, patient_id)
        if finding is not None:
            yield finding


def _judge(tag, element, patient_id):
    """Return the Finding of one element, or None."""
    group, value, rule = tag >> 16, element.value, rule_of(tag)
    text = str(value).strip() if value is not None else ""
    if group % 2:
        if _empty(value):
            return None
        return Finding(f"({group:04X},xxxx)", "private group", 2, "X")
    if tag == 0x00280301:
        yes = text.upper() == "YES"
        return Finding(_shown(tag), "BurnedInAnnotation", 1, "is YES") if yes else None
    if 0x6000 <= group <= 0x60FF and tag & 0xFFFF == 0x3000:
        return Finding("(60xx,3000)", "OverlayData", 1, rule or "X")
    if tag == 0x00100020 or _empty(value):
        return None  # PatientID is compared with the study ids
    keyword = element.keyword or Tag(tag).__str__()
    if keyword in IDENTITY:
        nobody = text in NO_DATES if element.VR == "DA" else says_nobody(text, patient_id)
        nobody = nobody and element.VR != "SQ"
        return None if nobody else Finding(_shown(tag), keyword, 1, rule or "identity")
    if keyword == "PatientAge":
        return Finding(_shown(tag), keyword, 1 if _years(text) > OLDEST else 3, rule or "X")
    if rule is None and element.VR in FREE_TEXT and not says_nobody(text, patient_id):
        return Finding(_shown(tag), keyword, 2, "free text")
    if rule is None:
        return None
    if element.VR in TEXT:
        if text in NO_DATES or says_nobody(text, patient_id):
            return None
        return Finding(_shown(tag), keyword, 2, rule)
    return Finding(_shown(tag), keyword, 3, rule)


def _years(text):
    """Return the age in years of an AS value, 0 where it is none."""
    return int(text[:3]) if re.fullmatch(r"\d{3}Y", text) else 0


def _empty(value):
    return (
        value is None or (hasattr(value, "__len__") and len(value) == 0) or not str(value).strip()
    )


def report(path: Path, findings: dict[str, list], mode: str) -> list[str]:
    """Write ``deid_report.csv`` and judge the findings.

    Args:
        path: the CSV to write: file, tag, keyword, level, rule.
        findings: {file name: list of Finding}.
        mode: "refuse" raises on level 1, "warn" returns the lines to print, "ignore" none.

    Raises:
        InputError: level 1 was found in mode "refuse"; the text lists files and tag names.
    """
    rows = [
        (name, f.tag, f.keyword, f.level, f.rule)
        for name, of_file in sorted(findings.items())
        for f in of_file
    ]
    write_table(path, ("file", "tag", "keyword", "level", "rule"), rows)
    if mode == "ignore":
        return []
    identity = identity_lines(findings)
    if identity and mode == "refuse":
        more = f"; and {len(identity) - 20} more files" if len(identity) > 20 else ""
        raise InputError(
            f"identity found: {'; '.join(identity[:20])}{more}. Anonymise these files, or read "
            f"{path} and decide with --deid warn"
        )
    lines = [f"identity: {line}" for line in identity]
    counts = {}
    for of_file in findings.values():
        for finding in of_file:
            if finding.level == 2:
                counts[finding[:2]] = counts.get(finding[:2], 0) + 1
    lines += [f"check {key} {tag} in {n} files" for (tag, key), n in sorted(counts.items())]
    others = {f.keyword for of_file in findings.values() for f in of_file if f.level == 3}
    if others:
        lines.append(
            f"{len(others)} more attributes of DICOM PS3.15 table E.1-1 are filled (UIDs, times, "
            f"sequences): listed in {path.name}"
        )
    return lines


def identity_lines(findings: dict[str, list]) -> list[str]:
    """Return one line per file with findings of level 1: the file and its tags, never values."""
    lines = []
    for name, of_file in sorted(findings.items()):
        tags = [f"{f.keyword} {f.tag}" for f in of_file if f.level == 1]
        if tags:
            lines.append(f"{name}: {', '.join(tags)}")
    return lines
