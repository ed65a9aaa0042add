// The statistics that a batch norm wants of an activation, where no convolution took them while storing it.
#pragma once

#include "primitives/partials.cuh"
#include "primitives/rows.cuh"

struct BatchNormStatistics {
    float* stats; // [2, C]: mean, biased variance
    const element* y;
    float* partials; // [row blocks][2][C]
    unsigned* tickets;
    WalkShape shape;
};

// In a fixed order: a thread's rows; then the lines of a block; then the blocks of a column, by whoever of them comes
// last. `table` has room for two floats for each channel of every thread's group.
template <typename Group>
__device__ __forceinline__ void statistics(const BatchNormStatistics& a, float (&table)[2 * THREADS * LANE]) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    Walk<Group> walk(a.shape);
    Running<WIDTH> running;
    walk.template each_row<1>({a.y}, [&](int, const Group(&group)[1]) {
        float x[WIDTH];
        unpack(group[0], x);
        float share = running.begin();
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) running.add(j, x[j], share);
    });

    // Rows of y that the first `lines` lines of the grid own together; and those that each row of a table stands for,
    // which is merged from so many lines, `first` being the table's first.
    auto owned = [&](int lines) {
        lines = min(lines, walk.step);
        return lines * (walk.rows / walk.step) + min(lines, walk.rows % walk.step);
    };
    auto counts = [&](int first, int lines) {
        return [=](int row) { return float(owned(first + (row + 1) * lines) - owned(first + row * lines)); };
    };

    const int line = threadIdx.x / a.shape.columns, width = walk.width(), blocks = gridDim.y;
    if (line < walk.lines) {
        float* row = table + 2 * line * walk.span + walk.own;
        write(row, running.mean);
        write(row + walk.span, running.m2);
    }
    __syncthreads();
    if (threadIdx.x < width) {
        Moments block = merge_rows<Moments>(table + threadIdx.x, walk.span, 0, walk.lines,
                                            counts(blockIdx.y * walk.lines, 1));
        write_partial(a.partials + 2 * blockIdx.y * walk.channels + walk.base + threadIdx.x, walk.channels, block);
    }
    if (!last_block(a.tickets + blockIdx.x, blocks)) return;

    // Several threads share a channel, each with a stretch of the blocks.
    const int ways = THREADS / width, way = threadIdx.x / width, column = threadIdx.x % width;
    const int stretch = (blocks + ways - 1) / ways, from = min(blocks, way * stretch), to = min(blocks, from + stretch);
    if (way < ways) {
        Moments part = merge_rows<Moments>(a.partials + walk.base + column, walk.channels, from, to,
                                           counts(0, walk.lines));
        write_partial(table + 2 * way * width + column, width, part);
    }
    __syncthreads();
    if (threadIdx.x < width) {
        Moments all = merge_rows<Moments>(table + column, width, 0, ways, counts(0, stretch * walk.lines));
        write_result(a.stats + walk.base + column, walk.channels, all);
    }
}

// stats = (mean, biased variance) of y. Launch contract: that of the reductions in batch_norm.cu. Floor: M*C.
extern "C" __global__ void __launch_bounds__(256, 2)
    batch_norm_statistics(const __grid_constant__ BatchNormStatistics a) {
    __shared__ alignas(16) float table[2 * THREADS * LANE];
    if (a.shape.wide) statistics<Quad>(a, table);
    else statistics<element>(a, table);
}
