#!/usr/bin/env python3
"""Has ONNX Runtime compute what `every_network_for_other_programs` wrote, and compares that with what Onesheet answered.

    python tests/export/check_onnx.py target/tmp/elsewhere

Of each model: ONNX's own checker passes, shapes as it infers them are those that are declared, the metadata are right, and the
probabilities of one poster and of three are within 1e-4 of Onesheet's, from bytes and, calibrated, from numbers that are made here. And a model
with one weight changed is found to be wrong.
"""

import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "examples"))

import numpy as np
import onnx
import onnxruntime
from onnx_genres import square
from safetensors.numpy import load_file

TOLERANCE = 1e-4
GENRES = ["War", "Drama", 'Film "noir"', "Комедия"]
NETWORKS = ["resnet50", "resnet50-v1.5", "mobilenet", "vgg16", "xception", "shallow"]
# Miniatures that are named after their pixels.
PIXELS = ["raw", "unit", "symmetric"]
METADATA = {
    "genres": GENRES,
    "thresholds": [0.3, 0.4, 0.5, 0.6],
    "tuned_thresholds": [0.25, 0.5, 0.125, 0.75],
    "temperature": 1.5,
    "image_size": 75,
}


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def numbers(name, posters):
    """What the network is fed, by the words of Onesheet's README; [N, 3, H, W]."""
    x = posters.astype(np.float32)
    if name == "unit":
        x = x / 255
    elif name == "symmetric":
        x = x / 127.5 - 1
    elif name != "raw":
        x = x[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def answers(model, images):
    """The probabilities, as ONNX Runtime computes them of the model in a file or in memory."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": images})[0]


def differ(found, expected):
    """The largest difference; what is no number differs most."""
    assert found.shape == expected.shape and found.dtype == np.float32, (found.shape, found.dtype)
    return float(np.max(np.nan_to_num(np.abs(found - expected), nan=np.inf)))


def check_file(name, path, calibrated):
    model = onnx.load(path)
    onnx.checker.check_model(str(path), full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    found = [dimension.dim_param or dimension.dim_value for dimension in inferred.graph.output[0].type.tensor_type.shape.dim]
    assert found == ["N", len(GENRES)], found
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    network = "shallow-miniature" if name in PIXELS else name
    assert metadata["network"] == network and metadata["pixels"] == (name if name in PIXELS else "imagenet"), metadata
    assert metadata["calibrated"] == str(calibrated).lower(), metadata
    for key, expected in METADATA.items():
        if key != "tuned_thresholds" or not calibrated:
            assert json.loads(metadata[key]) == expected, (key, metadata[key])
    return model


def check(folder, name):
    expected = load_file(folder / f"{name}.answers.safetensors")
    posters, logits = expected["posters"], expected["logits"]
    probabilities = sigmoid(logits)
    spread = np.ptp(probabilities, axis=0).max()
    assert spread > 10 * TOLERANCE, f"{name}: three posters have the same answers to {spread:.1e}"
    worst = 0
    for path, images, expected, calibrated in [
        (folder / f"{name}.onnx", posters, probabilities, False),
        (folder / f"{name}.numbers.onnx", numbers(name, posters), sigmoid(logits / 1.5), True),
    ]:
        check_file(name, path, calibrated)
        for count in [1, 3]:
            difference = differ(answers(path, images[:count]), expected[:count])
            assert difference <= TOLERANCE, f"{path.name}, {count} posters: {difference} off"
            worst = max(worst, difference)
    print(f"{name:14} as Onesheet to {worst:.1e}")


def check_that_a_wrong_weight_is_found(folder):
    expected = load_file(folder / "shallow.answers.safetensors")
    model = onnx.load(folder / "shallow.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "conv2_1_bn/moving_mean")
    values = np.frombuffer(tensor.raw_data, np.float32).copy()
    values[3] += 1
    tensor.raw_data = values.tobytes()
    difference = differ(answers(model.SerializeToString(), expected["posters"]), sigmoid(expected["logits"]))
    assert difference > TOLERANCE, "a weight may be anything"
    print(f"with one weight changed, the answers are {difference:.1e} off")


def check_the_example(folder):
    """A poster becomes the same square in Pillow as in Onesheet, up to one rounding."""
    for resize, expected in load_file(folder / "squares.safetensors").items():
        about = {"image_size": "25", "resize": resize, "exif": "apply", "alpha": "drop"}
        found = square(folder / "poster.png", about)
        difference = np.max(np.abs(found.astype(int) - expected))
        assert found.shape == expected.shape and difference <= (1 if resize == "area" else 0), (resize, difference)


def main():
    folder = pathlib.Path(sys.argv[1])
    check_the_example(folder)
    for name in NETWORKS + PIXELS:
        check(folder, name)
    check_that_a_wrong_weight_is_found(folder)
    print(f"{len(NETWORKS + PIXELS)} models, each in two forms: all as they should be")


if __name__ == "__main__":
    main()
