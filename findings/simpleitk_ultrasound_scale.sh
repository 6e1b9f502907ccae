#!/usr/bin/env bash
# One would guess: SimpleITK gives an image with its spacing in millimetres, so an echo movie comes with the
#   scale that the scanner wrote, or with a sign that there is none.
# What happens: an ultrasound file keeps its scale in its regions (PhysicalDeltaX and Y, centimetres), which are
#   not read: the spacing is 1.0 x 1.0, the same as of a file without any scale; frames 20 ms apart lie 1.0 apart
#   in the third direction. Areas and speeds computed from GetSpacing() are in no unit at all.
# Where users meet it: measuring a chamber or a speed in an echo DICOM with ITK's tools; here depth 12 to 20 cm
#   changes the size of a pixel by two thirds.
# Source: DICOM PS3.3 C.8.5.5 (US Region Calibration); viewers met the same: Slicer pull request 7649,
#   VolView pull request 863; own trial.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
env/bin/python - <<'PYTHON'
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

N_FRAMES, ROWS, COLS = 5, 60, 80


def write(path, calibrated):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Modality = "US"
    data.Rows, data.Columns, data.NumberOfFrames = ROWS, COLS, N_FRAMES
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.FrameIncrementPointer, data.FrameTime = 0x00181063, "20"
    if calibrated:
        region = Dataset()
        region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
        region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
        region.RegionLocationMaxX1, region.RegionLocationMaxY1 = COLS - 1, ROWS - 1
        region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
        region.PhysicalDeltaX, region.PhysicalDeltaY = 0.05, 0.04
        data.SequenceOfUltrasoundRegions = [region]
    frames = np.random.default_rng(0).integers(0, 255, (N_FRAMES, ROWS, COLS), dtype=np.uint8)
    data.PixelData = frames.tobytes()
    data.save_as(path, enforce_file_format=True)


write("calibrated.dcm", True)
write("bare.dcm", False)
region = pydicom.dcmread("calibrated.dcm").SequenceOfUltrasoundRegions[0]
print(f"SimpleITK {sitk.__version__}, pydicom {pydicom.__version__}")
print(f"in the file: {region.PhysicalDeltaX} x {region.PhysicalDeltaY} cm a pixel, 20 ms a frame")
spacings = {name: sitk.ReadImage(f"{name}.dcm").GetSpacing() for name in ("calibrated", "bare")}
for name, spacing in spacings.items():
    print(f"{name}: GetSpacing() {spacing}")
assert spacings["calibrated"] == spacings["bare"] == (1.0, 1.0, 1.0)
PYTHON
