// What the depthwise convolutions read and write, with what is fused to it: for a thread's channels of one pixel.
#pragma once

#include "primitives/rows.cuh"

// Floats that are to be loaded but may be absent, a vector each channel; then they are `instead`. Ends with a barrier.
template <typename Group, int N>
__device__ __forceinline__ void load_or(float (&x)[N][Walk<Group>::WIDTH], const float* from, const float (&instead)[N],
                                        const Walk<Group>& walk, Scratch& scratch) {
    if (from) {
        const float* vectors[N];
#pragma unroll
        for (int i = 0; i < N; ++i) vectors[i] = from + i * walk.channels;
        walk.load_channels(x, vectors, scratch);
        __syncthreads();
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) {
#pragma unroll
            for (int j = 0; j < Walk<Group>::WIDTH; ++j) x[i][j] = instead[i];
        }
    }
}

// The input: activation(scale*x + shift), or x where `norm` is null; the bounds are infinite then.
struct InputArguments {
    const element* x;
    const float* norm;
    Bounds bounds;
};

template <typename Group> struct Input {
    static constexpr int WIDTH = Walk<Group>::WIDTH;
    using Raw = Group;

    const element* x;
    Bounds bounds;
    float norm[2][WIDTH];

    __device__ __forceinline__ Input(const InputArguments& a, const Walk<Group>& walk, Scratch& scratch)
        : x(a.x), bounds(a.bounds) {
        load_or(norm, a.norm, {1.0f, 0.0f}, walk, scratch);
    }
    __device__ __forceinline__ Raw load(const Walk<Group>& walk, int pixel) const { return walk.load(x, pixel); }
    __device__ __forceinline__ void pay(const Raw& raw, float (&value)[WIDTH]) const {
        unpack(raw, value);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) value[j] = bounded(fmaf(norm[0][j], value[j], norm[1][j]), bounds);
    }
};

// The output's gradient: k0*dz + k1*y + k2, or dz where `y` and `k` are null.
struct GradientArguments {
    const element* dz;
    const element* y;
    const float* k;
};

template <typename Group> struct Gradient {
    static constexpr int WIDTH = Walk<Group>::WIDTH;
    struct Raw {
        Group dz, y;
    };

    const element *dz, *y;
    float k[3][WIDTH];

    __device__ __forceinline__ Gradient(const GradientArguments& a, const Walk<Group>& walk, Scratch& scratch)
        : dz(a.dz), y(a.y) {
        load_or(k, a.k, {1.0f, 0.0f, 0.0f}, walk, scratch);
    }
    __device__ __forceinline__ Raw load(const Walk<Group>& walk, int pixel) const {
        return Raw{walk.load(dz, pixel), y ? walk.load(y, pixel) : Group{}};
    }
    __device__ __forceinline__ void pay(const Raw& raw, float (&value)[WIDTH]) const {
        float beside[WIDTH];
        unpack(raw.dz, value);
        unpack(raw.y, beside);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) value[j] = fmaf(k[0][j], value[j], fmaf(k[1][j], beside[j], k[2][j]));
    }
};

// What storing leaves of a number.
template <int WIDTH> __device__ __forceinline__ void round_off(float (&x)[WIDTH]) {
    if constexpr (WIDTH == 1) x[0] = widen(narrow<element>(x[0]));
    else unpack(pack(x), x);
}

// The output, and its moments if they are wanted.
struct OutputArguments {
    element* y;
    float* stats;      // [2, C]: mean, biased variance; or null
    float* partials;   // [row blocks][3][C]
    unsigned* tickets; // [slices], zero
};

template <typename Group> struct Output {
    static constexpr int WIDTH = Walk<Group>::WIDTH;
    struct Beside {};

    element* y;
    bool wants_stats;
    Running<WIDTH> seen;

    __device__ __forceinline__ explicit Output(const OutputArguments& a) : y(a.y), wants_stats(a.stats) {}
    __device__ __forceinline__ Beside load(const Walk<Group>&, int) const { return Beside{}; }
    __device__ __forceinline__ void store(const Walk<Group>& walk, int pixel, Beside, float (&x)[WIDTH]) {
        if (wants_stats) {
            round_off(x);
            float share = seen.begin();
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) seen.add(j, x[j], share);
        }
        walk.store(y, pixel, x);
    }
    __device__ __forceinline__ void finish(const OutputArguments& a, const Walk<Group>& walk, Scratch (&scratch)[2]) {
        if (!wants_stats) return;
        walk.merge_up(seen, a.partials, a.tickets, scratch, [&](int channel, float mean, float variance) {
            a.stats[channel] = mean;
            a.stats[walk.channels + channel] = variance;
        });
    }
};

// The input's gradient: the old one added if it is asked for, then, if `sums`, dz = total where the activation in front
// lets it pass, and sums = (sum dz, sum dz*(y - mean)).
struct InputGradientArguments {
    element* dx;
    float* sums;       // [2, C], or null with `y` and `norm`
    const element* y;  // the raw activation in front
    const float* norm; // [4, C]
    float* partials;   // [row blocks][2][C]
    unsigned* tickets; // [slices], zero
    Stops stops;
    int accumulate;
};

template <typename Group> struct InputGradient {
    static constexpr int WIDTH = Walk<Group>::WIDTH;
    struct Beside {
        Group old, y;
    };

    element* dx;
    const element* y;
    bool accumulate;
    Stops stops;
    // Scale, shift and mean of the thread's channels lie in shared memory: once a stored pixel is seldom enough.
    const float* norm;
    float sums[2][WIDTH] = {};

    __device__ __forceinline__ InputGradient(const InputGradientArguments& a, const Walk<Group>& walk,
                                             float (&shared)[3 * MAX_SPAN])
        : dx(a.dx), y(a.y), accumulate(a.accumulate), stops(a.stops), norm(shared + walk.own) {
        if (!y) return;
        if (threadIdx.x < walk.width()) {
#pragma unroll
            for (int i = 0; i < 3; ++i) {
                shared[i * MAX_SPAN + threadIdx.x] = a.norm[i * walk.channels + walk.base + threadIdx.x];
            }
        }
        __syncthreads();
    }
    __device__ __forceinline__ Beside load(const Walk<Group>& walk, int pixel) const {
        return Beside{accumulate ? walk.load(dx, pixel) : Group{}, y ? walk.load(y, pixel) : Group{}};
    }
    __device__ __forceinline__ void store(const Walk<Group>& walk, int pixel, const Beside& beside, float (&x)[WIDTH]) {
        float other[WIDTH];
        if (accumulate) {
            unpack(beside.old, other);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) x[j] += other[j];
        }
        if (y) {
            float scale[WIDTH], shift[WIDTH], mean[WIDTH];
            read(scale, norm);
            read(shift, norm + MAX_SPAN);
            read(mean, norm + 2 * MAX_SPAN);
            unpack(beside.y, other);
            round_off(x);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) {
                x[j] = mask(x[j], fmaf(scale[j], other[j], shift[j]), stops);
                sums[0][j] += x[j];
                sums[1][j] = fmaf(x[j], other[j] - mean[j], sums[1][j]);
            }
        }
        walk.store(dx, pixel, x);
    }
    __device__ __forceinline__ void finish(const InputGradientArguments& a, const Walk<Group>& walk, Scratch& scratch) {
        if (!y) return;
        walk.add_up(sums, a.partials, a.tickets, scratch,
                    [&](int i, int channel, float sum) { a.sums[i * walk.channels + channel] = sum; });
    }
};
