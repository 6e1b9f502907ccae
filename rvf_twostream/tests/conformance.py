"""A conformance set of small echo files: transfer syntax x photometric x planar x rate x lies.

``cases()`` yields (name, data set, truth) where truth is (grey frames, tolerance) or the words of a
refusal. The movie is a grey wedge on black with one coloured patch: a fault of colour, order or
range moves its mean by many levels.
"""

import io

import numpy as np
from PIL import Image
from pydicom import dcmwrite
from pydicom import uid as U
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid

from conformance_streams import STREAMS

N, ROWS, COLS = 3, 24, 32
LOSSLESS, ROUNDED, LOSSY = 0.02, 1.2, 6.0  # largest mean difference in grey levels
LUMA = np.array([0.2989, 0.5870, 0.1140])


def truth():
    """Return (RGB (n, r, c, 3), grey (n, r, c)) uint8 of the movie; the grey one has no patch."""
    rows, cols = np.mgrid[:ROWS, :COLS]
    fan = np.abs(cols - COLS / 2) < rows * 0.7
    grey = np.stack([np.where(fan, (rows * 8 + 5 * k) % 200, 0) for k in range(N)])
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    rgb[:, 14:18, 13:19] = (200, 40, 20)
    return rgb.astype(np.uint8), grey.astype(np.uint8)


def to_ybr(rgb):
    """Return YCbCr, full range."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb, cr = 128 + (b - y) / 1.772, 128 + (r - y) / 1.402
    return np.clip(np.round(np.stack([y, cb, cr], axis=-1)), 0, 255).astype(np.uint8)


def base(syntax, photometric, *, samples=1, bits=8, **elements):
    """Return a data set without pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    data.Modality, data.PatientID, data.PatientName = "US", "p1", ""
    data.NumberOfFrames, data.Rows, data.Columns = N, ROWS, COLS
    data.SamplesPerPixel, data.PhotometricInterpretation = samples, photometric
    data.BitsAllocated = 16 if bits > 8 else 8
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, 0
    if samples == 3:
        data.PlanarConfiguration = 0
    data.FrameTime = "20"
    data.FrameIncrementPointer = 0x00181063
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def plain(data, pixels):
    """Put pixels into an uncompressed data set."""
    big = data.file_meta.TransferSyntaxUID == U.ExplicitVRBigEndian
    kind = pixels.dtype.newbyteorder(">" if big else "<")
    value = pixels.astype(kind).tobytes()
    data.PixelData = value + b"\0" * (len(value) % 2)
    data["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    return data


def save(data, path):
    """Write a data set in the byte order of its transfer syntax."""
    syntax = data.file_meta.TransferSyntaxUID
    order = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
    dcmwrite(path, data, enforce_file_format=True, **order)


def packed(data, pictures):
    """Put compressed pictures into a data set."""
    data.PixelData = encapsulate(pictures)
    data["PixelData"].VR = "OB"
    return data


def jpeg(picture, *, subsampling="4:2:0", markers="jfif", rgb=False):
    """Return a JPEG; ``markers`` jfif, adobe or none; ``rgb``: components are R, G, B."""
    stream = io.BytesIO()
    image = Image.fromarray(picture)
    if picture.ndim == 3:
        options = {"keep_rgb": True} if rgb else {"subsampling": subsampling}
        image.save(stream, "JPEG", quality=95, **options)
    else:
        image.save(stream, "JPEG", quality=95)
    return _marked(stream.getvalue(), markers, 0 if rgb else 1)


def _marked(data, markers, transform):
    """Return a JPEG with its JFIF and Adobe markers taken out and those asked for put in."""
    out, place = [data[:2]], 2
    while data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        segment = data[place : place + 2 + length]
        if segment[1] not in (0xE0, 0xEE):
            out.append(segment)
        place += 2 + length
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform])
    jfif = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
    out.insert(1, {"jfif": jfif, "adobe": adobe, "none": b""}[markers])
    return b"".join(out) + data[place:]


def renamed(data, ids):
    """Return a JPEG whose components have other ids."""
    data = bytearray(data)
    for marker in (b"\xff\xc0", b"\xff\xda"):
        place = data.find(marker)
        step, first = (3, place + 10) if marker == b"\xff\xc0" else (2, place + 5)
        for k in range(3):
            data[first + step * k] = ids[k]
    return bytes(data)


def jpeg2000(picture, *, mct, boxed=False, lossy=False):
    """Return a JPEG 2000 picture."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(
        stream, "JPEG2000", mct=int(mct), no_jp2=not boxed, irreversible=lossy, num_resolutions=3
    )
    return stream.getvalue()


def cases():
    """Yield (name, data set, (frames, tolerance) or words of a refusal)."""
    rgb, grey = truth()
    luma = rgb @ LUMA
    yield from _plain_cases(rgb, grey, luma)
    yield from _wide_cases(grey)
    yield from _rle_cases(rgb, grey, luma)
    yield from _jpeg_cases(rgb, grey, luma)
    yield from _jpeg2000_cases(rgb, grey, luma)
    yield from _other_cases(rgb, grey, luma)
    yield from _broken_cases(rgb, grey, luma)


def _plain_cases(rgb, grey, luma):
    ybr = to_ybr(rgb)
    syntaxes = (
        U.ImplicitVRLittleEndian,
        U.ExplicitVRLittleEndian,
        U.ExplicitVRBigEndian,
        U.DeflatedExplicitVRLittleEndian,
    )
    for syntax in syntaxes:
        short = syntax.name.split(" ")[0] + syntax.name.split(" ")[-2]
        yield f"{short} M2", plain(base(syntax, "MONOCHROME2"), grey), (grey, LOSSLESS)
        yield f"{short} M1", plain(base(syntax, "MONOCHROME1"), 255 - grey), (grey, LOSSLESS)
        palette = base(syntax, "PALETTE COLOR")
        for colour, table in (("Red", 0), ("Green", 1), ("Blue", 2)):
            setattr(palette, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            values = (np.arange(256)[::-1] * 256).astype("<u2")
            if syntax == U.ExplicitVRBigEndian:
                values = values.astype(">u2")
            setattr(palette, f"{colour}PaletteColorLookupTableData", values.tobytes())
            palette[f"{colour}PaletteColorLookupTableData"].VR = "OW"
            assert table < 3
        yield f"{short} palette", plain(palette, 255 - grey), (grey, LOSSLESS)
        for photometric, pixels in (("RGB", rgb), ("YBR_FULL", ybr)):
            close = LOSSLESS if photometric == "RGB" else ROUNDED
            for planar in (0, 1):
                laid = np.ascontiguousarray(np.moveaxis(pixels, 3, 1)) if planar else pixels
                for label in ("RGB", "YBR_FULL"):
                    for says in (0, 1):
                        data = base(syntax, label, samples=3, PlanarConfiguration=says)
                        name = f"{short} {photometric} as {label}, planar {planar} as {says}"
                        yield name, plain(data, laid), (luma, close)
        half = np.stack(
            [ybr[:, :, 0::2, 0], ybr[:, :, 1::2, 0], ybr[:, :, ::2, 1], ybr[:, :, ::2, 2]], -1
        )
        yield f"{short} 422", plain(base(syntax, "YBR_FULL_422", samples=3), half), (luma, ROUNDED)
        data = base(syntax, "YBR_FULL_422", samples=3)
        yield f"{short} RGB as 422", plain(data, rgb), (luma, LOSSLESS)


def _wide_cases(grey):
    for syntax in (U.ExplicitVRLittleEndian, U.ExplicitVRBigEndian):
        big = " big" if syntax == U.ExplicitVRBigEndian else ""
        for bits in (8, 10, 12, 16):
            data = base(syntax, "MONOCHROME2", bits=bits)
            data.BitsAllocated = 16
            yield f"8 in {bits} of 16{big}", plain(data, grey.astype(np.uint16)), (grey, LOSSLESS)
        for bits in (10, 12, 16):
            scale = (2**bits - 1) // 255
            data = base(syntax, "MONOCHROME2", bits=bits)
            full = (grey.astype(np.uint16) * scale, grey.astype(float) * scale)
            yield f"{bits} of 16{big}", plain(data, full[0]), (full[1], LOSSLESS)
            data = base(syntax, "MONOCHROME1", bits=bits)
            inverted = plain(data, (2**bits - 1 - full[0]).astype(np.uint16))
            yield f"M1 {bits} of 16{big}", inverted, (full[1], LOSSLESS)
        data = base(syntax, "MONOCHROME2", bits=8, HighBit=15, BitsAllocated=16)
        yield f"high byte{big}", plain(data, grey.astype(np.uint16) << 8), (grey, LOSSLESS)
        data = base(syntax, "MONOCHROME2", bits=16, PixelRepresentation=1)
        yield f"signed 8 in 16{big}", plain(data, grey.astype(np.int16)), (grey, LOSSLESS)
        data = base(syntax, "MONOCHROME2", PixelRepresentation=1)
        signed = (grey.astype(int) - 128).astype(np.int8)
        yield f"signed bytes{big}", plain(data, signed), (grey, LOSSLESS)


def _rle_cases(rgb, grey, luma):
    ybr = to_ybr(rgb)
    for pixels, photometric, label, close in (
        (grey, "MONOCHROME2", "MONOCHROME2", LOSSLESS),
        (rgb, "RGB", "RGB", LOSSLESS),
        (rgb, "RGB", "YBR_FULL", LOSSLESS),
        (ybr, "YBR_FULL", "YBR_FULL", ROUNDED),
        (ybr, "YBR_FULL", "RGB", ROUNDED),
    ):
        samples = 3 if pixels.ndim == 4 else 1
        data = plain(base(U.ExplicitVRLittleEndian, photometric, samples=samples), pixels)
        data.compress(U.RLELossless, generate_instance_uid=False)
        data.PhotometricInterpretation = label
        yield f"RLE {photometric} as {label}", data, (luma if samples == 3 else grey, close)
    data = plain(base(U.ExplicitVRLittleEndian, "MONOCHROME2", bits=16), grey.astype(np.uint16))
    data.compress(U.RLELossless, generate_instance_uid=False)
    yield "RLE 8 in 16", data, (grey, LOSSLESS)


def _jpeg_cases(rgb, grey, luma):
    for markers in ("jfif", "adobe", "none"):
        for subsampling in ("4:2:0", "4:2:2", "4:4:4"):
            frames = [jpeg(f, subsampling=subsampling, markers=markers) for f in rgb]
            for label in ("RGB", "YBR_FULL", "YBR_FULL_422"):
                data = packed(base(U.JPEGBaseline8Bit, label, samples=3), frames)
                yield f"JPEG {subsampling} {markers} as {label}", data, (luma, LOSSY)
    for name, make in (
        ("ids R G B", lambda f: jpeg(f, rgb=True, markers="none")),
        ("Adobe 0", lambda f: renamed(jpeg(f, rgb=True, markers="adobe"), b"\1\2\3")),
        ("no mark", lambda f: renamed(jpeg(f, rgb=True, markers="none"), b"\1\2\3")),
    ):
        frames = [make(f) for f in rgb]
        for label in ("RGB", "YBR_FULL", "YBR_FULL_422"):
            data = packed(base(U.JPEGBaseline8Bit, label, samples=3), frames)
            yield f"JPEG of RGB, {name}, as {label}", data, (luma, LOSSY)
    for syntax in (U.JPEGBaseline8Bit, U.JPEGExtended12Bit):
        data = packed(base(syntax, "MONOCHROME2"), [jpeg(f) for f in grey])
        yield f"grey {syntax.name[:12]}", data, (grey, LOSSY)


def _jpeg2000_cases(rgb, grey, luma):
    ybr = to_ybr(rgb)
    for boxed in (False, True):
        name = "JP2" if boxed else "J2K"
        for label in ("RGB", "YBR_RCT", "YBR_FULL", "YBR_FULL_422"):
            frames = [jpeg2000(f, mct=True, boxed=boxed) for f in rgb]
            data = packed(base(U.JPEG2000Lossless, label, samples=3), frames)
            yield f"{name} MCT as {label}", data, (luma, LOSSLESS)
    for label in ("RGB", "YBR_FULL"):
        frames = [jpeg2000(f, mct=False) for f in rgb]
        data = packed(base(U.JPEG2000Lossless, label, samples=3), frames)
        yield f"J2K RGB without MCT as {label}", data, (luma, LOSSLESS)
        frames = [jpeg2000(f, mct=False) for f in ybr]
        data = packed(base(U.JPEG2000Lossless, label, samples=3), frames)
        yield f"J2K YCbCr without MCT as {label}", data, (luma, ROUNDED)
    for label in ("YBR_ICT", "RGB", "YBR_FULL"):
        frames = [jpeg2000(f, mct=True, lossy=True) for f in rgb]
        data = packed(base(U.JPEG2000, label, samples=3), frames)
        yield f"J2K lossy as {label}", data, (luma, LOSSY)
    data = packed(base(U.JPEG2000Lossless, "MONOCHROME2"), [jpeg2000(f, mct=False) for f in grey])
    yield "J2K grey", data, (grey, LOSSLESS)


def _other_cases(rgb, grey, luma):
    for name, syntax in (
        ("jpegls", U.JPEGLSLossless),
        ("lossless", U.JPEGLosslessSV1),
        ("htj2k", U.HTJ2KLossless),
    ):
        for kind in ("grey", "rgb", "ybr"):
            stream = STREAMS.get(f"{name}_{kind}")
            if stream is None:
                continue
            labels = ("MONOCHROME2",) if kind == "grey" else ("RGB", "YBR_FULL")
            close = ROUNDED if kind == "ybr" else LOSSLESS
            for label in labels:
                data = base(syntax, label, samples=1 if kind == "grey" else 3, NumberOfFrames=1)
                true = (grey if kind == "grey" else luma)[:1]
                yield f"{name} {kind} as {label}", packed(data, [stream]), (true, close)


def _broken_cases(rgb, grey, luma):
    frames = [jpeg(f) for f in rgb]
    little = U.ExplicitVRLittleEndian

    def movie(**elements):
        return base(U.JPEGBaseline8Bit, "YBR_FULL_422", samples=3, **elements)

    yield "too few pictures", packed(movie(NumberOfFrames=4), frames), "3 frames found, 4 expected"
    yield "more pictures", packed(movie(NumberOfFrames=2), frames), (luma[:2], LOSSY)
    no_number = packed(movie(), frames)
    del no_number.NumberOfFrames
    yield "no number", no_number, (luma, LOSSY)
    yield "exchanged size", packed(movie(Rows=COLS, Columns=ROWS), frames), "pictures of 24 x 32"
    yield (
        "colour in grey header",
        packed(base(U.JPEGBaseline8Bit, "MONOCHROME2"), frames),
        "pictures of 3 components",
    )
    yield "cut picture", packed(movie(), [*frames[:2], frames[2][:200]]), "not decodable"
    yield (
        "plain too short",
        plain(base(little, "MONOCHROME2", NumberOfFrames=4), grey),
        ("3 complete frames found, 4 expected"),
    )
    yield "samples lie", plain(base(little, "RGB"), grey), "needs SamplesPerPixel"
    yield "unknown label", plain(base(little, "HSV", samples=3), rgb), "expected one of MONO"
    table = [encapsulate(frames)[:8], *([b"\0" * 4] * N)]
    zeros = packed(movie(), frames)
    zeros.PixelData = table[0] + b"".join(table[1:]) + zeros.PixelData[8 + 4 * N :]
    yield "offsets of zeros", zeros, (luma, LOSSY)
    pieces = packed(movie(), frames)
    pieces.PixelData = encapsulate(frames, fragments_per_frame=2)
    yield "pictures in pieces", pieces, (luma, LOSSY)
    inverse = plain(base(little, "MONOCHROME2", PresentationLUTShape="INVERSE"), 255 - grey)
    yield "inverse LUT", inverse, (grey, LOSSLESS)
