"""Pictures: which files of a folder are pictures, how they are read, and their colours as numbers.

Pillow reads them. It is imported when the first picture is read.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Collection, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbole_missing.data.encoded import key_of

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of the file names of pictures, in lower case."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # others may start programs, as EPS does
_GRID = 8  # the thumbnail has so many rows and columns
_LEVELS = 4  # the histogram has so many levels of red, of green and of blue
_SIZE = 64  # colours are counted on a picture of so many rows and columns


class UnreadableError(Exception):
    """A file is not a picture, or only a part of one. The message is the reason."""


def find(folder: Path) -> list[Path]:
    """Pictures in a folder and in the folders inside it, sorted.

    A picture is a file with one of the :data:`SUFFIXES`, in upper or lower case. Names that begin
    with a dot are left out.
    """
    found = []
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(top, name) for name in files if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in SUFFIXES]
    return sorted(found)


def of_items(
    who: str, files: Sequence[Path], tokens: Collection[str], remedy: str = "remove one of them"
) -> tuple[dict[str, Path], list[Path]]:
    """Find the picture of each item: the name of a file without its ending is the item's token.

    Args:
        who: beginning of a message.
        files: the pictures.
        tokens: the items.
        remedy: end of a message.

    Returns:
        Token -> picture of the items that have one, and the pictures of no item.

    Raises:
        ValueError: if there are two pictures of one item.
    """
    found: dict[str, Path] = {}
    strangers = []
    for path in files:
        if path.stem not in tokens:
            strangers.append(path)
        elif path.stem in found:
            raise ValueError(
                f"{who}: item {path.stem!r} must have one picture, got {found[path.stem]} and "
                f"{path}; {remedy}."
            )
        else:
            found[path.stem] = path
    return found, strangers


def read(content: bytes, size: int | None = None) -> Image:
    """Read a picture as RGB, 8 bits a channel.

    Of an animation this is the first frame. The picture is turned as its EXIF orientation says.
    What is transparent becomes white. Grey values of 16 bits are divided by 257.

    Args:
        content: content of the file.
        size: a picture of about this many rows or more is enough; a JPEG is then read faster.

    Raises:
        UnreadableError: if it is not a whole picture of a known format, has more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``, or does not hold colours.
    """
    if not content:
        raise UnreadableError("0 bytes")
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that are not read here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if size:
                    image.draft("RGB", (size, size))
                return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise UnreadableError("not a picture") from error
    except UnreadableError:
        raise
    except Exception as error:  # a broken file leads Pillow's readers to any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(reason) from error


def read_again(files: Sequence[tuple[Path, bytes]]) -> list[Image]:
    """Read pictures that were looked at before (:func:`look`), at their full size.

    Args:
        files: path of each picture, and the digest that its content had.

    Raises:
        ValueError: if one has changed by now.
    """
    found = []
    for path, key in files:
        content = path.read_bytes()
        if key_of(content) != key:
            raise ValueError(
                f"{path}: must stay as it is while pictures are encoded, got another content; "
                "run again."
            )
        found.append(read(content))
    return found


def n_pixels(path: Path) -> int:
    """Number of pixels of a picture by its header; 0 if it has none that can be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                return image.width * image.height
    except Exception:  # as in `read`, which gives the reason
        return 0


def _to_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() >= 2**16:
            raise UnreadableError(f"numbers of mode {image.mode}, not colours")
        # Pillow would clip them at 255. It reads an 8-bit picture as mode L.
        image = Image.fromarray((values.astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def colours(image: Image) -> np.ndarray:
    """Describe the colours of a picture and where they are.

    Args:
        image: an RGB picture of any size.

    Returns:
        Float32 ``(256,)`` between 0 and 1: red, green and blue of a thumbnail of 8 x 8 pixels, row
        by row, then the share of pixels in each of 4 x 4 x 4 bins of red, green and blue.
    """
    from PIL.Image import Resampling

    small = image.resize((_SIZE, _SIZE), Resampling.BOX)
    thumbnail = np.asarray(small.resize((_GRID, _GRID), Resampling.BOX)).reshape(-1) / 255
    levels = np.asarray(small).reshape(-1, 3).astype(int) * _LEVELS // 256
    bins = levels @ [_LEVELS**2, _LEVELS, 1]
    counts = np.bincount(bins, minlength=_LEVELS**3)
    return np.concatenate([thumbnail, counts / _SIZE**2]).astype(np.float32)


DESCRIPTION = ("colours", 1)
"""Name and version of :func:`colours`; a change of the numbers needs a new version."""

BLOCKS = (3 * _GRID**2,)
"""Columns of :func:`colours` at which another kind of numbers begins: the histogram."""


def look(described: Container[bytes], path: Path) -> tuple[bytes, np.ndarray | None, str | None]:
    """Read a picture, unless its content is known to be one.

    Args:
        described: digests of the contents that are known.
        path: its file.

    Returns:
        Digest of the content; its :func:`colours`, None if it is known or cannot be read; why it
        cannot be read, None if it can.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # the end of a named pipe may never come
            return b"", None, "not a regular file"
        content = path.read_bytes()
    except OSError as error:
        return b"", None, error.strerror or str(error)
    key = key_of(content)
    if key in described:
        return key, None, None
    try:
        return key, colours(read(content, _SIZE)), None
    except UnreadableError as error:
        return key, None, str(error)
