"""Small JPEG files for `tests/posters/`, of every kind that Pillow writes and the `image` crate does not.

    python -m venv venv && venv/bin/pip install pillow==13.0.0
    venv/bin/python tests/posters/make_fixtures.py

The picture is drawn here: bands of colour with a little noise, so that each block has something to say.
"""

import random
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
WIDTH, HEIGHT = 38, 52  # no multiples of a block or of a group of blocks

random.seed(10)
picture = Image.new("RGB", (WIDTH, HEIGHT))
picture.putdata(
    [
        (x * 6 % 256, y * 9 % 256, (x * y + random.randrange(40)) % 256)
        for y in range(HEIGHT)
        for x in range(WIDTH)
    ]
)

for name, mode, options in [
    ("baseline", "RGB", {"subsampling": "4:2:0"}),
    ("baseline_444_restarts", "RGB", {"subsampling": "4:4:4", "restart_marker_blocks": 4}),
    ("baseline_422_optimised", "RGB", {"subsampling": "4:2:2", "optimize": True}),
    ("grey", "L", {}),
    ("cmyk", "CMYK", {}),
    ("progressive", "RGB", {"subsampling": "4:2:0", "progressive": True}),
    ("progressive_restarts", "RGB", {"subsampling": "4:2:0", "progressive": True, "restart_marker_blocks": 3}),
    ("progressive_grey", "L", {"progressive": True}),
    ("progressive_cmyk", "CMYK", {"progressive": True}),
]:
    picture.convert(mode).save(HERE / f"{name}.jpg", quality=70, **options)

# Orientation 6: the camera was held so that the picture must be turned a quarter to the right.
exif = Image.Exif()
exif[0x0112] = 6
for ending in ["jpg", "png", "webp"]:
    options = {"lossless": True} if ending == "webp" else {"quality": 95, "subsampling": "4:4:4"} if ending == "jpg" else {}
    halves = Image.new("RGB", (16, 32), (200, 0, 0))
    halves.paste((0, 0, 200), (0, 16, 16, 32))
    halves.save(HERE / f"turned.{ending}", exif=exif, **options)
