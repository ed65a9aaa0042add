#!/usr/bin/env python3
"""One contestant of the bench `cpu_peers`: waits for requests, a line each, and answers each with a line of JSON.

    logits N              the network's outputs over the first N images, at the weights in the file
    losses N STEPS        the losses of so many training steps on them, from those weights
    infer N SECONDS       seconds of an inference
    train N SECONDS       seconds of a training step

A time is that of the first call if it takes SECONDS; else the median of calls that take so long together, the first left out.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings

import numpy
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from network import Network, batch


class PyTorch:
    """As a user would run it: eagerly, channels last, bf16 by autocast, Adam fused."""

    name = f"PyTorch {torch.__version__.split('+')[0]}"

    def __init__(self, options):
        self.file, self.narrow = options.file, options.precision == "bf16"
        images, self.labels = batch(self.file)
        self.images = images.permute(0, 3, 1, 2)
        self.of_inference = self.of_training = None

    def autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.narrow)

    def first(self, n):
        return self.images[:n].contiguous(memory_format=torch.channels_last)

    def inference(self, n):
        if self.of_inference is None:
            self.of_inference = Network(self.file).to(memory_format=torch.channels_last).eval()
        images, module = self.first(n), self.of_inference

        def infer():
            with torch.inference_mode(), self.autocast():
                return module(images).float().numpy()

        return infer

    def training(self, n):
        if self.of_training is None:
            module = Network(self.file).to(memory_format=torch.channels_last).train()
            # Keras's constants.
            self.of_training = module, torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, eps=1e-7, fused=True)
        images, labels, (module, adam) = self.first(n), self.labels[:n], self.of_training

        def train():
            adam.zero_grad(set_to_none=True)
            with self.autocast():
                logits = module(images)
            loss = binary_cross_entropy_with_logits(logits.float(), labels)
            loss.backward()
            adam.step()
            return loss.item()

        return train


class Exported:
    """A runtime that computes what PyTorch exports."""

    def __init__(self, options):
        images, _ = batch(options.file)
        self.images = images.permute(0, 3, 1, 2).contiguous().numpy()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "network.onnx")
            example = torch.from_numpy(self.images[:1])
            with warnings.catch_warnings():
                # That there is a newer exporter, which needs one more package.
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    Network(options.file).eval(),
                    (example,),
                    path,
                    input_names=["images"],
                    output_names=["logits"],
                    dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
                    dynamo=False,
                )
            self.load(path, options)


class OnnxRuntime(Exported):
    """Its own processor kernels, every optimisation of the graph."""

    def load(self, path, options):
        import onnxruntime

        self.name = f"ONNX Runtime {onnxruntime.__version__}"
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Who waits for its turn must not take anybody's time.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def inference(self, n):
        images = numpy.ascontiguousarray(self.images[:n])
        return lambda: self.session.run(None, {"images": images})[0]


class OpenVino(Exported):
    """One request at a time over all cores, compiled for each number of images."""

    def load(self, path, options):
        import openvino
        from openvino import properties

        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        precision = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}[options.precision]
        settings = {
            properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
            properties.hint.inference_precision(): precision,
            properties.inference_num_threads(): options.threads,
        }
        core, self.requests = openvino.Core(), {}
        for n in options.batch:
            model = core.read_model(path)
            model.reshape([n, *self.images.shape[1:]])
            compiled = core.compile_model(model, "CPU", settings)
            if compiled.get_property(properties.hint.inference_precision()) != precision:
                raise Refusal(f"{self.name} does not compute in {options.precision} on this processor")
            self.requests[n] = compiled.create_infer_request()

    def inference(self, n):
        images, request = numpy.ascontiguousarray(self.images[:n]), self.requests[n]
        return lambda: request.infer([images], share_inputs=True)[0]


class Refusal(Exception):
    """Why a contestant does not take part."""


PEERS = {"pytorch": PyTorch, "onnxruntime": OnnxRuntime, "openvino": OpenVino}
LEARNING_RATE = 1e-4


def measured(call, seconds):
    def timed():
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    first = timed()
    if first >= seconds:
        return first
    times = []
    while sum(times) < seconds:
        times.append(timed())
    return statistics.median(times)


def answer(peer, request):
    match request.split():
        case ["logits", n]:
            return peer.inference(int(n))().flatten().tolist()
        case ["losses", n, steps]:
            train = peer.training(int(n))
            return [train() for _ in range(int(steps))]
        case ["infer", n, seconds]:
            return [measured(peer.inference(int(n)), float(seconds))]
        case ["train", n, seconds]:
            return [measured(peer.training(int(n)), float(seconds))]
    raise ValueError(f"nobody knows the request {request!r}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--file", required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, nargs="+", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        peer = PEERS[options.peer](options)
        print(json.dumps({"name": peer.name}), flush=True)
    except Refusal as reason:
        print(json.dumps({"refusal": str(reason)}), flush=True)
        return
    for request in sys.stdin:
        print(json.dumps({"numbers": answer(peer, request)}), flush=True)


if __name__ == "__main__":
    main()
