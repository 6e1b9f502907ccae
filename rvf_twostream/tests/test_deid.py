"""De-identification: tags at every depth, refuse and warn, no value in any output."""

import csv
import io
import shutil
import zipfile
from pathlib import Path

import pydicom
import pytest
from PIL import Image
from pydicom.datadict import dictionary_has_tag, dictionary_VR

from common.files import RESULTS_DIR as RESULTS
from demo.synthetic import write_cohort
from inputs.deid import PLAIN, check_header
from little import (
    assert_one_line,
    call_script,
    run_script,
    texture,
    tree,
    write_data_set,
    write_dicom,
)

# Long words: three letters turn up by chance in the pictures of a report.
SECRETS = {
    "PatientName": "Quackenbush^Zeldamira",
    "PatientBirthDate": "19310427",
    "OtherPatientNames": "Fezziwig^Zeldamira",
    "AccessionNumber": "ACC7788991",
    "InstitutionName": "Wobblethorpe Clinic",
    "OperatorsName": "Snodgrass^Idabella",
    "PatientComments": "lives at Grimmauld Lane",
    "StudyDescription": "echo of Quackenbush",
}
NESTED, PRIVATE, DEEP = "Nestor^Nested", "Privatus Secretus", "Deepwater^Dorabella"


def dataset(**elements):
    data = pydicom.Dataset()
    data.PatientID, data.PatientIdentityRemoved = "p01", "YES"
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def levels(data, ids=("p01",)):
    return {f.keyword: f.level for f in check_header(data, ids) if f.level < 3}


def item(**elements):
    data = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


@pytest.mark.parametrize(
    ("elements", "found"),
    [
        ({}, {}),
        ({"PatientName": ""}, {}),
        ({"PatientName": "p01"}, {}),
        ({"PatientName": "ANONYMIZED_003"}, {}),
        ({"PatientName": "xxxx"}, {}),
        ({"PatientName": "Patient 12"}, {}),
        ({"PatientName": "Anonymized^Patient"}, {}),
        ({"PatientName": "De-identified"}, {}),
        ({"PatientName": "NAME^NONE"}, {}),
        ({"PatientName": "xxx^xxx"}, {}),
        ({"PatientName": "ANON 0042"}, {}),
        ({"PatientName": "PLA"}, {"PatientName": 1}),
        ({"PatientName": "Anonymous^2045518"}, {"PatientName": 1}),
        ({"PatientName": "19520314"}, {"PatientName": 1}),
        ({"PatientName": "078-05-1120"}, {"PatientName": 1}),
        ({"PatientName": "Noah^Ann"}, {"PatientName": 1}),
        ({"PatientBirthDate": "19000101"}, {}),
        ({"AccessionNumber": "REMOVED"}, {}),
        ({"PatientAge": "089Y"}, {}),
        ({"PatientAge": "093Y"}, {"PatientAge": 1}),
        ({"PatientTelecomInformation": "tel:+15551234567"}, {"PatientTelecomInformation": 1}),
        ({"AdmissionID": "A99812"}, {"AdmissionID": 1}),
        ({"StudyID": "778812"}, {"StudyID": 2}),
        ({"SeriesDescription": "Jane Doe post LVAD"}, {"SeriesDescription": 2}),
        ({"PatientBirthDate": "19500101"}, {"PatientBirthDate": 1}),
        ({"OtherPatientIDs": "4711"}, {"OtherPatientIDs": 1}),
        ({"AccessionNumber": "A1"}, {"AccessionNumber": 1}),
        ({"BurnedInAnnotation": "YES"}, {"BurnedInAnnotation": 1}),
        ({"BurnedInAnnotation": "NO"}, {}),
        ({"StudyDate": "20200101"}, {"StudyDate": 2}),
        ({"InstitutionName": "X"}, {"InstitutionName": 2}),
        (
            {"NamesOfIntendedRecipientsOfResults": "Doe^J"},
            {"NamesOfIntendedRecipientsOfResults": 2},
        ),
        ({"PatientIdentityRemoved": "NO"}, {"PatientIdentityRemoved": 2}),
        ({"PatientID": "H-99"}, {"PatientID": 2}),
    ],
)
def test_levels(elements, found):
    assert levels(dataset(**elements)) == found


def test_every_attribute_of_the_table_is_listed_with_its_rule_and_no_value():
    known = [tag for tag in PLAIN if tag >> 16 != 2 and dictionary_has_tag(tag)]
    assert len(known) > 600
    for tag in known:
        kind = dictionary_VR(tag).split(" or ")[0]
        value = {
            "SQ": [pydicom.Dataset()],
            "DA": "20200102",
            "DT": "20200102030405",
            "TM": "030405",
            "AS": "050Y",
            "UI": "1.2.3",
            "DS": "1.5",
            "IS": "4711",
            "OB": b"\1\2",
            "OW": b"\1\2",
            "AT": 0x00100010,
            "CS": "QX",
        }.get(kind, 7 if kind in ("US", "UL", "SS", "SL", "FD", "FL", "UV", "SV") else "Qx")
        if tag == 0x00100020:
            continue  # PatientID: compared with the study ids
        data = dataset()
        data.add_new(tag, kind, value)
        data.PatientIdentityRemoved = "YES"
        findings = [
            f for f in check_header(data, ("p01",)) if f.tag.startswith(f"({tag >> 16:04X}")
        ]
        findings += [f for f in check_header(data, ("p01",)) if f.tag.startswith("(60xx")]
        assert findings, (hex(tag), kind)
        assert findings[0].rule
        assert "qx" not in str(findings).lower()


def test_preamble_and_meta_header_are_searched(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", texture(2), "p01")
    data = pydicom.dcmread(path)
    assert levels(data) == {}
    data.preamble = b"PATIENT: DOE JANE".ljust(128, b"\0")
    data.file_meta.PrivateInformationCreatorUID = "1.2.3"
    data.file_meta.PrivateInformation = b"Doe^Jane"
    data.file_meta.SourceApplicationEntityTitle = "DOEHOSP"
    assert levels(data) == {
        "File Preamble": 1,
        "PrivateInformation": 1,
        "PrivateInformationCreatorUID": 2,
        "SourceApplicationEntityTitle": 2,
    }


def test_a_name_in_any_frame_is_on_the_sheet_and_old_movies_stay_on_it(tmp_path):
    root = write_data_set(tmp_path / "set", ids=[f"p{k:02d}" for k in range(18)], n=32, cols=64)
    movie = texture(32, 96, 64, seed=1) // 4
    movie[20, 10:20, 5:60] = 255  # in one frame only
    write_dicom(root / "named.dcm", movie, "p03")
    flags = ("--root", root, "--nrows", 32, "--ncols", 32)
    assert call_script("preprocess.py", *flags).returncode == 0
    with Image.open(root / "deid_pictures" / "p03a.png") as picture:
        assert picture.size == (64, 192)
        assert min(picture.getpixel((x, 15)) for x in range(6, 59)) == 255
    pages = sorted(p.name for p in root.glob("deid_contact_sheet*.png"))
    assert pages == ["deid_contact_sheet.png", "deid_contact_sheet_2.png"]
    write_dicom(root / "new.dcm", texture(32, 96, 64, seed=99), "p17")
    done = call_script("preprocess.py", *flags)
    assert "1 movies processed, 20 in" in done.stdout
    assert len(list((root / "deid_pictures").glob("*.png"))) == 20
    with Image.open(root / "deid_contact_sheet_2.png") as page:
        assert page.size[0] == 4 * 300  # four movies on the second page


def test_overlay_and_private_groups():
    data = dataset()
    data.add_new(0x60003000, "OW", b"\0\1")
    data.private_block(0x0019, "MAKER", create=True).add_new(1, "LO", "text")
    assert levels(data) == {"OverlayData": 1, "private group": 2}


def test_identity_is_found_in_nested_and_private_sequences():
    inner = item(PatientName="Doe^John")
    middle = item(ReferencedPatientSequence=[inner])
    assert levels(dataset(RequestAttributesSequence=[middle])) == {"PatientName": 1}
    data = dataset()
    data.private_block(0x0019, "MAKER", create=True).add_new(2, "SQ", [inner])
    assert levels(data)["PatientName"] == 1


def plant(path):
    """Give a DICOM file identity at every depth: plain, nested and private elements."""
    data = pydicom.dcmread(path)
    for keyword, value in SECRETS.items():
        setattr(data, keyword, value)
    deep = item(PatientName=NESTED, ReferencedPatientSequence=[item(PatientName=DEEP)])
    data.RequestAttributesSequence = [deep]
    data.private_block(0x0019, "MAKER", create=True).add_new(1, "LO", PRIVATE)
    data.save_as(path)


@pytest.fixture
def named_set(tmp_path):
    """Return a data set with one file full of planted identity."""
    root = write_data_set(tmp_path / "set", n=32)
    plant(write_dicom(root / "x.dcm", texture(32, seed=9), "p01"))
    return root


def test_refuse_stops_before_anything_but_the_report_is_written(named_set):
    before = set(tree(named_set))
    done = call_script("preprocess.py", "--root", named_set)
    assert_one_line(done, "x.dcm", "PatientName (0010,0010)", "PatientBirthDate", "--deid warn")
    assert set(tree(named_set)) - before == {"deid_report.csv"}
    assert_no_secret(named_set, done)


def test_warn_goes_on_and_no_output_holds_a_value(named_set):
    done = call_script(
        "preprocess.py", "--root", named_set, "--deid", "warn", "--nrows", 32, "--ncols", 32
    )
    assert done.returncode == 0, done.stderr
    assert "x.dcm: " in done.stdout
    with open(named_set / "deid_report.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {"file", "tag", "keyword", "level", "rule"} == set(rows[0])
    assert {r["keyword"] for r in rows if r["file"] == "x.dcm"} >= set(SECRETS) | {"private group"}
    assert_no_secret(named_set, done)
    assert (named_set / "deid_contact_sheet.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_whole_run_and_one_file_hold_no_value(tmp_path):
    """From DICOM to report: movies, statistics, tables, weights, pictures, GIFs, pages, prints."""
    name = "pytest_deid"
    root = tmp_path / "set"
    write_cohort(root, n_patients=16, two_class=True, rows=96, cols=128, frames=34)
    for path in root.glob("*.dcm"):
        plant(path)
    short = "--nframes 8 --nrows 32 --ncols 32 --depth 18 --width 2 --epoch 1 --val_fraction 0.3"
    short += " --test_fraction 0.3 --val_clips 1 --n_sample 1 --nsamples 1"
    try:
        flags = ("--run", name, "--fresh", "--deid", "warn", *short.split())
        done = run_script("main.py", "--root", root, *flags)
        assert done.returncode == 0, done.stderr
        weights = RESULTS / name / "rvf_0.weights.h5"
        one = next(root.glob("*.dcm"))
        flags = ("--weights", weights, "--dicom", one, "--deid", "warn", "--json")
        single = run_script("predict.py", *flags)
        assert single.returncode == 0, single.stderr
        kinds = assert_no_secret(root, done) | assert_no_secret(RESULTS / name, single)
        assert kinds >= {".npy", ".npz", ".h5", ".json", ".csv", ".png", ".gif", ".html"}
    finally:
        shutil.rmtree(RESULTS / name, ignore_errors=True)


def unpacked(name, data):
    """Return what a file holds as bytes: arrays of an archive, comments of a picture."""
    if name.endswith(".npz"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return data + b"".join(archive.read(member) for member in archive.namelist())
    if name.endswith((".png", ".gif")):
        with Image.open(io.BytesIO(data)) as picture:
            return data + repr(picture.info).encode()
    return data


def assert_no_secret(root, process):
    """No planted string in the text output or in any file but the DICOM inputs.

    Returns the suffixes of the files that were looked at.
    """
    secrets = [part for value in SECRETS.values() for part in value.split("^")]
    secrets += [part for name in (NESTED, DEEP) for part in name.split("^")] + [PRIVATE]
    outputs = {name: data for name, data in tree(root).items() if not name.endswith(".dcm")}
    outputs = {name: unpacked(name, data) for name, data in outputs.items()}
    texts = {"stdout": process.stdout.encode(), "stderr": process.stderr.encode()}
    for name, data in (outputs | texts).items():
        for secret in secrets:
            assert secret.encode() not in data, (name, secret)
    return {Path(name).suffix for name in outputs}
