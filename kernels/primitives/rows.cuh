// A matrix of rows of channels (an NHWC activation: a row a pixel), and a grid that walks it with every thread on its
// own channels all the way down, so that what belongs to a channel (scale, shift, running sums) stays in registers.
//
// A thread owns a group of neighbouring channels: a Quad, 16 bytes of them, or one element where C or an address is no
// multiple of that. A block is `columns` groups across, at most 16, so that a row of it is 256 contiguous bytes, and
// THREADS / columns lines down. Block (x, y) owns the groups from x * columns on, and the rows from y * lines on in steps
// of gridDim.y * lines.
#pragma once

#include "primitives/element.cuh"
#include "primitives/partials.cuh"
#include "primitives/reduce.cuh"

// Threads a block: fewer in a family that says so before this is included, for those hold more in registers.
#ifndef ROWS_THREADS
#define ROWS_THREADS 256
#endif
constexpr int THREADS = ROWS_THREADS;
// Channels across a block.
constexpr int MAX_SPAN = 16 * LANE;
// Rows a thread loads before it stores the first: enough bytes under way to keep memory busy.
constexpr int UNROLL = 2;
// Shared memory that the functions below work in: a group of floats a thread.
struct alignas(16) Scratch {
    float x[THREADS * LANE];
};

// What a walk is told: the matrix, and how a block lies across it.
struct WalkShape {
    int rows, channels;
    int columns;
    int wide; // groups are Quads
};

// Neighbouring floats, by 16 bytes where they are that many.
template <int M> __device__ __forceinline__ void read(float (&x)[M], const float* from) {
    if constexpr (M % 4 == 0) {
#pragma unroll
        for (int i = 0; i < M; i += 4) {
            Quad quad = load_quad(from + i);
#pragma unroll
            for (int j = 0; j < 4; ++j) x[i + j] = __uint_as_float(quad.word[j]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < M; ++i) x[i] = from[i];
    }
}
template <int M> __device__ __forceinline__ void write(float* to, const float (&x)[M]) {
    if constexpr (M % 4 == 0) {
#pragma unroll
        for (int i = 0; i < M; i += 4) {
            *reinterpret_cast<Quad*>(to + i) = pack({x[i], x[i + 1], x[i + 2], x[i + 3]});
        }
    } else {
#pragma unroll
        for (int i = 0; i < M; ++i) to[i] = x[i];
    }
}

// The elements of a group of one, as those of a Quad.
__device__ __forceinline__ void unpack(const element& group, float (&x)[1]) { x[0] = widen(group); }

// A thread's place in the matrix.
template <typename Group> struct Walk {
    static constexpr int WIDTH = sizeof(Group) / sizeof(element);

    int rows, channels;
    int span;    // channels across the block
    int base;    // its first channel
    int own;     // the thread's first channel, counted from there
    int lines;   // rows down the block
    int first;   // the thread's first row; `rows` for those with nothing to do
    int step;    // from one of its rows to the next

    // Of `part` of `parts` equal ones that the rows are dealt to.
    __device__ __forceinline__ explicit Walk(const WalkShape& shape, unsigned part = blockIdx.y, unsigned parts = gridDim.y)
        : rows(shape.rows), channels(shape.channels) {
        int line = threadIdx.x / shape.columns;
        span = shape.columns * WIDTH;
        base = blockIdx.x * span;
        own = (threadIdx.x - line * shape.columns) * WIDTH;
        lines = THREADS / shape.columns;
        first = line < lines && base + own < channels ? part * lines + line : rows;
        step = parts * lines;
    }

    // Channels across the block that there are.
    __device__ __forceinline__ int width() const { return min(span, channels - base); }

    // Where the thread's group of a row is.
    __device__ __forceinline__ int index(int row) const { return row * channels + base + own; }

    __device__ __forceinline__ Group load(const element* matrix, int row) const {
        const element* from = matrix + index(row);
        if constexpr (WIDTH == 1) return *from;
        else return load_quad(from);
    }
    __device__ __forceinline__ void store(element* matrix, int row, const float (&x)[WIDTH]) const {
        element* to = matrix + index(row);
        if constexpr (WIDTH == 1) *to = narrow<element>(x[0]);
        else *reinterpret_cast<Quad*>(to) = pack(x);
    }

    // Hands each of the thread's rows to `body(row, groups)`, with the thread's group of it in each of N activations. The
    // loads of AHEAD rows go out before `body` sees the first of them: what it stores might overlap the next row's
    // loads, for all that the compiler knows.
    template <int N, int AHEAD = UNROLL, typename Body>
    __device__ __forceinline__ void each_row(const element* const (&activations)[N], Body body) const {
        for (int row = first; row < rows; row += AHEAD * step) {
            Group groups[AHEAD][N];
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                if (row + i * step < rows) {
#pragma unroll
                    for (int n = 0; n < N; ++n) groups[i][n] = load(activations[n], row + i * step);
                }
            }
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                if (row + i * step < rows) body(row + i * step, groups[i]);
            }
        }
    }

    // The thread's channels of N vectors of C floats: loaded by the block side by side, whatever their alignment, and
    // handed out through shared memory.
    template <int N>
    __device__ __forceinline__ void load_channels(float (&x)[N][WIDTH], const float* const (&vectors)[N],
                                                  Scratch& scratch) const {
        static_assert(N * MAX_SPAN <= THREADS * LANE, "vectors do not fit the scratch");
        if (threadIdx.x < width()) {
#pragma unroll
            for (int i = 0; i < N; ++i) scratch.x[i * MAX_SPAN + threadIdx.x] = vectors[i][base + threadIdx.x];
        }
        __syncthreads();
        if (first < rows) {
#pragma unroll
            for (int i = 0; i < N; ++i) read(x[i], scratch.x + i * MAX_SPAN + own);
        }
    }

    // Adds up N sums a channel over the whole grid, in an order that depends on the geometry alone: a thread's rows are
    // in `sums`; then the lines of a block, one after the other; then the blocks of a column by whoever of them comes
    // last. Calls `store(i, channel, sum)` once for each. `partials` has room for [gridDim.y][N][C] and, if groups are
    // Quads, is aligned to 16 bytes.
    template <int N, typename Store>
    __device__ __forceinline__ void add_up(const float (&sums)[N][WIDTH], float* partials, unsigned* tickets,
                                           Scratch& scratch, Store store) const {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            float total = add_lines(sums[i], lines, span, scratch);
            if (threadIdx.x < width()) partials[(blockIdx.y * N + i) * channels + base + threadIdx.x] = total;
        }
        if (!last_block(tickets + blockIdx.x, gridDim.y)) return;

        // The partial rows are floats, so four make 16 bytes, and the block stands in another shape before them.
        constexpr int FOUR = WIDTH == 1 ? 1 : 4;
        int across = width() / FOUR;
        int deep = THREADS / across;
        int depth = threadIdx.x / across;
        int column = (threadIdx.x - depth * across) * FOUR;
        float total[N][FOUR] = {};
        constexpr int AHEAD = N > 4 ? 1 : 4; // blocks whose partial sums are under way together
        for (unsigned block = depth < deep ? depth : gridDim.y; block < gridDim.y; block += AHEAD * deep) {
            float x[AHEAD][N][FOUR] = {};
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) {
                if (block + u * deep < gridDim.y) {
#pragma unroll
                    for (int i = 0; i < N; ++i) {
                        read(x[u][i], partials + ((block + u * deep) * N + i) * channels + base + column);
                    }
                }
            }
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) {
#pragma unroll
                for (int i = 0; i < N; ++i) {
#pragma unroll
                    for (int j = 0; j < FOUR; ++j) total[i][j] += x[u][i][j];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            float sum = add_lines(total[i], deep, width(), scratch);
            if (threadIdx.x < width()) store(i, base + threadIdx.x, sum);
        }
    }

    // Mean and biased variance of each channel over the whole grid, merged in that same order. How many numbers a thread
    // has seen is its own matter. Calls `store(channel, mean, variance)` once for each channel; `partials` has room for
    // [gridDim.y][3][C].
    template <typename Store>
    __device__ __forceinline__ void merge_up(const Running<WIDTH>& seen, float* partials, unsigned* tickets,
                                             Scratch (&scratch)[2], Store store) const {
        __shared__ float counts[THREADS];
        const int line = threadIdx.x * WIDTH / span, column = threadIdx.x;
        __syncthreads();
        write(scratch[0].x + threadIdx.x * WIDTH, seen.mean);
        write(scratch[1].x + threadIdx.x * WIDTH, seen.m2);
        if (own == 0) counts[line] = seen.count;
        __syncthreads();
        float* part = partials + 3 * blockIdx.y * channels + base;
        if (column < width()) {
            Moments all{};
            for (int i = 0; i < lines; ++i) {
                const int at = i * span + column;
                all = merge(all, Moments{counts[i], scratch[0].x[at], scratch[1].x[at]});
            }
            part[column] = all.count, part[channels + column] = all.mean, part[2 * channels + column] = all.m2;
        }
        if (!last_block(tickets + blockIdx.x, gridDim.y)) return;

        // Several threads share a channel, each with its stretch of the blocks.
        const int ways = THREADS / width(), way = threadIdx.x / width(), shared = threadIdx.x - way * width();
        const int blocks = gridDim.y, stretch = (blocks + ways - 1) / ways;
        float *means = scratch[0].x, *m2s = scratch[1].x;
        if (way < ways) {
            Moments all{};
#pragma unroll 4
            for (int block = way * stretch; block < min(blocks, (way + 1) * stretch); ++block) {
                const float* from = partials + 3 * block * channels + base + shared;
                all = merge(all, Moments{from[0], from[channels], from[2 * channels]});
            }
            counts[threadIdx.x] = all.count, means[threadIdx.x] = all.mean, m2s[threadIdx.x] = all.m2;
        }
        __syncthreads();
        if (column < width()) {
            Moments all{};
            for (int i = 0; i < ways; ++i) {
                const int at = i * width() + column;
                all = merge(all, Moments{counts[at], means[at], m2s[at]});
            }
            store(base + column, all.mean, all.m2 / all.count);
        }
    }

    // The sum of column threadIdx.x of a matrix [lines][across] that the threads hold in order, M neighbours each.
    template <int M>
    static __device__ __forceinline__ float add_lines(const float (&x)[M], int lines, int across, Scratch& scratch) {
        __syncthreads();
        write(scratch.x + threadIdx.x * M, x);
        __syncthreads();
        float sum = 0.0f;
        if (threadIdx.x < across) {
            for (int line = 0; line < lines; ++line) sum += scratch.x[line * across + threadIdx.x];
        }
        return sum;
    }
};
