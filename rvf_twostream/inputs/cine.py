"""What is no 2-D cine of an ultrasound scanner: volumes, other modalities, traces.

Their pictures have frames too, so nothing behind the header would notice.
"""

from pydicom import Dataset
from pydicom.uid import UID

CINES = {  # storage classes that may hold an echo movie
    "1.2.840.10008.5.1.4.1.1.3": "Ultrasound Multi-frame (retired)",
    "1.2.840.10008.5.1.4.1.1.3.1": "Ultrasound Multi-frame",
    "1.2.840.10008.5.1.4.1.1.6": "Ultrasound Image (retired)",
    "1.2.840.10008.5.1.4.1.1.6.1": "Ultrasound Image",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.1": "Multi-frame Single Bit Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.77.1.1.1": "Video Endoscopic",  # exports of video use these three
    "1.2.840.10008.5.1.4.1.1.77.1.2.1": "Video Microscopic",
    "1.2.840.10008.5.1.4.1.1.77.1.4.1": "Video Photographic",
}
MODALITIES = ("", "US", "IVUS", "OT", "SC", "ES", "XC")  # of an echo, or of its export
FORMATS = {0: "none", 2: "M-mode", 3: "spectral", 4: "waveform", 5: "graphics"}


def why_no_cine(data: Dataset) -> str | None:
    """Return why a file is no 2-D ultrasound cine, or None where nothing speaks against it."""
    kind = str(data.get("SOPClassUID") or "").strip()
    known = UID(kind).name if kind else ""
    if kind and kind not in CINES and known != kind:
        return f"SOPClassUID (0008,0016) is {known}, no 2-D ultrasound cine"
    modality = str(data.get("Modality") or "").strip().upper()
    if modality not in MODALITIES:
        return f"Modality (0008,0060) is {modality}, no ultrasound"
    image_type = data.get("ImageType") or ()
    if "VOLUME" in ([image_type] if isinstance(image_type, str) else list(image_type)):
        return "ImageType (0008,0008) says VOLUME: slices of a volume, no cine"
    regions = list(data.get("SequenceOfUltrasoundRegions") or ())
    formats = [item.get("RegionSpatialFormat") for item in regions]
    if formats and 1 not in formats and set(formats) & {2, 3, 4}:
        names = ", ".join(sorted({FORMATS.get(f, str(f)) for f in formats if f in (2, 3, 4)}))
        return f"ultrasound regions (0018,6011) hold {names} only, no 2-D picture"
    return None
