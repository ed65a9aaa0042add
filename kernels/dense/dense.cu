// Dense layers: three products of one shape, all float in memory. n is the batch.
//
//     forward            y  [n, outputs]      = relu?(x w^T + b)
//     backward_data      dx [n, inputs]       = dz w
//     backward_weights   dw [outputs, inputs] += dz^T x,   db [outputs] += sum over n of dz
//     relu_backward      dz = dy [y > 0]
//
// PRECISION_TF32 multiplies on tensor cores (operands rounded to TF32, sums in float), PRECISION_F32 with FFMA.
//
// Floor: for a batch of up to a few hundred the weights' bytes: 4 inputs outputs (8 for the weights' gradient, read and
// written) beside 4 n (inputs + outputs), and 2 n inputs outputs FLOP. The model's 2048 -> 1024 at n = 128 is 9.9 MB
// and 0.54 GFLOP a pass: 5 us of an A100's memory, 3.5 us of its tensor cores.
//
// Tiling: a block of 256 threads makes a 64x64 tile of the result from operands in shared memory, 32 of the depth a
// step (product.cuh has the layout), with two steps in flight while a third is multiplied. A small batch has too
// few tiles to fill a GPU, so the depth is cut into `splits` ranges of `span` (a multiple of 32; one split where the
// depth is the batch): each block leaves its partial tile in the workspace, and the last block of a tile adds all in
// the order of the ranges. The result passes through shared memory, so that the epilogue moves rows of 16-byte vectors
// whatever computed it.
//
// Shared memory: 3 stages of (2304 floats of a, 2304 of b); then the result, [64][72 or 80], over the first stage.
// 55,296 bytes.
//
// Launch: grid [ceil(columns / 64), ceil(rows / 64), splits], block 256, shared 55,296. With splits > 1: workspace of
// splits * rows * columns floats, 16-byte aligned, and a zero ticket a tile. `wide_*` where the rows of that operand
// (w, x, y, ...) are a multiple of four floats and begin on 16 bytes.

#include "dense/product.cuh"
#include "primitives/reduce.cuh"

constexpr int STAGES = 3;

// out [rows, columns] = the product of a, whose sides are rows, and b, whose sides are columns, over `depth`.
struct DenseProduct {
    float* out;
    const float* a;
    const float* b;
    const float* bias;      // [columns], added by the forward pass
    float* bias_gradient;   // [rows], grown by the weights' gradient
    float* workspace;       // [splits][rows][columns]
    unsigned* tickets;
    int rows, columns, depth;
    int span;               // the depth of a split
    int relu;
    int wide_a, wide_b, wide_out;
};

struct ReluBackward {
    float* dz;
    const float* dy;
    const float* y;
    int count;
    int quads;  // of these the first 4 quads elements go in 16-byte vectors
};

// Four neighbours of a row, of which `count` exist.
__device__ __forceinline__ float4 load_row(const float* from, int count, bool wide) {
    if (wide) return *reinterpret_cast<const float4*>(from);
    return make_float4(from[0], count > 1 ? from[1] : 0.0f, count > 2 ? from[2] : 0.0f, count > 3 ? from[3] : 0.0f);
}
__device__ __forceinline__ void store_row(float* to, float4 x, int count, bool wide) {
    if (wide) {
        *reinterpret_cast<float4*>(to) = x;
    } else {
        to[0] = x.x;
        if (count > 1) to[1] = x.y;
        if (count > 2) to[2] = x.z;
        if (count > 3) to[3] = x.w;
    }
}
__device__ __forceinline__ float4 operator+(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

enum class Pass { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS };

// The last step: what the pass does with four neighbouring results.
template <Pass PASS>
__device__ __forceinline__ void finish(const DenseProduct& a, float4 x, long long at, int column, int count) {
    if (PASS == Pass::FORWARD) {
        // A view of the arena: any alignment.
        x = x + load_row(a.bias + column, count, false);
        if (a.relu) x = make_float4(relu(x.x), relu(x.y), relu(x.z), relu(x.w));
    }
    if (PASS == Pass::BACKWARD_WEIGHTS) x = load_row(a.out + at, count, a.wide_out) + x;
    store_row(a.out + at, x, count, a.wide_out);
}

template <Pass PASS> __device__ __forceinline__ void dense_product(const DenseProduct& a) {
    constexpr bool A_ALONG_DEPTH = PASS != Pass::BACKWARD_WEIGHTS, B_ALONG_DEPTH = PASS == Pass::FORWARD;
    extern __shared__ __align__(16) float shared[];
    int column0 = blockIdx.x * TILE, row0 = blockIdx.y * TILE;
    int begin = blockIdx.z * a.span, end = min(a.depth, begin + a.span);
    int steps = (end - begin + STEP - 1) / STEP;
    Operand left{a.a, a.rows, a.depth, a.wide_a != 0}, right{a.b, a.columns, a.depth, a.wide_b != 0};

    // Groups are closed even when they are empty, so that "all but the last so many" always means the same steps.
    auto fetch = [&](int step) {
        if (step < steps) {
            unsigned stage = shared_address(shared) + step % STAGES * 2 * TILE_FLOATS * 4;
            copy_tile<A_ALONG_DEPTH>(stage, left, row0, begin + step * STEP, end);
            copy_tile<B_ALONG_DEPTH>(stage + TILE_FLOATS * 4, right, column0, begin + step * STEP, end);
        }
        commit_copies();
    };
    Accumulator product;
    product.clear();
    float bias_gradient = 0.0f;
#pragma unroll 1
    for (int step = 0; step < STAGES - 1; ++step) fetch(step);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        await_copies<STAGES - 2>();
        // Step `step` is there for all, and nobody still reads the stage that is fetched into next.
        __syncthreads();
        fetch(step + STAGES - 1);
        const float* stage = shared + step % STAGES * 2 * TILE_FLOATS;
        product.multiply<A_ALONG_DEPTH, B_ALONG_DEPTH>(stage, stage + TILE_FLOATS);
        if (PASS == Pass::BACKWARD_WEIGHTS && blockIdx.x == 0 && threadIdx.x < TILE) {
#pragma unroll
            for (int k = 0; k < STEP; ++k) bias_gradient += stage[tile_index<false>(threadIdx.x, k)];
        }
    }
    if (PASS == Pass::BACKWARD_WEIGHTS && blockIdx.x == 0 && threadIdx.x < TILE && row0 + threadIdx.x < a.rows) {
        a.bias_gradient[row0 + threadIdx.x] += bias_gradient;
    }
    await_copies<0>();
    __syncthreads();
    product.store<A_ALONG_DEPTH, B_ALONG_DEPTH>(shared);
    __syncthreads();

    bool split = gridDim.z > 1;
    bool wide_partial = a.columns % 4 == 0;
    long long size = static_cast<long long>(a.rows) * a.columns;
#pragma unroll 1
    for (int turn = 0; turn < 2; ++turn) {
        for (int i = threadIdx.x; i < TILE * TILE / 4; i += 256) {
            int tile_row = i / (TILE / 4), tile_column = i % (TILE / 4) * 4;
            int row = row0 + tile_row, column = column0 + tile_column, count = a.columns - column;
            if (row >= a.rows || count <= 0) continue;
            long long at = static_cast<long long>(row) * a.columns + column;
            if (turn == 0) {
                float4 x = *reinterpret_cast<const float4*>(shared + tile_row * Accumulator::PITCH + tile_column);
                if (split) {
                    store_row(a.workspace + blockIdx.z * size + at, x, count, wide_partial);
                } else {
                    finish<PASS>(a, x, at, column, count);
                }
            } else {
                float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
                for (int part = 0; part < gridDim.z; ++part) {
                    x = x + load_row(a.workspace + part * size + at, count, wide_partial);
                }
                finish<PASS>(a, x, at, column, count);
            }
        }
        if (!split || turn == 1 || !last_block(a.tickets + blockIdx.y * gridDim.x + blockIdx.x, gridDim.z)) return;
    }
}

SHARED_BYTES(dense_forward, STAGES * 2 * TILE_FLOATS * 4);
extern "C" __global__ void __launch_bounds__(256, 2) dense_forward(const __grid_constant__ DenseProduct a) {
    dense_product<Pass::FORWARD>(a);
}

SHARED_BYTES(dense_backward_data, STAGES * 2 * TILE_FLOATS * 4);
extern "C" __global__ void __launch_bounds__(256, 2) dense_backward_data(const __grid_constant__ DenseProduct a) {
    dense_product<Pass::BACKWARD_DATA>(a);
}

// The depth is the batch and dw has tiles enough: one split.
SHARED_BYTES(dense_backward_weights, STAGES * 2 * TILE_FLOATS * 4);
extern "C" __global__ void __launch_bounds__(256, 2) dense_backward_weights(const __grid_constant__ DenseProduct a) {
    dense_product<Pass::BACKWARD_WEIGHTS>(a);
}

// Floor: 12 bytes an element. A thread per four elements, then one per element left. Launch: grid
// [ceil((quads + count - 4 quads) / 256)], block 256; dz, dy and y on 16 bytes if quads > 0.
extern "C" __global__ void __launch_bounds__(256) relu_backward(const __grid_constant__ ReluBackward a) {
    int index = blockIdx.x * 256 + threadIdx.x;
    if (index < a.quads) {
        float4 dy = reinterpret_cast<const float4*>(a.dy)[index], y = reinterpret_cast<const float4*>(a.y)[index];
        reinterpret_cast<float4*>(a.dz)[index] =
            make_float4(mask(dy.x, y.x), mask(dy.y, y.y), mask(dy.z, y.z), mask(dy.w, y.w));
    } else if (index < a.count - 3 * a.quads) {
        int at = index + 3 * a.quads;
        a.dz[at] = mask(a.dy[at], a.y[at]);
    }
}
