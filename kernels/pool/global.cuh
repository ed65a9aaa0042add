// Pooling of whole images: one block a slice of channels and image, its lines taking turns at the pixels.
//
// Launch contract: block 256, grid (slices of channels, images), `shape` that of one image; no dynamic shared memory,
// no tickets; x at most 2^30 elements in all.
#pragma once

#include "primitives/rows.cuh"

struct GlobalPoolForward {
    float* y;
    const element* x;
    WalkShape shape;
};

struct GlobalAverageBackward {
    element* dx;
    const float* dy;
    WalkShape shape;
};

struct GlobalMaxBackward {
    element* dx;
    const float* dy;
    const element* x;
    WalkShape shape;
};

// Rows that a thread loads before it looks at the first: it does little with each, and stores nothing.
constexpr int AHEAD = 4;

// Whether `x` takes the maximum from an earlier `best`.
__device__ __forceinline__ bool beats(float x, float best) { return !(x <= best) && best == best; }

// Where block (x, y)'s image begins in a matrix of all.
__device__ __forceinline__ int image_start(const WalkShape& shape) { return blockIdx.y * shape.rows * shape.channels; }

template <typename Group> __device__ __forceinline__ void average(const GlobalPoolForward& a, Scratch& scratch) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    Walk<Group> walk(a.shape, 0, 1);
    const element* image = a.x + image_start(a.shape);
    float sum[WIDTH] = {};
    walk.template each_row<1, AHEAD>({image}, [&](int, const Group(&group)[1]) {
        float x[WIDTH];
        unpack(group[0], x);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) sum[j] += x[j];
    });
    float total = walk.add_lines(sum, walk.lines, walk.span, scratch);
    if (threadIdx.x < walk.width()) a.y[blockIdx.y * walk.channels + walk.base + threadIdx.x] = total / walk.rows;
}

// y[n,c] = mean over the pixels: a thread every lines-th of them in order, then the lines in order. Floor: x once.
extern "C" __global__ void __launch_bounds__(256)
    global_average_pool_forward(const __grid_constant__ GlobalPoolForward a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) average<Quad>(a, scratch);
    else average<element>(a, scratch);
}

template <typename Group> __device__ __forceinline__ void spread(const GlobalAverageBackward& a, Scratch& scratch) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    Walk<Group> walk(a.shape, 0, 1);
    float dx[1][WIDTH];
    walk.load_channels(dx, {a.dy + blockIdx.y * walk.channels}, scratch);
    if (walk.first < walk.rows) {
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) dx[0][j] /= walk.rows;
    }
    element* image = a.dx + image_start(a.shape);
    for (int row = walk.first; row < walk.rows; row += walk.step) walk.store(image, row, dx[0]);
}

// dx[n,i,c] = dy[n,c] / pixels. Floor: dx once.
extern "C" __global__ void __launch_bounds__(256)
    global_average_pool_backward(const __grid_constant__ GlobalAverageBackward a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) spread<Quad>(a, scratch);
    else spread<element>(a, scratch);
}

// The maximum of column threadIdx.x of one image, and its row.
struct Maximum {
    float value;
    int row;
};

template <typename Group>
__device__ __forceinline__ Maximum maximum(const Walk<Group>& walk, const element* image, Scratch& scratch, int* rows) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    float best[WIDTH];
    int winner[WIDTH];
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) {
        best[j] = __int_as_float(0xff800000);
        winner[j] = walk.first;
    }
    walk.template each_row<1, AHEAD>({image}, [&](int row, const Group(&group)[1]) {
        float x[WIDTH];
        unpack(group[0], x);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            bool wins = beats(x[j], best[j]);
            best[j] = wins ? x[j] : best[j];
            winner[j] = wins ? row : winner[j];
        }
    });
    write(scratch.x + threadIdx.x * WIDTH, best);
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) rows[threadIdx.x * WIDTH + j] = winner[j];
    __syncthreads();
    Maximum found{scratch.x[threadIdx.x], rows[threadIdx.x]};
    if (threadIdx.x < walk.width()) {
        for (int line = 1; line < min(walk.lines, walk.rows); ++line) {
            Maximum next{scratch.x[line * walk.span + threadIdx.x], rows[line * walk.span + threadIdx.x]};
            // The lines took turns at the rows, so equals are settled by the row.
            bool equal = !beats(next.value, found.value) && !beats(found.value, next.value);
            if (beats(next.value, found.value) || equal && next.row < found.row) found = next;
        }
    }
    return found;
}

template <typename Group>
__device__ __forceinline__ void take_maximum(const GlobalPoolForward& a, Scratch& scratch, int* rows) {
    Walk<Group> walk(a.shape, 0, 1);
    Maximum found = maximum(walk, a.x + image_start(a.shape), scratch, rows);
    if (threadIdx.x < walk.width()) a.y[blockIdx.y * walk.channels + walk.base + threadIdx.x] = found.value;
}

// y[n,c] = the largest over the pixels. Floor: x once.
extern "C" __global__ void __launch_bounds__(256) global_max_pool_forward(const __grid_constant__ GlobalPoolForward a) {
    __shared__ Scratch scratch;
    __shared__ int rows[THREADS * LANE];
    if (a.shape.wide) take_maximum<Quad>(a, scratch, rows);
    else take_maximum<element>(a, scratch, rows);
}

template <typename Group>
__device__ __forceinline__ void give_maximum(const GlobalMaxBackward& a, Scratch& scratch, int* rows) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    Walk<Group> walk(a.shape, 0, 1);
    Maximum found = maximum(walk, a.x + image_start(a.shape), scratch, rows);
    __syncthreads();
    rows[threadIdx.x] = found.row;
    float dy[1][WIDTH];
    walk.load_channels(dy, {a.dy + blockIdx.y * walk.channels}, scratch);
    element* image = a.dx + image_start(a.shape);
    for (int row = walk.first; row < walk.rows; row += walk.step) {
        float dx[WIDTH];
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) dx[j] = rows[walk.own + j] == row ? dy[0][j] : 0.0f;
        walk.store(image, row, dx);
    }
}

// dx[n,i,c] = dy[n,c] at the first pixel that holds the maximum, zero elsewhere. Floor: x and dx once.
extern "C" __global__ void __launch_bounds__(256)
    global_max_pool_backward(const __grid_constant__ GlobalMaxBackward a) {
    __shared__ Scratch scratch;
    __shared__ int rows[THREADS * LANE];
    if (a.shape.wide) give_maximum<Quad>(a, scratch, rows);
    else give_maximum<element>(a, scratch, rows);
}
