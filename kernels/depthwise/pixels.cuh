// Filters of any size, stride and alignment, one element at a time: each pixel looks for its taps, which come from L1 and
// L2. No network here needs it at speed.
#pragma once

#include "conv/geometry.cuh"
#include "depthwise/ends.cuh"

struct Filter {
    int h, w, r, s, stride, pad, p, q;
    Divisor by_height, by_width; // of the pixels that are walked over
    Divisor by_stride;
};

// A pixel, as numbered through all images.
struct Pixel {
    int image, row, column;

    __device__ __forceinline__ Pixel(const Filter& a, int number) {
        int rest;
        a.by_width.split(number, rest, column);
        a.by_height.split(rest, image, row);
    }
};

template <typename Source, typename End>
__device__ __forceinline__ void gather(const Filter& a, const Walk<element>& walk, const Source& source, End& end,
                                       const float* w) {
    for (int number = walk.first; number < walk.rows; number += walk.step) {
        const Pixel at(a, number);
        const auto beside = end.load(walk, number);
        float sum[1] = {};
        for (int r = 0; r < a.r; ++r) {
            const int h = at.row * a.stride - a.pad + r;
            for (int s = 0; s < a.s; ++s) {
                const int column = at.column * a.stride - a.pad + s;
                if (h < 0 || h >= a.h || column < 0 || column >= a.w) continue;
                float x[1];
                source.pay(source.load(walk, (at.image * a.h + h) * a.w + column), x);
                sum[0] = fmaf(x[0], w[walk.index(r * a.s + s)], sum[0]);
            }
        }
        end.store(walk, number, beside, sum);
    }
}

template <typename Source, typename End>
__device__ __forceinline__ void scatter(const Filter& a, const Walk<element>& walk, const Source& source, End& end,
                                        const float* w) {
    for (int number = walk.first; number < walk.rows; number += walk.step) {
        const Pixel at(a, number);
        const auto beside = end.load(walk, number);
        float sum[1] = {};
        for (int r = 0; r < a.r; ++r) {
            int p, q, rest;
            if (at.row + a.pad < r) break;
            a.by_stride.split(at.row + a.pad - r, p, rest);
            if (rest != 0 || p >= a.p) continue;
            for (int s = 0; s < a.s; ++s) {
                if (at.column + a.pad < s) break;
                a.by_stride.split(at.column + a.pad - s, q, rest);
                if (rest != 0 || q >= a.q) continue;
                float dy[1];
                source.pay(source.load(walk, (at.image * a.p + p) * a.q + q), dy);
                sum[0] = fmaf(dy[0], w[walk.index(r * a.s + s)], sum[0]);
            }
        }
        end.store(walk, number, beside, sum);
    }
}

// Of one tap.
template <typename Source, typename Slope>
__device__ __forceinline__ float correlate(const Filter& a, const Walk<element>& walk, const Source& source,
                                           const Slope& slope, int r, int s) {
    float sum = 0.0f;
    for (int number = walk.first; number < walk.rows; number += walk.step) {
        const Pixel at(a, number);
        const int h = at.row * a.stride - a.pad + r, column = at.column * a.stride - a.pad + s;
        if (h < 0 || h >= a.h || column < 0 || column >= a.w) continue;
        float x[1], dy[1];
        source.pay(source.load(walk, (at.image * a.h + h) * a.w + column), x);
        slope.pay(slope.load(walk, number), dy);
        sum = fmaf(x[0], dy[0], sum);
    }
    return sum;
}
