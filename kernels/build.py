#!/usr/bin/env python3
"""From kernels/FAMILY/*.cu to kernels/ptx/*.ptx, and from there to kernels/RESOURCES.md.

    python3 kernels/build.py                 # writes both
    python3 kernels/build.py --check         # says whether what is committed is what this makes
    python3 kernels/build.py conv pool       # the PTX of these families only

Needs Python and a package index; the compilers come from it, into a virtual environment under target/. NVRTC 11.8 is as
old as the kernels allow (`__grid_constant__` came with 11.7), because PTX runs only on drivers as new as its compiler: this one's asks for 520 or newer. ptxas is
new, because it must know Blackwell; it proves here that a driver can compile the PTX for every target, without spills.

NVRTC's choices among equals (of names, of order) depend on where its data happens to lie in memory, so two runs on the same source
can differ in some lines. What is compared is therefore a digest of the sources and options, which each PTX file begins with,
and what is then made of them: the kernels, their parameters and bounds, and their instructions, kind by kind, to 2 in 100.
"""

import argparse
import collections
import ctypes
import hashlib
import pathlib
import re
import subprocess
import sys
import typing
import venv
from concurrent.futures import ThreadPoolExecutor

KERNELS = pathlib.Path(__file__).resolve().parent
ENVIRONMENT = KERNELS.parent / "target" / "kernels-venv"
PACKAGES = ["nvidia-cuda-nvrtc-cu11==11.8.89", "nvidia-cuda-nvcc-cu12==12.9.86"]
# Each family's precisions; "" for a family that is the same in all. Its source is FAMILY.cu in one of the folders.
FAMILIES = {
    "adam": [""],
    "batch_norm": ["bf16", "f32"],
    "conv": ["bf16", "tf32", "f32"],
    "dense": ["tf32", "f32"],
    "depthwise": ["bf16", "f32"],
    "image": ["bf16", "f32"],
    "loss": [""],
    "memory": [""],
    "pool": ["bf16", "f32"],
}


class Target(typing.NamedTuple):
    """What a multiprocessor holds, from the table "Technical Specifications per Compute Capability" of the CUDA C++
    Programming Guide."""

    shared: int  # bytes of shared memory, for the blocks on it together
    block_shared: int  # bytes of it that one block may ask for
    threads: int
    blocks: int
    registers: int = 65536


TARGETS = {
    "sm_80": Target(164 * 1024, 163 * 1024, 2048, 32),
    "sm_86": Target(100 * 1024, 99 * 1024, 1536, 16),
    "sm_89": Target(100 * 1024, 99 * 1024, 1536, 24),
    "sm_90": Target(228 * 1024, 227 * 1024, 2048, 32),
    "sm_100": Target(228 * 1024, 227 * 1024, 2048, 32),
    "sm_120": Target(100 * 1024, 99 * 1024, 1536, 24),
}
# Bytes of shared memory that a block takes beside its own: the driver's, on every target here.
RESERVED = 1024


def install():
    """The compilers' site-packages, installed if they are not there in these versions."""
    stamp = ENVIRONMENT / "installed"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != "\n".join(PACKAGES):
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, *PACKAGES], check=True)
        stamp.write_text("\n".join(PACKAGES))
    return next(ENVIRONMENT.glob("lib/python*/site-packages/nvidia"))


def sources(path, seen):
    """Adds a source and what it includes to `seen`, in the order in which the compiler meets them. Includes name files by
    their path in kernels/."""
    if path not in seen:
        seen.append(path)
        for name in re.findall(r'^#include "(.*)"', path.read_text(encoding="utf-8"), re.MULTILINE):
            sources(KERNELS / name, seen)
    return seen


def digest(path, options):
    """The first line of a PTX file: what it was made of, and by what."""
    found = hashlib.sha256("\0".join([PACKAGES[0], *options]).encode())
    for source in sources(path, []):
        found.update(str(source.relative_to(KERNELS)).encode() + b"\0" + source.read_bytes() + b"\0")
    return f"// kernels/build.py, {PACKAGES[0]}, sources {found.hexdigest()}"


def anatomy(ptx):
    """Each kernel's parameters and bounds, and how many instructions of each kind it has."""
    kernels = {}
    for declaration, body in re.findall(r"^(\.visible \.entry (?:.|\n)*?)^\{\n((?:.|\n)*?)^\}", ptx, re.MULTILINE):
        opcodes = re.findall(r"^\t(?:@!?%p\d+ )?([a-z][\w.:]*)", body, re.MULTILINE)
        kernels[declaration] = collections.Counter(opcodes)
    return kernels


def equivalent(one, other):
    """Whether two PTX files are the same program, as far as the compiler's moods go."""
    if one.split("\n", 1)[0] != other.split("\n", 1)[0]:
        return False
    one, other = anatomy(one), anatomy(other)
    if one.keys() != other.keys():
        return False
    different = lambda a, b: sum(((a - b) + (b - a)).values())
    return all(50 * different(one[kernel], other[kernel]) <= one[kernel].total() for kernel in one)


class Nvrtc:
    def __init__(self, packages):
        self.library = ctypes.CDLL(str(packages / "cuda_nvrtc" / "lib" / "libnvrtc.so.11.2"))

    def text(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, text)
        return text.value.decode()

    def compile(self, family, precision):
        path = next(KERNELS.glob(f"*/{family}.cu"))
        options = ["--gpu-architecture=compute_80", "--std=c++17"]
        options += [f"-DPRECISION_{precision.upper()}"] if precision else []
        head = digest(path, options)
        options += [f"-I{KERNELS}"]
        program = ctypes.c_void_p()
        self.library.nvrtcCreateProgram(ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None)
        array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        failed = self.library.nvrtcCompileProgram(program, len(options), array)
        log = self.text(program, "ProgramLog").strip()
        if failed or log:
            raise SystemExit(f"{path.name} for {precision or 'every precision'}:\n{log}")
        # The compiler ends lines in blanks here and there.
        return "\n".join([head, *(line.rstrip() for line in self.text(program, "PTX").splitlines())]) + "\n"


def resources(ptxas, path, target):
    """What ptxas says of each kernel of a PTX file: name -> (registers, static shared bytes, local bytes: stack, spills)."""
    command = [ptxas, "--verbose", f"--gpu-name={target}", path, "--output-file", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ptxas refuses {path.name} for {target}:\n{done.stderr}")
    kernels, name, stack = {}, None, 0
    for line in done.stderr.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            name, stack = found[1], 0
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack = sum(map(int, found.groups()))
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            # With those of the functions that it calls.
            stacks = re.search(r"(\d+) bytes cumulative stack size", line)
            local = max(stack, int(stacks[1]) if stacks else 0)
            kernels[name] = (int(found[1]), int(shared[1]) if shared else 0, local)
    return kernels


def threads(ptx):
    """Threads a block of each kernel, by its launch bounds."""
    found = re.findall(r"\.entry (\w+)\((?:.|\n)*?\)\n((?:\.\w+ .*\n)*)", ptx)
    return {name: int(re.search(r"\.maxntid (\d+)", bounds)[1]) for name, bounds in found}


def dynamic_shared(ptx):
    """Bytes of dynamic shared memory that a kernel is launched with, where it says so by SHARED_BYTES."""
    return {name: int(size) for name, size in re.findall(r"\.const .*\.u32 (\w+)_shared_bytes = (\d+);", ptx)}


def blocks(target, registers, shared, size):
    """Blocks of a kernel that a multiprocessor holds at once; 0 if it can't hold one."""
    if shared > target.block_shared:
        return 0
    warps = -(-size // 32)
    by_registers = target.registers // (-(-registers * 32 // 256) * 256 * warps)
    return min(by_registers, target.shared // (shared + RESERVED), target.threads // (warps * 32), target.blocks)


def table(ptxas, files):
    """RESOURCES.md."""
    jobs = [(file, target) for file in files for target in TARGETS]
    with ThreadPoolExecutor() as pool:
        found = dict(zip(jobs, pool.map(lambda job: resources(ptxas, *job), jobs)))
    lines = [
        "# What the kernels take of a multiprocessor",
        "",
        "Made by `python3 kernels/build.py`, from ptxas 12.9; do not edit. For each target registers a thread, and blocks that a",
        "multiprocessor holds at once (threads of these in percent of what it can hold). Shared memory is static plus dynamic bytes a block;",
        "a multiprocessor takes 1 KB more for each. No kernel has local memory, be it a stack or spills, and none asks for more shared memory",
        "than a block may have: the script refuses one that does, on any target.",
        "",
        "| PTX | kernel | threads | shared | " + " | ".join(TARGETS) + " |",
        "| --- | --- | ---: | ---: |" + " ---: |" * len(TARGETS),
    ]
    refused = []
    for file in files:
        ptx = file.read_text(encoding="utf-8")
        size, dynamic = threads(ptx), dynamic_shared(ptx)
        for name in sorted(size):
            cells = []
            for name_of, target in TARGETS.items():
                registers, static, stack = found[file, name_of][name]
                shared = static + dynamic.get(name, 0)
                if stack:
                    refused.append(f"{file.name}: {name} has {stack} bytes of local memory, stack or spills, on {name_of}")
                count = blocks(target, registers, shared, size[name])
                cells.append(f"{registers}, {count} ({100 * count * size[name] // target.threads} %)")
                if count == 0:
                    refused.append(f"{file.name}: {name} does not fit {name_of}")
            lines.append(f"| {file.stem} | `{name}` | {size[name]} | {shared} | " + " | ".join(cells) + " |")
    if refused:
        raise SystemExit("\n".join(refused))
    return "\n".join(lines) + "\n"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("families", nargs="*", choices=[[], *FAMILIES], help="only these, and no table")
    arguments.add_argument("--check", action="store_true", help="compare instead of writing")
    options = arguments.parse_args()
    packages = install()
    nvrtc = Nvrtc(packages)
    stale, files = [], []

    def settle(path, text, same):
        if path.exists() and same(path.read_text(encoding="utf-8"), text):
            return
        if options.check:
            stale.append(path.relative_to(KERNELS.parent))
        else:
            path.write_text(text, encoding="utf-8")

    for family in options.families or FAMILIES:
        for precision in FAMILIES[family]:
            path = KERNELS / "ptx" / ".".join(filter(None, [family, precision, "ptx"]))
            settle(path, nvrtc.compile(family, precision), equivalent)
            files.append(path)
    if not options.families:
        settle(KERNELS / "RESOURCES.md", table(packages / "cuda_nvcc" / "bin" / "ptxas", files), str.__eq__)
    if stale:
        sys.exit("not what kernels/build.py makes: " + ", ".join(map(str, stale)) + "; run it and commit the result")


if __name__ == "__main__":
    main()
