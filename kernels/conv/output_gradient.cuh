// The gradient of a convolution's output: forming the one that a batch norm owes, and summing it into the bias's.
//
// Both walk a matrix of rows of channels, a row a pixel (rows.cuh). Launch contract: block 256, grid (slices of
// channels, blocks that share the rows), as in batch_norm.cu; no dynamic shared memory.
#pragma once

#include "primitives/rows.cuh"

// dy = k0[c] * dz + k1[c] * y + k2[c], elementwise. Floor: the bytes of three tensors. More rows a block repay the
// loads of k.
struct ConvFormGradient {
    element* dy;        // [rows][channels]
    const element* dz;  // [rows][channels]
    const element* y;   // [rows][channels]
    const float* k;     // [3][channels]
    WalkShape shape;
};

// dbias[c] += sum of dy over rows. Floor: the bytes of dy.
struct ConvBackwardBias {
    float* dbias;       // [channels]
    const element* dy;  // [rows][channels]
    float* partials;    // [gridDim.y][channels]
    unsigned* tickets;  // [gridDim.x], zero
    WalkShape shape;
};

namespace output_gradient {

template <typename Group> __device__ __forceinline__ void form(const ConvFormGradient& a, Scratch& scratch) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    Walk<Group> walk(a.shape);
    float k[3][WIDTH];
    walk.load_channels(k, {a.k, a.k + walk.channels, a.k + 2 * walk.channels}, scratch);
    walk.template each_row<2>({a.dz, a.y}, [&](int row, const Group(&group)[2]) {
        float dz[WIDTH], y[WIDTH];
        unpack(group[0], dz);
        unpack(group[1], y);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) dz[j] = fmaf(k[0][j], dz[j], fmaf(k[1][j], y[j], k[2][j]));
        walk.store(a.dy, row, dz);
    });
}

template <typename Group> __device__ __forceinline__ void bias(const ConvBackwardBias& a, Scratch& scratch) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    Walk<Group> walk(a.shape);
    float sums[1][WIDTH] = {};
    walk.template each_row<1>({a.dy}, [&](int, const Group(&group)[1]) {
        float dy[WIDTH];
        unpack(group[0], dy);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) sums[0][j] += dy[j];
    });
    walk.add_up(sums, a.partials, a.tickets, scratch, [&](int, int channel, float sum) { a.dbias[channel] += sum; });
}

}  // namespace output_gradient
