"""Look for identity in DICOM headers before anything is read or written (specification 5.2).

Findings name tags and never values. Sequences are searched at every depth, private ones included.
"""

import csv
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from pydicom import Dataset

from common.files import InputError, atomic_path

MODES = ("refuse", "warn", "ignore")
PLACEHOLDER = re.compile(
    r"(?i)^(anon|anonymi[sz]ed|deidentified|removed|unknown|none|x+|patient)?[\W_\d]*$"
)
LEVEL_1 = {  # identity
    0x00100010: "PatientName",
    0x00100030: "PatientBirthDate",
    0x00101005: "PatientBirthName",
    0x00101060: "PatientMotherBirthName",
    0x00101000: "OtherPatientIDs",
    0x00101001: "OtherPatientNames",
    0x00101002: "OtherPatientIDsSequence",
    0x00101040: "PatientAddress",
    0x00102154: "PatientTelephoneNumbers",
    0x00101090: "MedicalRecordLocator",
    0x00101080: "MilitaryRank",
    0x00102297: "ResponsiblePerson",
    0x00100050: "PatientInsurancePlanCodeSequence",
    0x00100021: "IssuerOfPatientID",
    0x00080050: "AccessionNumber",
}
LEVEL_2 = {  # may lead to a person
    0x00080080: "InstitutionName",
    0x00080081: "InstitutionAddress",
    0x00080090: "ReferringPhysicianName",
    0x00081048: "PhysiciansOfRecord",
    0x00081050: "PerformingPhysicianName",
    0x00081060: "NameOfPhysiciansReadingStudy",
    0x00081070: "OperatorsName",
    0x00081010: "StationName",
    0x00181000: "DeviceSerialNumber",
    0x00100032: "PatientBirthTime",
    0x00102160: "EthnicGroup",
    0x00102180: "Occupation",
    0x001021B0: "AdditionalPatientHistory",
    0x00104000: "PatientComments",
    0x00204000: "ImageComments",
    0x00081030: "StudyDescription",
    0x00321032: "RequestingPhysician",
    0x00080020: "StudyDate",
    0x00080021: "SeriesDate",
    0x00080022: "AcquisitionDate",
    0x00080023: "ContentDate",
}
SHEET_MOVIES = 64  # first frames on the contact sheet


class Finding(NamedTuple):
    """One tag that may identify a person; the value is not kept."""

    tag: str  # (gggg,eeee)
    keyword: str
    level: int  # 1 identity, 2 warning


def check_header(data: Dataset, known_ids: Collection[str] | None = None) -> list:
    """Return the Findings in a data set, each tag once.

    Args:
        data: pydicom data set, pixels not needed.
        known_ids: study ids; a PatientID that is none of them is a finding of level 2.
    """
    patient_id = str(_value(data, 0x00100020) or "").strip()
    findings = set(_walk(data, patient_id))
    if str(_value(data, 0x00120062) or "").strip().upper() != "YES":
        findings.add(Finding("(0012,0062)", "PatientIdentityRemoved", 2))
    if known_ids is not None and patient_id and patient_id not in known_ids:
        findings.add(Finding("(0010,0020)", "PatientID", 2))
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


def _walk(data, patient_id):
    """Yield the Findings of a data set and of the sequences in it."""
    for tag in list(data.keys()):
        group, text = tag >> 16, f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                element = data[tag]
        except Exception:
            # Damaged elements cannot be judged: a person has to.
            yield Finding(text, "unreadable element", 2)
            continue
        value = element.value
        if element.VR == "SQ":
            for item in value or ():
                yield from _walk(item, patient_id)
        if group % 2 and not _empty(value):
            yield Finding(f"({group:04X},xxxx)", "private group", 2)
        if tag in LEVEL_1:
            name = element.VR == "PN"
            allowed = name and (PLACEHOLDER.match(str(value)) or str(value).strip() == patient_id)
            if not _empty(value) and not allowed:
                yield Finding(text, LEVEL_1[tag], 1)
        elif tag == 0x00280301 and str(value).strip().upper() == "YES":
            yield Finding(text, "BurnedInAnnotation", 1)
        elif 0x6000 <= group <= 0x60FF and tag & 0xFFFF == 0x3000:
            yield Finding("(60xx,3000)", "OverlayData", 1)
        elif not _empty(value) and (tag in LEVEL_2 or element.VR == "PN"):
            keyword = LEVEL_2.get(tag) or element.keyword or "person name"
            yield Finding(text, keyword, 2)


def _empty(value):
    return (
        value is None or (hasattr(value, "__len__") and len(value) == 0) or not str(value).strip()
    )


def report(path: Path, findings: dict[str, list], mode: str) -> list[str]:
    """Write ``deid_report.csv`` and judge the findings.

    Args:
        path: the CSV to write: file, tag, keyword, level.
        findings: {file name: list of Finding}.
        mode: "refuse" raises on level 1, "warn" returns the lines to print, "ignore" none.

    Raises:
        InputError: level 1 was found in mode "refuse"; the text lists files and tag names.
    """
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as handle,
    ):
        writer = csv.writer(handle)
        writer.writerow(("file", "tag", "keyword", "level"))
        for name, found in sorted(findings.items()):
            writer.writerows((name, f.tag, f.keyword, f.level) for f in found)
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
    for found in findings.values():
        for finding in found:
            if finding.level == 2:
                counts[finding[:2]] = counts.get(finding[:2], 0) + 1
    lines += [f"check {key} {tag} in {n} files" for (tag, key), n in sorted(counts.items())]
    return lines


def identity_lines(findings: dict[str, list]) -> list[str]:
    """Return one line per file with findings of level 1: the file and its tags, never values."""
    lines = []
    for name, found in sorted(findings.items()):
        tags = [f"{f.keyword} {f.tag}" for f in found if f.level == 1]
        if tags:
            lines.append(f"{name}: {', '.join(tags)}")
    return lines


def write_contact_sheet(path: Path, pictures: Sequence[np.ndarray], titles: Sequence[str]) -> Path:
    """Write the first frames of up to 64 movies as one picture for a human look.

    Args:
        path: PNG to write.
        pictures: list of (r, c) arrays, 0..255.
        titles: list of movie names.
    """
    pictures, titles = pictures[:SHEET_MOVIES], titles[:SHEET_MOVIES]
    columns = min(8, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.9 * columns, 1.75 * rows + 0.4), dpi=120)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, picture, title in zip(grid.flat, pictures, titles, strict=False):
        axes.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=255, aspect="equal")
        axes.set_title(title, fontsize=8)
    figure.suptitle("First frames: look for burnt-in names, numbers and dates", fontsize=9, y=0.995)
    figure.tight_layout(pad=0.4, rect=(0, 0, 1, 0.985))
    with atomic_path(Path(path)) as temporary:
        figure.savefig(temporary, format="png")
    return Path(path)
