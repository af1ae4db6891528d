"""Rendered frames (PS3.18 Sections 8.3.5 and 10.4.1.1.3): windowed, cropped and scaled."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from index.web.dicomweb.formats.frames import Frames, NotDecodable, slots

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

JPEG, PNG, GIF = "image/jpeg", "image/png", "image/gif"
RENDERED_TYPES = (JPEG, PNG, GIF)
_FORMATS = {JPEG: "JPEG", PNG: "PNG", GIF: "GIF"}
# Pixels of a side of what is rendered.
SIDE_LIMIT = 8192
QUALITY = 90
_WHITE = 255.0
FUNCTIONS = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}
"""VOI LUT Functions by the name that a URL gives them (PS3.18 Section 8.3.5.1.4)."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a frame is rendered.

    `window`: center, width and VOI LUT Function. `viewport`: width and height into which it fits; `region`:
    x, y, width and height of the part that is shown, in pixels of the frame. None: as the frame has it.
    """

    media_type: str = JPEG
    window: tuple[float, float, str] | None = None
    viewport: tuple[int, int] | None = None
    region: tuple[float, float, float, float] | None = None
    quality: int = QUALITY


def render(frames: Frames, number: int, how: Rendering) -> bytes:
    """Return a frame, numbered from 0, as an image. Raises NotDecodable, NotFound, Unreadable, OSError."""
    try:
        import numpy as np
        from PIL import Image
    except ImportError as error:
        raise NotDecodable("nothing can be rendered: the extra `codecs` is not installed") from error
    with slots:
        pixels, dataset = frames.pixels(number)
        try:
            shown = _grey(pixels, dataset, how) if pixels.ndim == 2 else _color(pixels, dataset)  # noqa: PLR2004
            image = _scaled(Image.fromarray(np.ascontiguousarray(shown)), how)
            buffer = io.BytesIO()
            image.save(buffer, _FORMATS[how.media_type], quality=how.quality)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, ArithmeticError) as error:
            raise NotDecodable(f"the frame cannot be rendered: {error}") from error
    return buffer.getvalue()


def _grey(pixels: "Array", dataset: Dataset, how: Rendering) -> "Array":
    """Return a frame of one sample in 8 bits, or in color by its palette."""
    import numpy as np
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    photometric = dataset.get("PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        return _color(apply_color_lut(pixels, dataset), dataset)
    values = apply_modality_lut(pixels, dataset).astype(np.float64)
    levels = _windowed(values, dataset, how.window)
    if photometric == "MONOCHROME1":
        levels = _WHITE - levels
    return levels.astype(np.uint8)


def _windowed(values: "Array", dataset: Dataset, window: tuple[float, float, str] | None) -> "Array":
    """Return values of 0 to 255 by a window, else the VOI LUT, else from the least to the greatest value."""
    import numpy as np
    from pydicom.pixels.processing import apply_voi

    if window is None and dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        found: Array = apply_voi(values.astype(np.int64), dataset) / (2**bits - 1) * _WHITE
        return np.clip(found, 0, _WHITE)
    center, width, function = window or _own_window(dataset) or (0.0, 0.0, "")
    if not function:
        least, greatest = float(values.min()), float(values.max())
        return (values - least) / (greatest - least or 1.0) * _WHITE
    # PS3.3 Sections C.11.2.1.2.1 and C.11.2.1.3.
    if function == "SIGMOID":
        return _WHITE / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if function == "LINEAR":
        center, width = center - 0.5, max(width - 1, 1e-6)
    return np.clip(((values - center) / width + 0.5) * _WHITE, 0, _WHITE)


def _own_window(dataset: Dataset) -> tuple[float, float, str] | None:
    """Return the first window of a data set."""
    centers, widths = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centers is None or widths is None:
        return None
    center, width = (float(one[0] if hasattr(one, "__getitem__") else one) for one in (centers, widths))
    return (center, width, dataset.get("VOILUTFunction") or "LINEAR") if width > 0 else None


def _color(pixels: "Array", dataset: Dataset) -> "Array":
    import numpy as np

    if pixels.dtype.itemsize == 1:
        return pixels.astype(np.uint8)
    bits = pixels.dtype.itemsize * 8 if dataset.get("PhotometricInterpretation") == "PALETTE COLOR" else 0
    return (pixels >> ((bits or int(dataset.BitsStored)) - 8)).astype(np.uint8)


def _scaled(image: Any, how: Rendering) -> Any:
    """Crop and scale an image; its aspect ratio stays (PS3.18 Section 8.3.5.1.3)."""
    if how.region:
        x, y, width, height = how.region
        box = (x, y, min(x + width, image.width), min(y + height, image.height))
        image = image.crop(tuple(round(side) for side in box))
    if how.viewport:
        factor = min(how.viewport[0] / image.width, how.viewport[1] / image.height)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size)
    if max(image.size) > SIDE_LIMIT:
        image.thumbnail((SIDE_LIMIT, SIDE_LIMIT))
    return image
