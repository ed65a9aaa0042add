#!/usr/bin/env python3
"""Has Keras load what `every_network_for_other_programs` wrote, as examples/keras_genres.py does, and compares its answers with Onesheet's.

    python tests/export/check_keras.py target/tmp/elsewhere

The probabilities of three posters are within 1e-4 of Onesheet's, also after a whole model was saved and loaded by Keras itself; and a model with
other means in one batch norm is found to be wrong.
"""

import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "examples"))

import keras
import numpy as np
from keras_genres import load, numbers
from safetensors.numpy import load_file

TOLERANCE = 1e-4


def differ(model, about, posters, expected):
    """The largest difference; what is no number differs most."""
    found = model.predict(numbers(posters, about), verbose=0)
    assert found.shape == expected.shape, found.shape
    return float(np.max(np.nan_to_num(np.abs(found - expected), nan=np.inf)))


def main():
    folder = pathlib.Path(sys.argv[1])
    names = sorted(path.name.removesuffix(".h5") for path in folder.glob("*.h5"))
    assert names == ["mobilenet", "resnet50", "vgg16", "xception"], names
    for name in names:
        answers = load_file(folder / f"{name}.answers.safetensors")
        posters, expected = answers["posters"], 1 / (1 + np.exp(-answers["logits"].astype(np.float64)))
        model, about = load(folder / f"{name}.h5")
        assert about["network"] == name and "Комедия" in about["genres"], about
        difference = differ(model, about, posters, expected)
        assert difference <= TOLERANCE, f"{name}: {difference} off"
        print(f"{name:14} as Onesheet to {difference:.1e}")
        if name == "mobilenet":
            with tempfile.TemporaryDirectory() as whole:
                path = f"{whole}/model.keras"
                model.save(path)
                assert differ(keras.models.load_model(path), about, posters, expected) <= TOLERANCE
        if name == "resnet50":
            layer = model.get_layer("conv3_block1_1_bn")
            gamma, beta, mean, variance = layer.get_weights()
            mean += 1
            layer.set_weights([gamma, beta, mean, variance])
            difference = differ(model, about, posters, expected)
            assert difference > TOLERANCE, "a weight may be anything"
            print(f"with other means in one batch norm, the answers are {difference:.1e} off")
    print(f"{len(names)} models in Keras {keras.__version__}: all as they should be")


if __name__ == "__main__":
    main()
