// One kernel by itself: the forward convolution on tensor cores in bfloat16, in its tile of 128 pixels x 128 filters, beside
// a kernel that computes the same in plain loops. For whoever changes the main loop and wants no Rust meanwhile:
//
//     nvcc -O3 -std=c++17 -arch=sm_80 -Ikernels kernels/try.cu -o try && ./try
//
// prints the largest error, beside what rounding may make of it, and TFLOP/s. Arguments, all or none:
//
//     ./try N H W C K R stride pad        ./try 32 19 19 128 128 3 1 1 unless told
//
// Checked without nvcc, which the project's machines do not have: the kernels compile with NVRTC, as those that ship do, and
// agree with one another on the simulated GPU; the host's part compiles with g++ against the headers of CUDA 12.
#define PRECISION_BF16
#include "conv/ampere/passes.cuh"

using Tile = ampere::ProductTile<128, 128, 64, 64>;

extern "C" __global__ void __launch_bounds__(Tile::THREADS, 2) tiled(const __grid_constant__ ConvForward a) {
    tensor_forward<Tile, false>(a);
}

// y as by the formula in conv/geometry.cuh, a thread for each of its numbers; in float, and not rounded.
extern "C" __global__ void __launch_bounds__(256) naive(float* y, const element* x, const element* w, ConvGeometry g) {
    long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= (long long)g.n * g.p * g.q * g.k) return;
    int k = int(at % g.k), q = int(at / g.k % g.q), p = int(at / g.k / g.q % g.p), n = int(at / g.k / g.q / g.p);
    float sum = 0.0f;
    for (int r = 0; r < g.r; ++r) {
        for (int s = 0; s < g.s; ++s) {
            int h = p * g.stride - g.pad + r, v = q * g.stride - g.pad + s;
            if (h < 0 || h >= g.h || v < 0 || v >= g.w) continue;
            for (int c = 0; c < g.c; ++c) {
                sum += widen(x[((n * g.h + h) * g.w + v) * g.c + c]) * widen(w[((k * g.r + r) * g.s + s) * g.c + c]);
            }
        }
    }
    y[at] = sum;
}

// NVRTC compiles kernels only.
#ifndef __CUDACC_RTC__
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static void check(cudaError_t error, const char* call) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
    std::exit(1);
}
#define CHECK(call) check(call, #call)

static Divisor divisor(int by) {
    unsigned shift = 0;
    while ((1ull << shift) < unsigned(by)) ++shift;
    unsigned long long multiplier = ((1ull << (31 + shift)) + by - 1) / by;
    return Divisor{by, by == 1 ? 0u : unsigned(multiplier), shift};
}

// Multiples of 1/8 between -1 and 1, which bfloat16 holds exactly, so that only the result is rounded.
static std::vector<element> operand(size_t length, unsigned seed) {
    std::vector<element> numbers(length);
    for (element& number : numbers) {
        seed = seed * 1664525u + 1013904223u;
        float value = float(int(seed >> 24) % 17 - 8) / 8.0f;
        unsigned bits;
        std::memcpy(&bits, &value, sizeof bits);
        number.bits = static_cast<unsigned short>(bits >> 16);
    }
    return numbers;
}

template <typename T> static T* device_copy(const std::vector<T>& host) {
    T* device;
    CHECK(cudaMalloc(reinterpret_cast<void**>(&device), host.size() * sizeof(T)));
    CHECK(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
    return device;
}

int main(int count, char** words) {
    int number[8] = {32, 19, 19, 128, 128, 3, 1, 1};  // N H W C K R stride pad
    if (count != 1 && count != 9) {
        std::fprintf(stderr, "%s [N H W C K R stride pad]\n", words[0]);
        return 2;
    }
    for (int i = 1; i < count; ++i) number[i - 1] = std::atoi(words[i]);
    const auto [n, h, w, c, k, r, stride, pad] = number;
    if (std::min({n, h, w, c, k, r, stride, pad + 1}) < 1 || c % 8 != 0 || k % 8 != 0 || r > 15 ||
        std::min(h, w) + 2 * pad < r) {
        std::fprintf(stderr, "C and K are multiples of 8, R is at most 15, and the filter fits the image\n");
        return 2;
    }
    const ConvGeometry g{n, h, w, c, k, r, r, stride, pad, (h + 2 * pad - r) / stride + 1, (w + 2 * pad - r) / stride + 1};
    const int pixels = g.n * g.p * g.q;
    const size_t outputs = size_t(pixels) * k;

    const element* x = device_copy(operand(size_t(n) * h * w * c, 1));
    const element* weights = device_copy(operand(size_t(k) * r * r * c, 2));
    element* y = device_copy(std::vector<element>(outputs));
    float* expected = device_copy(std::vector<float>(outputs));

    int tiles = (pixels + Tile::PIXELS - 1) / Tile::PIXELS, column_tiles = (k + Tile::COLUMNS - 1) / Tile::COLUMNS;
    ConvForward arguments{};
    arguments.y = y, arguments.x = x, arguments.w = weights, arguments.shape = g;
    arguments.image = divisor(g.p * g.q), arguments.line = divisor(g.q);
    arguments.tiles = tiles, arguments.column_tiles = column_tiles, arguments.group = tiles;
    arguments.activation = Bounds{-INFINITY, INFINITY};
    void* taken[] = {&arguments};
    const void* kernel = reinterpret_cast<const void*>(tiled);
    CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::SHARED_BYTES));
    auto launch = [&] {
        CHECK(cudaLaunchKernel(kernel, dim3(tiles * column_tiles), dim3(Tile::THREADS), taken, Tile::SHARED_BYTES, nullptr));
    };

    ConvGeometry geometry = g;
    void* naively[] = {&expected, &x, &weights, &geometry};
    const void* reference = reinterpret_cast<const void*>(naive);
    CHECK(cudaLaunchKernel(reference, dim3(unsigned((outputs + 255) / 256)), dim3(256), naively, 0, nullptr));
    launch();

    std::vector<element> found(outputs);
    std::vector<float> wanted(outputs);
    CHECK(cudaMemcpy(found.data(), y, outputs * sizeof(element), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(wanted.data(), expected, outputs * sizeof(float), cudaMemcpyDeviceToHost));
    double worst = 0.0, allowed = 0.0;
    size_t place = 0;
    bool good = true;
    for (size_t i = 0; i < outputs; ++i) {
        unsigned bits = unsigned(found[i].bits) << 16;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        // Half of the last of bfloat16's eight digits, and what the order of a sum in float makes of it.
        double error = std::fabs(double(value) - wanted[i]), most = std::fabs(wanted[i]) / 256.0 + 1e-4 * r * r * c;
        if (!(error <= most)) good = false;
        if (!(error <= worst)) worst = error, allowed = most, place = i;
    }
    std::printf("largest error %.3g, of at most %.3g, at y[%zu]: %s\n", worst, allowed, place, good ? "agrees" : "WRONG");

    // The best of some batches of launches.
    const int launches = 20;
    cudaEvent_t start, end;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&end));
    float best = INFINITY;
    for (int batch = 0; batch < 5; ++batch) {
        CHECK(cudaEventRecord(start, nullptr));
        for (int i = 0; i < launches; ++i) launch();
        CHECK(cudaEventRecord(end, nullptr));
        CHECK(cudaEventSynchronize(end));
        float milliseconds;
        CHECK(cudaEventElapsedTime(&milliseconds, start, end));
        best = std::min(best, milliseconds / launches);
    }
    double flops = 2.0 * double(outputs) * r * r * c;
    std::printf("%.1f us a launch, %.1f TFLOP/s\n", 1e3 * best, flops / best / 1e9);
    return good ? 0 : 1;
}
#endif
