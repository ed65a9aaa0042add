"""Golden values for `tests/golden.rs`, from PyTorch: ResNet-50 v1.5, an engine and a network that share no line with Onesheet.

    python -m venv venv && venv/bin/pip install torch==2.15.0 numpy==2.4.6 safetensors
    venv/bin/python tests/golden/make_golden_torch.py

It writes `resnet50_v1_5.safetensors` beside itself in some minutes on two cores. What is computed is what `make_golden_keras.py`
computes; `common.py` says what weights, pixels and labels are. The network is torchvision's, written down again from its
definition and with its names; `ours` are the names that Onesheet's files give the same tensors.

Two things are Keras's and not PyTorch's, and done by hand: running averages take the *biased* variance of a batch, and Adam's epsilon
stands outside the bias-corrected root.
"""

from pathlib import Path

import numpy as np
import torch
from common import CLASS_WEIGHTS, CLASSES, LEARNING_RATE, STEPS, bgr_pixels, digest, initial, label_bits, report, save
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent
MOMENTUM = 0.99
# Of Keras's list of layers the last 40 of the base begin here.
LAST = 40
FIRST_TRAINABLE = "conv4_block6_2_conv"


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + identity)


class Network(nn.Module):
    def __init__(self, pooling):
        super().__init__()
        self.pooling = pooling
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
            layers = []
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.head_1024, self.head_128 = nn.Linear(2048, 1024), nn.Linear(1024, 128)
        self.genres = nn.Linear(128, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = x.mean((2, 3)) if self.pooling == "avg" else x.amax((2, 3))
        return self.genres(F.relu(self.head_128(F.relu(self.head_1024(x)))))


def ours(network):
    """Every module with tensors as (our name of the layer, module), in the order of our list of layers."""
    modules = [("conv1_conv", network.conv1), ("conv1_bn", network.bn1)]
    for stage in range(1, 5):
        for number, block in enumerate(getattr(network, f"layer{stage}")):
            around = block.downsample or [None, None]
            parts = [("1_conv", block.conv1), ("1_bn", block.bn1), ("2_conv", block.conv2), ("2_bn", block.bn2)]
            parts += [("0_conv", around[0]), ("3_conv", block.conv3), ("0_bn", around[1]), ("3_bn", block.bn3)]
            name = f"conv{stage + 1}_block{number + 1}"
            modules += [(f"{name}_{part}", module) for part, module in parts if module is not None]
    return modules + [(name, getattr(network, name)) for name in ["head_1024", "head_128", "genres"]]


def to_engine(tensor):
    """PyTorch's layout to Onesheet's: KCRS to KRSC."""
    return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor


def to_torch(array):
    """Onesheet's layout to PyTorch's: KRSC to KCRS."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2) if array.ndim == 4 else array))


def named_tensors(network):
    """Every tensor as {our name: tensor}; the position is the tensor's number."""
    tensors = {}
    for layer, module in ours(network):
        if isinstance(module, nn.BatchNorm2d):
            parts = {"gamma": module.weight, "beta": module.bias}
            parts |= {"moving_mean": module.running_mean, "moving_variance": module.running_var}
        else:
            parts = {"kernel": module.weight, "bias": module.bias}
        tensors |= {f"{layer}/{kind}": tensor for kind, tensor in parts.items() if tensor is not None}
    return tensors


def build(dtype, pooling="avg"):
    network = Network(pooling).to(dtype)
    with torch.no_grad():
        for number, (name, tensor) in enumerate(named_tensors(network).items()):
            tensor.copy_(to_torch(initial(number, name, tuple(to_engine(tensor).shape))))
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.register_forward_pre_hook(keep_kerass_averages)
        # PyTorch's own averages stand still.
        norm.momentum = 0.0
    return network


def keep_kerass_averages(norm, inputs):
    if norm.training:
        with torch.no_grad():
            (x,) = inputs
            for average, batch in [(norm.running_mean, x.mean((0, 2, 3))), (norm.running_var, x.var((0, 2, 3), correction=0))]:
                average.copy_(MOMENTUM * average + (1 - MOMENTUM) * batch)


def images(dtype):
    return torch.from_numpy(np.ascontiguousarray(bgr_pixels().transpose(0, 3, 1, 2))).to(dtype)


def loss_and_gradients(network, parameters, step, dtype):
    logits = network(images(dtype))
    labels, weights = (torch.as_tensor(values).to(dtype) for values in (label_bits(step).astype(np.float64), CLASS_WEIGHTS))
    loss = (weights * F.binary_cross_entropy_with_logits(logits, labels, reduction="none")).mean()
    return loss, torch.autograd.grad(loss, parameters)


class Adam:
    """Keras's form of it."""

    def __init__(self, parameters):
        self.parameters, self.step = parameters, 0
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    @torch.no_grad()
    def apply(self, gradients):
        self.step += 1
        alpha = LEARNING_RATE * (1 - 0.999**self.step) ** 0.5 / (1 - 0.9**self.step)
        for p, g, (m, v) in zip(self.parameters, gradients, self.moments, strict=True):
            m += (g - m) * (1 - 0.9)
            v += (g * g - v) * (1 - 0.999)
            p -= alpha * m / (v.sqrt() + 1e-7)


def compute(dtype):
    """All golden values in one precision, as {tensor name: float64 array}, and the lists of names behind their rows."""
    out, names = {}, {}
    with torch.no_grad():
        for key, pooling in [("inference.logits", "avg"), ("inference_max_pool.logits", "max")]:
            out[key] = build(dtype, pooling).eval()(images(dtype))

    network = build(dtype).train()
    tensors = named_tensors(network)
    numbers = {name: number for number, name in enumerate(tensors)}
    array = lambda tensor: to_engine(tensor.detach()).to(torch.float64).numpy()
    digest_of = lambda names, values: digest([numbers[n] for n in names], [array(v) for v in values])
    moving = [name for name in tensors if "/moving_" in name]
    trained = [name for name in tensors if "/moving_" not in name]
    names["trained"], names["moving"] = trained, moving
    names["tensors"] = [[name, list(to_engine(tensor).shape)] for name, tensor in tensors.items()]

    # Everything trainable: gradients of the first step, averages after it, weights after the last.
    before = {name: tensors[name].detach().clone() for name in trained}
    parameters = [tensors[name] for name in trained]
    adam, losses = Adam(parameters), []
    for step in range(STEPS):
        loss, gradients = loss_and_gradients(network, parameters, step, dtype)
        losses.append(loss.item())
        if step == 0:
            out["gradient.norms"], out["gradient.samples"] = digest_of(trained, gradients)
            out["moving.norms"], out["moving.samples"] = digest_of(moving, [tensors[name] for name in moving])
        adam.apply(gradients)
    change = [tensors[name] - before[name] for name in trained]
    out["change.norms"], out["change.samples"] = digest_of(trained, change)
    out["training.losses"] = losses

    # Transfer learning: all but the base's last layers frozen, their batch norms in inference mode.
    network = build(dtype).train()
    tensors = named_tensors(network)
    layers = [layer for layer, _ in ours(network)]
    first = layers.index(FIRST_TRAINABLE)
    for _, module in ours(network)[:first]:
        module.eval()
    tail = [name for name in trained if layers.index(name.split("/")[0]) >= first]
    names["transfer"] = tail
    loss, gradients = loss_and_gradients(network, [tensors[name] for name in tail], 0, dtype)
    out["transfer.loss"] = [loss.item()]
    out["transfer.gradient.norms"], out["transfer.gradient.samples"] = digest_of(tail, gradients)
    return {key: np.asarray(value, np.float64) for key, value in out.items()}, names


def main():
    torch.use_deterministic_algorithms(True)
    exact, names = compute(torch.float64)
    rough, _ = compute(torch.float32)
    made_with = f"torch {torch.__version__}, float64"
    save(HERE / "resnet50_v1_5.safetensors", exact, {"made_with": made_with, "transfer_layers": LAST, **names})
    report(exact, rough)
    print("logits, inference\n", exact["inference.logits"], "\nmax pooling\n", exact["inference_max_pool.logits"])
    print("losses", exact["training.losses"].tolist(), exact["transfer.loss"])


if __name__ == "__main__":
    main()
