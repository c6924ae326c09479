"""Which format a file has, by its first bytes: the image formats that are read, and in words what is none of them.

Pillow knows more formats than these, of which some are dangerous (EPS runs Ghostscript) and most are never met.
"""

from __future__ import annotations

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lakemill_udfs.errors import RowError

PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "TGA": TgaImagePlugin.TgaImageFile,
    "ICO": IcoImagePlugin.IcoImageFile,
}
"""Formats that are read, and what reads them: the plugins themselves, as ``Image.open`` has a process-wide limit of its
own. HEIC comes on top where ``pillow-heif`` is installed."""

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\x00\x00\x01\x00", "ICO"),
)
AVIF_BRANDS, HEIC_BRANDS = {b"avif", b"avis"}, {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}

RAW = "a camera's raw file, which is no finished picture; develop it to TIFF or JPEG first"
FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer; the file itself was never fetched (git lfs pull)"),
    (b"%PDF-", "a PDF document"),
    (b"%!PS", "a PostScript drawing"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript drawing"),
    (b"8BPS", "a Photoshop document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"IIRO", RAW),
    (b"IIRS", RAW),
    (b"IIU\x00", RAW),
    (b"FOVb", RAW),
    (b"\x00MRM", RAW),
)
MARKUP: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "an SVG drawing, which has no pixels; render it to PNG first"),
    (b"<html", "an HTML page, as servers send it in place of a file"),
    (b"<!doctype html", "an HTML page, as servers send it in place of a file"),
    (b"<error", "an XML error message, as stores send it in place of a file"),
    (b"<?xml", "an XML document"),
)
LOOKED_AT = 1024  # bytes of a text that are looked at


def identify(data: bytes) -> str:
    """Return the format of an image file: a key of ``PLUGINS``, or ``HEIC``.

    Raises:
        RowError: ``FILE_EMPTY``, or ``IMAGE_UNKNOWN_FORMAT``, which says what the file is instead.
    """
    if not data:
        raise RowError("FILE_EMPTY", "the file has no bytes.")
    for start, kind in SIGNATURES:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _of_brands(data)
    if (what := _foreign(data)) is None and _is_tga(data):
        return "TGA"
    raise unknown_format(what or "of a format that is not read")


def unknown_format(what: str) -> RowError:
    """Return the error of a file that is no image: ``IMAGE_UNKNOWN_FORMAT``.

    Args:
        what: What it is instead: ``a PDF document``.
    """
    return RowError("IMAGE_UNKNOWN_FORMAT", f"the file is {what}; expected {', '.join(PLUGINS)} or HEIC.")


def heic_plugin() -> type[ImageFile.ImageFile]:
    """Return what reads HEIC.

    Raises:
        RowError: ``IMAGE_EXTRA_MISSING`` where ``pillow-heif`` is not installed.
    """
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise RowError(
            "IMAGE_EXTRA_MISSING",
            "the file is a HEIC, and 'pillow-heif' is not installed here.",
            hint="pip install 'lakemill[heic]', on the executors too.",
        ) from error
    plugin: type[ImageFile.ImageFile] = HeifImageFile
    return plugin


def _of_brands(data: bytes) -> str:
    """Return the format of an ISO media file by its brands, of which the first may be a general one."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[at : at + 4] for at in (8, *range(16, end, 4))}
    if brands & AVIF_BRANDS:
        return "AVIF"
    if brands & HEIC_BRANDS:
        return "HEIC"
    raise unknown_format(RAW if b"crx " in brands else "a video or another ISO media file")


def _foreign(data: bytes) -> str | None:
    for start, what in FOREIGN:
        if data.startswith(start):
            return what
    if data[128:132] == b"DICM" or data[:4] == b"RIFF":
        return "a DICOM file" if data[128:132] == b"DICM" else "a sound or video file (RIFF)"
    head = data[:LOOKED_AT]
    if not head.strip(b"\0"):
        return "nothing but zero bytes, as a power cut leaves it"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<"):
        return next((what for tag, what in MARKUP if tag in text), "a text with markup")
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) and head.decode("utf-8", "ignore"):
        return "a text"
    return None


def _is_tga(data: bytes) -> bool:
    """Return whether a file's first 18 bytes make sense as TGA, which has no signature."""
    if len(data) < 18:
        return False
    palette, kind, size, bits = data[1], data[2], data[12:16], data[16]
    mapped = kind in (1, 9)
    return (
        kind in (1, 2, 3, 9, 10, 11)
        and palette == mapped
        and (mapped or data[3:8] == bytes(5))
        and bits in ((8,) if mapped or kind in (3, 11) else (16, 24, 32))
        and size[:2] != b"\0\0"
        and size[2:] != b"\0\0"
        and not data[17] & 0xC0
    )
