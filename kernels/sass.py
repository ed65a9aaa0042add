#!/usr/bin/env python3
"""What the machine code of the tensor-core main loops looks like: `python3 kernels/sass.py [TARGET]`, sm_80 unless told.

For each kernel of kernels/ptx/conv.bf16.ptx: the loop with the most HMMA instructions, how many instructions it has and of which
kinds, the most of other instructions between two HMMAs, and whether it touches local memory. A Markdown table, for docs/measurements.md.
Needs what build.py needs, and one package more.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

import build

NVDISASM = "nvidia-cuda-nvdisasm==13.5.37"


def disassemble(packages, ptx, target):
    """Kernel name -> its instructions, as (address, opcode, operands)."""
    stamp = build.ENVIRONMENT / "nvdisasm"
    if not stamp.exists():
        pip = [build.ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", NVDISASM], check=True)
        stamp.touch()
    nvdisasm = next(packages.glob("**/nvdisasm"))
    with tempfile.TemporaryDirectory() as folder:
        cubin = pathlib.Path(folder) / "cubin"
        ptxas = packages / "cuda_nvcc" / "bin" / "ptxas"
        subprocess.run([ptxas, f"--gpu-name={target}", ptx, "--output-file", cubin], check=True)
        text = subprocess.run([nvdisasm, "--print-code", cubin], check=True, capture_output=True, text=True).stdout
    kernels, name = {}, None
    for line in text.splitlines():
        if found := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            name = found[1]
            kernels[name] = ([], {})
        elif name and (found := re.match(r"\s*(\.L_\w+):", line)):
            kernels[name][1][found[1]] = len(kernels[name][0])
        elif name and (found := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?);", line)):
            kernels[name][0].append((found[1], found[2]))
    return kernels


def main_loop(code, labels):
    """The instructions of the shortest loop that has the most HMMAs; of two, one that copies too: not the last slices' loop."""
    best = []
    for end, (opcode, operands) in enumerate(code):
        if opcode.startswith("BRA") and (label := re.search(r"\.L_\w+", operands)):
            start = labels.get(label[0], end + 1)
            if start <= end:
                loop = code[start : end + 1]
                count = lambda body, kind: sum(opcode.startswith(kind) for opcode, _ in body)
                rank = lambda body: (count(body, "HMMA"), count(body, "LDGSTS") > 0, -len(body))
                if rank(loop) > rank(best):
                    best = loop
    return best


def row(name, loop):
    kinds = collections.Counter(opcode for opcode, _ in loop)
    total = lambda *prefixes: sum(n for opcode, n in kinds.items() if opcode.startswith(prefixes))
    gaps, gap = [], None
    for opcode, _ in loop:
        if opcode.startswith("HMMA"):
            if gap is not None:
                gaps.append(gap)
            gap = 0
        elif gap is not None:
            gap += 1
    back_to_back = sum(gap <= 1 for gap in gaps)
    wide = sum(n for opcode, n in kinds.items() if opcode.startswith("LDGSTS") and "128" in opcode)
    return (
        f"| `{name}` | {len(loop)} | {total('HMMA')} | {100 * total('HMMA') / len(loop):.0f} % | "
        f"{back_to_back} of {len(gaps)} | {max(gaps, default=0)} | {total('LDSM')} | {wide} of {total('LDGSTS')} | {total('LDL', 'STL')} |"
    )


def main():
    target = sys.argv[1] if len(sys.argv) > 1 else "sm_80"
    packages = build.install()
    print(f"| kernel ({target}) | loop | HMMA | share | HMMAs with at most one instruction to the next | longest gap | LDSM | LDGSTS of 16 bytes | local memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, (code, labels) in sorted(disassemble(packages, build.KERNELS / "ptx" / "conv.bf16.ptx", target).items()):
        if loop := main_loop(code, labels):
            print(row(name, loop))


if __name__ == "__main__":
    main()
