"""Compiles every .cu file beside this script to ../ptx with NVRTC, without a GPU, and has ptxas say what registers the
kernels of one of them get.

    pip install nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-nvcc-cu12==12.9.86
    python3 compile.py
"""

import ctypes
import pathlib
import site
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def installed(name):
    for root in site.getsitepackages():
        for path in pathlib.Path(root).glob(f"nvidia/{name}"):
            return str(path)
    sys.exit(f"no {name}: see above for what to install")


def nvrtc():
    return ctypes.CDLL(installed("cuda_nvrtc/lib/libnvrtc.so.12"))


def compile_file(library, path, architecture):
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None)
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17", f"--include-path={HERE}".encode()]
    failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    if failed:
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        sys.exit(log.value.decode())
    library.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    library.nvrtcGetPTX(program, ptx)
    (HERE.parent / "ptx" / f"{path.stem}.ptx").write_bytes(ptx.value)


def list_resources(stem, architecture):
    command = [installed("cuda_nvcc/bin/ptxas"), "-v", f"-arch={architecture}", f"{stem}.ptx", "-o", "/dev/null"]
    done = subprocess.run(command, cwd=HERE.parent / "ptx", capture_output=True, text=True, check=True)
    # How long it took is another each time.
    lines = [line for line in done.stderr.splitlines(keepends=True) if "Compile time" not in line]
    (HERE.parent / "ptx" / f"{stem}.resources").write_text("".join(lines))


# What needs more than Ampere.
HOPPER = ["hopper", "tensor_map"]


def main():
    library = nvrtc()
    for path in sorted(HERE.glob("*.cu")):
        compile_file(library, path, "compute_90a" if path.stem in HOPPER else "compute_80")
    list_resources("hopper", "sm_90a")


main()
