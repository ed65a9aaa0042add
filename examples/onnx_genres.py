#!/usr/bin/env python3
"""The genres of posters, by a model that `onesheet export --to onnx` wrote.

    pip install onnxruntime numpy pillow
    python examples/onnx_genres.py genres.onnx poster.jpg other.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def square(path, about):
    """A poster as the network was trained on: uint8 [H, W, 3]. Pillow's triangle filter is the one of `prepare --resize area`."""
    image = Image.open(path)
    if about["exif"] == "apply":
        image = ImageOps.exif_transpose(image)
    if about["alpha"] == "white" and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = Image.fromarray(np.array(image.convert("RGBA"))[..., :3])
    size = int(about["image_size"])
    return np.asarray(image.resize((size, size), Image.BILINEAR if about["resize"] == "area" else Image.NEAREST))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    model, *posters = sys.argv[1:]
    session = onnxruntime.InferenceSession(model)
    about = session.get_modelmeta().custom_metadata_map
    genres, thresholds = json.loads(about["genres"]), json.loads(about["thresholds"])
    images = np.stack([square(path, about) for path in posters])
    for path, probabilities in zip(posters, session.run(["probabilities"], {"image": images})[0]):
        print(path)
        for genre, probability, threshold in zip(genres, probabilities, thresholds):
            print(f"  {'✓' if probability >= threshold else ' '} {genre:12} {probability:.4f}")


if __name__ == "__main__":
    main()
