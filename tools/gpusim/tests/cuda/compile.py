"""Compiles every .cu file beside this script to ../ptx with NVRTC, without a GPU.

    pip install nvidia-cuda-nvrtc-cu12==12.9.86
    python3 compile.py
"""

import ctypes
import pathlib
import site
import sys

HERE = pathlib.Path(__file__).parent


def nvrtc():
    for root in site.getsitepackages():
        for path in pathlib.Path(root).glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.12"):
            return ctypes.CDLL(str(path))
    sys.exit("install nvidia-cuda-nvrtc-cu12 first")


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


# What needs more than Ampere.
HOPPER = ["hopper", "tensor_map"]


def main():
    library = nvrtc()
    for path in sorted(HERE.glob("*.cu")):
        compile_file(library, path, "compute_90a" if path.stem in HOPPER else "compute_80")


main()
