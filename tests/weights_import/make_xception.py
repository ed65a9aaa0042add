"""Writes `xception.h5` and `xception.weights.h5`, the base of `network::xception::MINIATURE` as Keras itself saves it, and
`xception_2017.h5` with the names that Keras 1 gave, as the published weights have them.

    venv/bin/pip install tensorflow-cpu==2.21.0 keras==3.15.1 h5py
    venv/bin/python tests/weights_import/make_xception.py

Keras numbers the layers that nobody names by how many of their class the process has made. So this process makes the network twice and
saves the second one, whose layers carry other numbers than those of a fresh process. Values are those of `make_fixtures.py`, by the
names of a fresh process. Keras writes HDF5's older and larger arrangement; what it wrote is copied to the newer one, group by group.
"""

import os
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent
STEM, ENTRY, MIDDLE, EXIT = (3, 4), 5, 1, (6, 7, 8)


def known(name, shape):
    """As in `make_fixtures.py`."""
    number = 0
    for byte in name.encode():
        number = (31 * number + byte) % 65521
    uniform = ((37 * np.arange(np.prod(shape)) + number) % 509).astype(np.float32) / 512
    above_zero = name.endswith(("/gamma", "/moving_variance"))
    return (uniform + (0.5 if above_zero else -0.5)).astype(np.float32).reshape(shape)


def base():
    """The layers of Keras's `applications/xception.py`, fewer and narrower."""

    def branch(block, x, filters):
        for at, width in enumerate(filters, 1):
            if (block, at) != (2, 1):
                x = layers.Activation("relu", name=f"block{block}_sepconv{at}_act")(x)
            x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False, name=f"block{block}_sepconv{at}")(x)
            x = layers.BatchNormalization(name=f"block{block}_sepconv{at}_bn")(x)
        return x

    def halving(block, x, filters):
        around = layers.Conv2D(filters[1], 1, strides=2, padding="same", use_bias=False)(x)
        around = layers.BatchNormalization()(around)
        x = branch(block, x, filters)
        x = layers.MaxPooling2D(3, 2, padding="same", name=f"block{block}_pool")(x)
        return layers.add([x, around])

    images = x = layers.Input((21, 21, 3))
    for at, (filters, stride) in enumerate(zip(STEM, [2, 1]), 1):
        x = layers.Conv2D(filters, 3, strides=stride, use_bias=False, name=f"block1_conv{at}")(x)
        x = layers.BatchNormalization(name=f"block1_conv{at}_bn")(x)
        x = layers.Activation("relu", name=f"block1_conv{at}_act")(x)
    x = halving(2, x, (ENTRY, ENTRY))
    for block in range(3, 3 + MIDDLE):
        x = layers.add([branch(block, x, (ENTRY,) * 3), x])
    x = halving(3 + MIDDLE, x, (ENTRY, EXIT[0]))
    for at, filters in enumerate(EXIT[1:], 1):
        name = f"block{4 + MIDDLE}_sepconv{at}"
        x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        x = layers.Activation("relu", name=f"{name}_act")(x)
    return keras.Model(images, x)


def copy(source, group):
    """All but Keras's description of the layers, which nobody here reads."""
    group.attrs.update((name, value) for name, value in source.attrs.items() if name != "model_config")
    for name, member in source.items():
        if isinstance(member, h5py.Group):
            copy(member, group.create_group(name))
        else:
            group.create_dataset(name, data=member[()]).attrs.update(member.attrs)


def save(write, name):
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / name
        write(written)
        with h5py.File(written) as source, h5py.File(HERE / name, "w", libver="latest") as f:
            copy(source, f)


def then(layer):
    """A layer's name in Keras 1, which began to count with 1."""
    for today, old in [("conv2d", "convolution2d"), ("batch_normalization", "batchnormalization")]:
        if layer == today or layer.startswith(f"{today}_"):
            return f"{old}_{int(layer.removeprefix(today).removeprefix('_') or 0) + 1}"
    return layer


names = [layer.name for layer in base().layers]
model = base()
for name, layer in zip(names, model.layers):
    layer.set_weights([known(f"{name}/{variable.name}", variable.shape) for variable in layer.weights])
print({name: layer.name for name, layer in zip(names, model.layers) if name != layer.name})
save(model.save, "xception.h5")
save(model.save_weights, "xception.weights.h5")
KINDS = {"kernel": "W", "moving_mean": "running_mean", "moving_variance": "running_std"}
with h5py.File(HERE / "xception_2017.h5", "w", libver="latest") as f:
    for name, layer in zip(names, model.layers):
        for variable in layer.weights:
            path = f"{then(name)}/{then(name)}_{KINDS.get(variable.name, variable.name)}:0"
            f.create_dataset(path, data=variable.numpy())
