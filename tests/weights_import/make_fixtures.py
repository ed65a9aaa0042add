"""Small Keras files for `tests/weights_import.rs`: the same arrangements as the real ones, two layers and a head. And for
`tests/weights_arrive.rs` a whole network, the miniature of `network::resnet50::MINIATURE`, in three of them.

    python -m venv venv && venv/bin/pip install h5py==3.14.0 numpy==2.4.6
    venv/bin/python tests/weights_import/make_fixtures.py

Element i of a tensor, counted in Keras's layout, has the value i / 8 + the tensor's place in TENSORS; so the test can
say where each element must go.
"""

from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).parent
TENSORS = {
    "conv1_conv": {"kernel": (3, 2, 3, 4), "bias": (4,)},  # R S C K, all extents that matter unequal
    "conv1_bn": {"gamma": (4,), "beta": (4,), "moving_mean": (4,), "moving_variance": (4,)},
    "predictions": {"kernel": (4, 5), "bias": (5,)},  # a foreign head
}
# Layers of a real model that have no weights.
WEIGHTLESS = ["input_1", "conv1_pad"]


def small():
    weights, place = {}, 0
    for layer, kinds in TENSORS.items():
        weights[layer] = {}
        for kind, shape in kinds.items():
            size = int(np.prod(shape))
            weights[layer][kind] = (np.arange(size, dtype=np.float32) / 8 + place).reshape(shape)
            place += 1
    return weights


def known(name, shape):
    """The values of a tensor of the miniature, which `tests/weights_arrive.rs` makes from its name as well."""
    number = 0
    for byte in name.encode():
        number = (31 * number + byte) % 65521
    uniform = ((37 * np.arange(np.prod(shape)) + number) % 509).astype(np.float32) / 512
    above_zero = name.endswith(("/gamma", "/moving_variance"))
    return (uniform + (0.5 if above_zero else -0.5)).astype(np.float32).reshape(shape)


def miniature():
    """The base of `network::resnet50::MINIATURE` under Keras's names, in Keras's order and layouts."""
    weights = {}

    def conv(name, window, inputs, filters):
        shapes = {"kernel": (window, window, inputs, filters), "bias": (filters,)}
        weights[name] = {kind: known(f"{name}/{kind}", shape) for kind, shape in shapes.items()}

    def norm(name, channels):
        kinds = ["gamma", "beta", "moving_mean", "moving_variance"]
        weights[name] = {kind: known(f"{name}/{kind}", (channels,)) for kind in kinds}

    conv("conv1_conv", 7, 3, 4)
    norm("conv1_bn", 4)
    inputs = 4
    for stage, filters, blocks in [(2, 2, 2), (3, 3, 1)]:
        for block in range(1, blocks + 1):
            name = f"conv{stage}_block{block}"
            conv(f"{name}_1_conv", 1, inputs, filters)
            norm(f"{name}_1_bn", filters)
            conv(f"{name}_2_conv", 3, filters, filters)
            norm(f"{name}_2_bn", filters)
            if block == 1:
                conv(f"{name}_0_conv", 1, inputs, 4 * filters)
            conv(f"{name}_3_conv", 1, filters, 4 * filters)
            if block == 1:
                norm(f"{name}_0_bn", 4 * filters)
            norm(f"{name}_3_bn", 4 * filters)
            inputs = 4 * filters
    return weights


def small_mobilenet():
    """The base of `network::mobilenet::MINIATURE` likewise, with a depthwise kernel's name as Keras's published files have it."""
    weights = {}

    def add(name, kind, shape):
        weights.setdefault(name, {})[kind] = known(f"{name}/{kind}", shape)

    def norm(name, channels):
        for kind in ["gamma", "beta", "moving_mean", "moving_variance"]:
            add(name, kind, (channels,))

    add("conv1", "kernel", (3, 3, 3, 3))
    norm("conv1_bn", 3)
    inputs = 3
    for block, filters in [(1, 4), (2, 5)]:
        add(f"conv_dw_{block}", "depthwise_kernel", (3, 3, inputs, 1))
        norm(f"conv_dw_{block}_bn", inputs)
        add(f"conv_pw_{block}", "kernel", (1, 1, inputs, filters))
        norm(f"conv_pw_{block}_bn", filters)
        inputs = filters
    return weights


def small_vgg16():
    """The base of `network::vgg16::MINIATURE` likewise."""
    weights, inputs = {}, 3
    for block, filters in [(1, 4), (2, 5)]:
        for conv in [1, 2]:
            name = f"block{block}_conv{conv}"
            shapes = {"kernel": (3, 3, inputs, filters), "bias": (filters,)}
            weights[name] = {kind: known(f"{name}/{kind}", shape) for kind, shape in shapes.items()}
            inputs = filters
    return weights


def tensors(weights):
    return [(layer, kind, values) for layer, kinds in weights.items() for kind, values in kinds.items()]


WEIGHTS = small()
MINIATURE = miniature()
MOBILENET = small_mobilenet()
VGG16 = small_vgg16()


def legacy(group, suffix, first="", weights=WEIGHTS):
    """A group per layer, as Keras 2 (suffix ":0") and Keras 3 (no suffix) write them; `first` is an outer model's name."""
    group.attrs["backend"] = b"tensorflow"
    group.attrs["layer_names"] = [name.encode() for name in [*WEIGHTLESS, *weights]]
    for layer in WEIGHTLESS:
        # An empty list becomes an empty array of float64.
        group.create_group(layer).attrs["weight_names"] = []
    for layer, kinds in weights.items():
        names = [f"{layer}/{kind}{suffix}".encode() for kind in kinds]
        group.require_group(first + layer).attrs["weight_names"] = names
    for layer, kind, values in tensors(weights):
        group[first + layer].create_dataset(f"{layer}/{kind}{suffix}", data=values)


def numbered(group, names=True, weights=WEIGHTS):
    """Keras 3's `.weights.h5`: layers are named after their classes and counted, conv2d, conv2d_1, and so on."""
    count, places = {}, {}
    for layer in weights:
        kinds = {"_conv": "conv2d", "conv1": "conv2d", "conv_pw": "conv2d", "conv_dw": "depthwise_conv2d", "_bn": "batch_normalization"}
        stem = layer.rstrip("_0123456789") if layer.startswith(("conv_dw", "conv_pw")) else layer
        kind = next((kind for end, kind in kinds.items() if stem.endswith(end)), "dense")
        number = count.setdefault(kind, 0)
        count[kind] += 1
        places[layer] = f"layers/{kind}_{number}/vars" if number else f"layers/{kind}/vars"
        variables = group.create_group(places[layer])
        if names:
            variables.attrs["name"] = layer
    group.create_group("layers/zero_padding2d/vars").attrs["name"] = "conv1_pad"
    for layer, kinds in weights.items():
        for number, values in enumerate(kinds.values()):
            group[places[layer]].create_dataset(str(number), data=values)


def file(name):
    """In the arrangement HDF5 writes by default, and Keras therefore."""
    return h5py.File(HERE / name, "w")


def newer(name):
    """In HDF5's newer and smaller arrangement."""
    return h5py.File(HERE / name, "w", libver="latest")


with file("applications.h5") as f:
    legacy(f, ":0")
with file("whole_model.h5") as f:
    f.attrs["model_config"] = b"{}"
    legacy(f.create_group("model_weights"), ":0")
    # State of the optimiser, whose last two names look like a tensor's.
    f.create_dataset("optimizer_weights/adam/conv1_conv/kernel:0", data=np.zeros((3, 2, 3, 4), np.float32))
with newer("nested.h5") as f:
    legacy(f.create_group("model_weights"), "", first="resnet50/")
with file("keras3.weights.h5") as f:
    numbered(f)
with file("nested.weights.h5") as f:
    numbered(f.create_group("layers/functional"))
with newer("unnamed.weights.h5") as f:
    numbered(f, names=False)

# The names of 2016, in files of Keras 1 (conv1/conv1_W:0) and of Keras 2 (conv1/conv1/kernel:0).
OLD_LAYERS = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1", "predictions": "fc1000"}
OLD_KINDS = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}
with newer("keras1.h5") as f:
    for layer, kind, values in tensors(WEIGHTS):
        name = OLD_LAYERS[layer]
        f.require_group(name).create_dataset(f"{name}_{OLD_KINDS.get(kind, kind)}:0", data=values)
with newer("keras2.h5") as f:
    for layer, kind, values in tensors(WEIGHTS):
        name = OLD_LAYERS[layer]
        f.create_dataset(f"{name}/{name}/{kind}:0", data=values)



def old_layer(name):
    """`res2a_branch2b` or `bn2a_branch2b` of `conv2_block1_2_conv` or `conv2_block1_2_bn`."""
    if name in OLD_LAYERS:
        return OLD_LAYERS[name]
    stage, block, place, family = name.split("_")
    branch = {"0": "1", "1": "2a", "2": "2b", "3": "2c"}[place]
    letter = "abcdef"[int(block.removeprefix("block")) - 1]
    return f"{'res' if family == 'conv' else 'bn'}{stage.removeprefix('conv')}{letter}_branch{branch}"


# The whole miniature.
with newer("miniature.h5") as f:
    legacy(f, ":0", weights=MINIATURE)
with newer("miniature.weights.h5") as f:
    numbered(f, weights=MINIATURE)
with newer("miniature_2016.h5") as f:
    for layer, kind, values in tensors(MINIATURE):
        name = old_layer(layer)
        f.require_group(name).create_dataset(f"{name}_{OLD_KINDS.get(kind, kind)}:0", data=values)

with newer("mobilenet.h5") as f:
    legacy(f, ":0", weights=MOBILENET)
with newer("mobilenet.weights.h5") as f:
    numbered(f, weights=MOBILENET)
with newer("vgg16.h5") as f:
    legacy(f, ":0", weights=VGG16)
with newer("vgg16.weights.h5") as f:
    numbered(f, weights=VGG16)

# Files that must be refused.
with newer("deeper.h5") as f:
    legacy(f, ":0")
    f["conv2_block1_1_conv/conv2_block1_1_conv/kernel:0"] = np.zeros((1, 1, 4, 4), np.float32)
with newer("old_and_new.h5") as f:
    legacy(f, ":0")
    f["conv1/conv1_W:0"] = np.zeros((3, 2, 3, 4), np.float32)
with newer("integers.h5") as f:
    legacy(f, ":0")
    del f["conv1_conv/conv1_conv/bias:0"]
    f["conv1_conv/conv1_conv/bias:0"] = np.zeros(4, np.int32)
with newer("not_a_number.h5") as f:
    legacy(f, ":0")
    f["conv1_bn/conv1_bn/gamma:0"][2] = np.nan
with newer("negative_variance.h5") as f:
    legacy(f, ":0")
    f["conv1_bn/conv1_bn/moving_variance:0"][1] = -1
with newer("twice.h5") as f:
    legacy(f.create_group("first"), ":0")
    legacy(f.create_group("second"), ":0")
with newer("external_link.h5") as f:
    legacy(f, ":0")
    del f["conv1_bn"]
    f["conv1_bn"] = h5py.ExternalLink("applications.h5", "/conv1_bn")
with newer("external_data.h5") as f:
    legacy(f, ":0")
    del f["conv1_conv/conv1_conv/bias:0"]
    f.create_dataset("conv1_conv/conv1_conv/bias:0", (4,), np.float32, external=[("make_fixtures.py", 0, 16)])
with newer("virtual_data.h5") as f:
    legacy(f, ":0")
    del f["conv1_conv/conv1_conv/bias:0"]
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource("applications.h5", "conv1_conv/conv1_conv/bias:0", (4,))
    f.create_virtual_dataset("conv1_conv/conv1_conv/bias:0", layout)
with newer("huge_claim.h5") as f:
    legacy(f, ":0")
    del f["conv1_conv/conv1_conv/bias:0"]
    f.create_dataset("conv1_conv/conv1_conv/bias:0", (2**36,), np.float32, chunks=(2**20,), compression="gzip")
with newer("ring.h5") as f:
    legacy(f, ":0")
    f["conv1_conv/ring"] = f["/"]
