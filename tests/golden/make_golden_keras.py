"""Golden values for `tests/golden.rs`, from Keras on TensorFlow: an engine that shares no line with Onesheet.

    python -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0 keras==3.15.1 numpy==2.4.6 safetensors
    venv/bin/python tests/golden/make_golden_keras.py

It writes `resnet50.safetensors` and `resnet50_layers.json` beside itself, and the same of the other networks, or of those that
are named on the command line, in a few minutes on two cores; the same bytes each time on one machine. Everything stored was
computed in float64; the script computes it all in float32 too and prints how far apart the two are, which is what a float32
engine's tolerance has to allow for. (Where a pre-activation is zero up to rounding, one precision's ReLU passes the gradient
and the other's does not: a few samples are off by more.)

The networks are Keras Applications' ResNet50, MobileNet, VGG16 and Xception and Onesheet's own shallow one, which is written down again
here, with global average pooling and Onesheet's head, at 150x150. Xception is at 75x75, where its four pools see odd and even images
(35, 18, 9 and 5 pixels), and the reference device has done with a step in seconds. `common.py` says what weights, pixels and labels are; tensor
number t counts kernel, bias / gamma, beta, moving_mean, moving_variance layer by layer in the order of the file of layers. 8192
there is about the stem's variance on pixels.

One training step is: forward with batch statistics; loss = mean over batch and classes of w_c * BCE(logit, label); gradients;
Adam with Keras's defaults but a learning rate of 1e-5. Adam's first steps are lr * sign(gradient) almost, so wherever a
gradient is nearly zero rounding decides the sign; at 1e-3 the third step then differs between float32 and float64 by half of
itself, while at 1e-5 the comparison stays sharp. Labels change from step to step, else gradients would hardly differ and no
mistake in the moments would show. The biases of ResNet50's convolutions stay out of the optimiser: a batch norm follows each, so
their gradient is zero up to rounding, and Adam would make whole steps of that rounding. VGG16's, which none follows, are trained.
"""

import json
import math
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import keras
import numpy as np
import tensorflow as tf
from common import BATCH, CLASS_WEIGHTS, CLASSES, LEARNING_RATE, SIZE, STEPS, bgr_pixels, digest, initial, label_bits, report, save

HERE = Path(__file__).parent


def application(build, size=SIZE):
    return lambda pooling: build(weights=None, include_top=False, input_shape=(size, size, 3), pooling=pooling)


def shallow(pooling):
    """Seven convolutions with ResNet50's stem, constants and names."""
    layers = keras.layers
    images = layers.Input((SIZE, SIZE, 3))

    def conv(x, name, filters, window, stride, pad):
        if stride > 1:
            x = layers.ZeroPadding2D(pad, name=f"{name}_pad")(x)
        padding = "valid" if stride > 1 else "same"
        x = layers.Conv2D(filters, window, stride, padding, use_bias=False, name=f"{name}_conv")(x)
        x = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn")(x)
        return layers.Activation("relu", name=f"{name}_relu")(x)

    x = conv(images, "conv1", 32, 7, 2, 3)
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(layers.ZeroPadding2D(1, name="pool1_pad")(x))
    for stage, filters in [(2, 64), (3, 128), (4, 256)]:
        x = conv(x, f"conv{stage}_1", filters, 3, 1 if stage == 2 else 2, 1)
        x = conv(x, f"conv{stage}_2", filters, 3, 1, 1)
    pool = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}[pooling]
    return keras.Model(images, pool(name=f"{pooling}_pool")(x))


# How each base is built, and how many of its last layers are trained in transfer learning.
NETWORKS = {
    "resnet50": (application(keras.applications.ResNet50), 40),
    "mobilenet": (application(keras.applications.MobileNet), 40),
    "shallow": (shallow, 10),
    "vgg16": (application(keras.applications.VGG16), 8),
    "xception": (application(keras.applications.Xception, 75), 40),
}


def to_engine(name, array):
    """Keras's layout to Onesheet's: HWIO to KRSC, [in, out] to [out, in], and of depthwise kernels [R, S, C, 1] to [R, S, C]."""
    if name.endswith("/depthwise_kernel"):
        return array[..., 0]
    return {4: lambda a: a.transpose(3, 0, 1, 2), 2: lambda a: a.T, 1: lambda a: a}[array.ndim](array)


def to_keras(name, array):
    """Onesheet's layout to Keras's."""
    if name.endswith("/depthwise_kernel"):
        return array[..., None]
    return {4: lambda a: a.transpose(1, 2, 3, 0), 2: lambda a: a.T, 1: lambda a: a}[array.ndim](array)


def build(network, pooling="avg"):
    # Layers that nobody names are numbered from the first one on.
    keras.utils.clear_session()
    base = NETWORKS[network][0](pooling)
    x = keras.layers.Dense(1024, activation="relu", name="head_1024")(base.output)
    x = keras.layers.Dense(128, activation="relu", name="head_128")(x)
    logits = keras.layers.Dense(CLASSES, name="genres")(x)
    return keras.Model(base.input, logits), base


def named_variables(model):
    """Every tensor as (name, variable), in layer order; the position in this list is the tensor's number."""
    return [(tensor_name(layer, v), v) for layer in model.layers for v in layer.weights]


def tensor_name(layer, variable):
    """Keras 3 calls a depthwise kernel `kernel`; Onesheet calls it as Keras's own weight files do."""
    is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return f"{layer.name}/{'depthwise_kernel' if is_depthwise and variable.name == 'kernel' else variable.name}"


def fill(model):
    for number, (name, variable) in enumerate(named_variables(model)):
        shape = to_engine(name, np.empty(variable.shape, np.bool_)).shape
        variable.assign(to_keras(name, initial(number, name, shape)))


def images(model):
    return tf.constant(bgr_pixels(model.input.shape[1]), keras.backend.floatx())


def labels(step):
    return tf.constant(label_bits(step), keras.backend.floatx())


def loss_of(logits, labels):
    weights = tf.constant(CLASS_WEIGHTS, logits.dtype)
    return tf.reduce_mean(weights * tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def loss_and_gradients(model, variables, step):
    with tf.GradientTape() as tape:
        logits = model(images(model), training=True)
        loss = loss_of(logits, labels(step))
    return loss, tape.gradient(loss, [v.value for v in variables])


def compute(network, floatx):
    """All golden values in one precision, as {tensor name: float64 array}, and the lists of names behind their rows."""
    keras.backend.set_floatx(floatx)
    out, names = {}, {}

    maxed, _ = build(network, "max")
    fill(maxed)
    out["inference_max_pool.logits"] = maxed(images(maxed), training=False).numpy()

    model, base = build(network)
    fill(model)
    out["inference.logits"] = model(images(model), training=False).numpy()

    variables = dict(named_variables(model))
    numbers = {name: number for number, name in enumerate(variables)}
    digest_of = lambda names, values: digest([numbers[n] for n in names], [to_engine(n, np.asarray(v)) for n, v in zip(names, values)])
    is_base_bias = lambda name: name.endswith("_conv/bias")
    moving = [name for name in variables if "/moving_" in name]
    trained = [name for name in variables if "/moving_" not in name and not is_base_bias(name)]
    names["trained"], names["moving"] = trained, moving

    # Everything trainable: gradients of the first step, averages after it, weights after the last.
    initial = {name: variables[name].numpy() for name in trained}
    # As Python floats the betas would pass through float32 on their way to the bias corrections.
    adam = keras.optimizers.Adam(LEARNING_RATE, beta_1=np.float64(0.9), beta_2=np.float64(0.999))
    losses = []
    for step in range(STEPS):
        loss, gradients = loss_and_gradients(model, [variables[n] for n in trained], step)
        losses.append(loss.numpy())
        if step == 0:
            out["gradient.norms"], out["gradient.samples"] = digest_of(trained, gradients)
            out["moving.norms"], out["moving.samples"] = digest_of(moving, [variables[n].numpy() for n in moving])
        adam.apply(gradients, [variables[n] for n in trained])
    change = [variables[n].numpy() - initial[n] for n in trained]
    out["change.norms"], out["change.samples"] = digest_of(trained, change)
    out["training.losses"] = np.array(losses)

    # Transfer learning: all but the base's last layers frozen, their batch norms in inference mode.
    fill(model)
    for layer in base.layers[: -NETWORKS[network][1]]:
        layer.trainable = False
    tail = [tensor_name(layer, v) for layer in model.layers for v in layer.trainable_weights]
    tail = [name for name in tail if not is_base_bias(name)]
    names["transfer"] = tail
    loss, gradients = loss_and_gradients(model, [variables[n] for n in tail], step=0)
    out["transfer.loss"] = np.array([loss.numpy()])
    out["transfer.gradient.norms"], out["transfer.gradient.samples"] = digest_of(tail, gradients)
    return {key: np.asarray(value, np.float64) for key, value in out.items()}, names


def layer_table(network):
    """The facts that `summary` prints: layers in Keras's order, and the three parameter counts."""
    model, base = build(network)
    count = lambda variables: sum(math.prod(v.shape) for v in variables)
    total, trainable = count(model.weights), count(model.trainable_weights)
    layers = [
        {
            "name": layer.name,
            "type": type(layer).__name__,
            "output": list(layer.output.shape[1:]),
            "parameters": count(layer.weights),
            "tensors": [tensor_row(layer, v) for v in layer.weights],
        }
        for layer in model.layers
    ]
    for layer in base.layers[: -NETWORKS[network][1]]:
        layer.trainable = False
    counts = {"total": total, "trainable": trainable, "trainable_in_transfer": count(model.trainable_weights)}
    return {"base_layers": len(base.layers), "parameters": counts, "layers": layers}


def tensor_row(layer, variable):
    """A tensor's kind and its extents in the engine's layout."""
    name = tensor_name(layer, variable)
    return [name.split("/")[1], list(to_engine(name, np.empty(variable.shape, np.bool_)).shape)]


def write_layers(network, table):
    rows = ",\n".join("    " + json.dumps(layer) for layer in table["layers"])
    head = json.dumps({k: v for k, v in table.items() if k != "layers"}, indent=2)[:-2]
    (HERE / f"{network}_layers.json").write_text(f'{head},\n  "layers": [\n{rows}\n  ]\n}}\n')


def main():
    tf.config.experimental.enable_op_determinism()
    for network in sys.argv[1:] or NETWORKS:
        print(network)
        exact, names = compute(network, "float64")
        rough, _ = compute(network, "float32")
        facts = {"made_with": f"keras {keras.__version__}, tensorflow {tf.__version__}, float64", "transfer_layers": NETWORKS[network][1]}
        size = build(network)[0].input.shape[1]
        if size != SIZE:
            facts["size"] = size
        save(HERE / f"{network}.safetensors", exact, {**facts, **names})
        write_layers(network, layer_table(network))
        report(exact, rough)
        print("logits, inference\n", exact["inference.logits"], "\nmax pooling\n", exact["inference_max_pool.logits"])
        print("losses", exact["training.losses"].tolist(), exact["transfer.loss"])


if __name__ == "__main__":
    main()
