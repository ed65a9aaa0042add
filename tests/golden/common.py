"""What the golden values of every network have in common: weights, pixels and labels from an integer hash, and how results are kept.

No weights are stored: both sides make them with the hash `u`, which is exact in float32. For tensor number t, element i in
*Onesheet's* layout (kernels [K,R,S,C], dense [out,in]) is, with u = u(fmix32(t), i) and every step in float32:

    kernel           u * sqrt(6 / fan_in), times 1/4 in `genres` and 1/256 in `block1_conv1`; fan_in is R * S of a
                     depthwise kernel [R,S,C]; of a pointwise kernel u * sqrt(3 / fan_in)
    bias             0.1 u
    gamma            1 + 0.25 u, times 1/4 in the last batch norm of a residual branch (`*_3_bn`, `*_sepconv3_bn`)
    beta             0.1 u
    moving_mean      0.1 u
    moving_variance  1 + 0.5 u, times 8192 in `conv1_bn`

The factors keep inference with these invented averages healthy: 8192 is about the stem's variance on pixels, the small
gamma keeps sixteen additions from growing, and the last quarter makes logits of order 1, not a saturated sigmoid. Between the two
kernels of a separable convolution there is no ReLU that would halve what arrives.
VGG-16 has no batch norm that would divide by the pixels' extent; its first kernel does.
Position k of a tensor's samples is hash k of stream 2,000,000 + t, modulo the tensor's size. Pixels are the top byte of
stream 1,000,000 in NHWC order as RGB, labels the top bit of stream 1,000,001 + step.
"""

import json
import math

import numpy as np
from safetensors.numpy import save_file

CLASSES, SIZE, BATCH, STEPS, SAMPLES = 7, 150, 3, 3, 16
CLASS_WEIGHTS = [1.5, 0.5, 0.25, 1.0, 2.0, 1.25, 0.75]
LEARNING_RATE = 1e-5
# Seeds beyond any tensor's number.
PIXELS, LABELS, POSITIONS = 1_000_000, 1_000_001, 2_000_000  # labels of step s: LABELS + s


def fmix32(x):
    """MurmurHash3's 32-bit finaliser, elementwise on uint32."""
    x = np.asarray(x, np.uint32)
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def hashes(stream, count):
    """The first `count` hashes of a stream: fmix32((i * 0x9E3779B9) ^ fmix32(stream))."""
    return fmix32((np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9)) ^ fmix32([stream]))


def u(stream, count):
    """Uniform numbers in [-1, 1), exact in float32: 24 bits of hash each."""
    return (hashes(stream, count) >> np.uint32(8)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def initial(number, name, shape):
    """The tensor `name`, layer and kind, in the engine's layout."""
    layer, kind = name.split("/")
    values = u(number, math.prod(shape))
    if kind.endswith("kernel"):
        fan_in = math.prod(shape[:2] if kind == "depthwise_kernel" else shape[1:])
        spread = 3 if kind == "pointwise_kernel" else 6
        values = np.float32(math.sqrt(spread / fan_in)) * values
        if layer == "genres":
            values = np.float32(0.25) * values
        if layer == "block1_conv1":
            values = np.float32(1 / 256) * values
    elif kind == "gamma":
        values = np.float32(1) + np.float32(0.25) * values
        if layer.endswith(("_3_bn", "_sepconv3_bn")):
            values = np.float32(0.25) * values
    elif kind == "moving_variance":
        values = np.float32(1) + np.float32(0.5) * values
        if layer == "conv1_bn":
            values = np.float32(8192) * values
    else:
        values = np.float32(0.1) * values
    return values.reshape(shape)


def bgr_pixels(size=SIZE):
    """Pixels [N, H, W, 3] as `--pixels imagenet` feeds them: BGR minus the ImageNet means."""
    pixels = (hashes(PIXELS, BATCH * size * size * 3) >> np.uint32(24)).astype(np.float64)
    bgr = pixels.reshape(BATCH, size, size, 3)[..., ::-1]
    return bgr - np.array([103.939, 116.779, 123.68])


def label_bits(step):
    """Labels [N, C] of a step."""
    return (hashes(LABELS + step, BATCH * CLASSES) >> np.uint32(31)).reshape(BATCH, CLASSES)


def digest(numbers, arrays):
    """A tensor each, in the engine's layout, as its L2 norm and `SAMPLES` elements at hashed positions."""
    norms, samples = [], []
    for number, array in zip(numbers, arrays, strict=True):
        flat = np.asarray(array, np.float64).ravel()
        norms.append(np.sqrt(np.sum(flat * flat)))
        samples.append(flat[hashes(POSITIONS + number, SAMPLES) % np.uint32(flat.size)])
    return np.array(norms), np.array(samples)


def report(exact, rough):
    """Prints how far float32 is from float64: norms relatively, samples relative to their tensor's norm (their change:
    to the learning rate), anything else absolutely."""
    for key, a in exact.items():
        if a.size == 0:  # the running averages of a network without batch norms
            continue
        error = np.abs(a - rough[key])
        if key == "change.samples":
            error = error / LEARNING_RATE
        elif key.endswith("samples"):
            error = error / exact[key.replace("samples", "norms")][:, None]
        elif key.endswith("norms"):
            error = error / a
        rms = np.sqrt(np.mean(error**2))
        print(f"{key:28} {str(a.shape):10} float32 is off by {error.max():.1e} at worst, {rms:.1e} rms")


def save(path, values, facts):
    """Writes the golden values, and what the file says about itself."""
    facts = {"class_weights": CLASS_WEIGHTS, "learning_rate": LEARNING_RATE, **facts}
    metadata = {"golden": json.dumps(facts)}  # one key: the writer shuffles several
    save_file({key: np.ascontiguousarray(value) for key, value in values.items()}, path, metadata=metadata)
