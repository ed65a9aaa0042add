#!/usr/bin/env python3
"""The genres of posters, by a model in Keras whose weights `onesheet export --to keras` wrote.

    pip install keras tensorflow-cpu h5py numpy pillow
    python examples/keras_genres.py genres.h5 poster.jpg other.png

`load("genres.h5")` gives the model itself, to train it on, or to keep it whole with `model.save("genres.keras")`.
"""

import json
import sys

import h5py
import keras
import numpy as np
from PIL import Image, ImageOps


def load(path):
    """The model, and what its file says of it."""
    with h5py.File(path) as file:
        about = {name: value.decode() for name, value in file.attrs.items() if isinstance(value, bytes)}
    size = int(about["image_size"])
    network = getattr(keras.applications, about["keras_class"])
    base = network(include_top=False, weights=None, input_shape=(size, size, 3), pooling=about["pooling"])
    x = base.output
    for width in json.loads(about["head"]):
        x = keras.layers.Dense(width, activation="relu", name=f"head_{width}")(x)
    x = keras.layers.Dense(len(json.loads(about["genres"])), activation="sigmoid", name="genres")(x)
    model = keras.Model(base.input, x)
    model.load_weights(path)
    return model, about


def numbers(images, about):
    """What the network is fed, of uint8 [N, H, W, 3]."""
    order, scale, shift = (json.loads(about[key]) for key in ["channel_order", "scale", "shift"])
    return images[..., order].astype(np.float32) * scale + np.array(shift, np.float32)


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
    weights, *posters = sys.argv[1:]
    model, about = load(weights)
    genres, thresholds = json.loads(about["genres"]), json.loads(about["thresholds"])
    images = np.stack([square(path, about) for path in posters])
    for path, probabilities in zip(posters, model.predict(numbers(images, about), verbose=0)):
        print(path)
        for genre, probability, threshold in zip(genres, probabilities, thresholds):
            print(f"  {'✓' if probability >= threshold else ' '} {genre:12} {probability:.4f}")


if __name__ == "__main__":
    main()
