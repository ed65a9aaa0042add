// The gradient of a convolution's output: forming the one that a batch norm owes, and summing it into the bias's.
#pragma once

#include "conv/geometry.cuh"
#include "primitives/element.cuh"
#include "primitives/reduce.cuh"

namespace output_gradient {

// How 256 threads walk a [rows][channels] matrix, WIDTH elements at once: each keeps to its channels, and a block's
// threads lie side by side in memory. Grid: x over rows, y over blocks of 256 * WIDTH channels.
template <int WIDTH> struct Walk {
    int width;      // threads to a row
    int rows;       // rows that the block takes at once
    int row, step;  // this thread's first row, and the distance to its next
    int channel;    // its first channel
    bool active;    // false for the threads that a block's last row has no room for

    __device__ __forceinline__ explicit Walk(int channels) {
        const int columns = channels / WIDTH;
        width = min(columns - int(blockIdx.y) * 256, 256);
        rows = 256 / width;
        const int own = threadIdx.x / width;
        row = blockIdx.x * rows + own;
        step = gridDim.x * rows;
        channel = (blockIdx.y * 256 + threadIdx.x % width) * WIDTH;
        active = own < rows;
    }
};

// WIDTH neighbours as floats, LANE of them in one load.
template <int WIDTH> __device__ __forceinline__ void load(const element* from, float (&x)[WIDTH]) {
    if constexpr (WIDTH == LANE) {
        const Quad quad = *reinterpret_cast<const Quad*>(from);  // a copy: through the reference it would be four loads
        unpack(quad, x);
    } else {
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) x[i] = widen(from[i]);
    }
}

template <int WIDTH> __device__ __forceinline__ void store(element* to, const float (&x)[WIDTH]) {
    if constexpr (WIDTH == LANE) {
        *reinterpret_cast<Quad*>(to) = pack(x);
    } else {
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) to[i] = narrow<element>(x[i]);
    }
}

}  // namespace output_gradient

// dy = k0[c] * dz + k1[c] * y + k2[c], elementwise. Floor: the bytes of three tensors. Grid: any number of blocks of
// rows, by `Walk`; more rows a block repay the loads of k. Vectors where channels is a multiple of LANE; addresses of
// 16 bytes then.
struct ConvFormGradient {
    element* dy;        // [rows][channels]
    const element* dz;  // [rows][channels]
    const element* y;   // [rows][channels]
    const float* k;     // [3][channels]
    int rows, channels;
};

namespace output_gradient {

// A thread's channels of a vector of floats. Eight of them are two loads of 16 bytes, each half a sector; so neighbours,
// `paired`, load a sector together and then exchange the halves that are the other's. The whole warp must call it.
template <int WIDTH>
__device__ __forceinline__ void load_channels(const float* from, bool paired, float (&x)[WIDTH]) {
    if constexpr (WIDTH % 4 != 0) {
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) x[i] = from[i];
    } else if (WIDTH == 8 && paired) {
        const bool odd = threadIdx.x & 1;
        const Quad* sector = reinterpret_cast<const Quad*>(odd ? from - 4 : from);
        const Quad first = load_quad(sector), second = load_quad(sector + 2);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const unsigned other = __shfl_xor_sync(0xffffffffu, odd ? first.word[i] : second.word[i], 1);
            x[i] = __uint_as_float(odd ? other : first.word[i]);
            x[4 + i] = __uint_as_float(odd ? second.word[i] : other);
        }
    } else {
#pragma unroll
        for (int i = 0; i < WIDTH; i += 4) {
            const Quad quad = load_quad(from + i);
#pragma unroll
            for (int l = 0; l < 4; ++l) x[i + l] = __uint_as_float(quad.word[l]);
        }
    }
}

template <int WIDTH> __device__ __forceinline__ void form(const ConvFormGradient& a) {
    const Walk<WIDTH> walk(a.channels);
    float k[3][WIDTH];
#pragma unroll
    for (int j = 0; j < 3; ++j) load_channels(a.k + size_t(j) * a.channels + walk.channel, walk.width % 2 == 0, k[j]);
    if (!walk.active) return;
    // Two rows' loads go out before either is stored: dy might overlap the others, for all that the compiler knows.
    for (int row = walk.row; row < a.rows; row += 2 * walk.step) {
        const size_t at[2] = {size_t(row) * a.channels + walk.channel,
                              size_t(row + walk.step) * a.channels + walk.channel};
        const bool both = row + walk.step < a.rows;
        float dz[2][WIDTH], y[2][WIDTH];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            if (j == 0 || both) {
                load(a.dz + at[j], dz[j]);
                load(a.y + at[j], y[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < 2; ++j) {
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) dz[j][i] = fmaf(k[0][i], dz[j][i], fmaf(k[1][i], y[j][i], k[2][i]));
            if (j == 0 || both) store(a.dy + at[j], dz[j]);
        }
    }
}

}  // namespace output_gradient

// dbias[c] += sum of dy over rows: a thread adds its rows, a block its threads, the last block of each 256 * WIDTH
// channels all blocks, every time in order. Floor: the bytes of dy.
struct ConvBackwardBias {
    float* dbias;       // [channels]
    const element* dy;  // [rows][channels]
    float* partials;    // [gridDim.x][channels]
    unsigned* tickets;  // [gridDim.y], zero
    int rows, channels;
};

namespace output_gradient {

template <int WIDTH> __device__ __forceinline__ void bias(const ConvBackwardBias& a) {
    const Walk<WIDTH> walk(a.channels);
    __shared__ float sums[256][WIDTH];
    float sum[WIDTH] = {};
    if (walk.active) {
#pragma unroll 2
        for (int row = walk.row; row < a.rows; row += walk.step) {
            float dy[WIDTH];
            load(a.dy + size_t(row) * a.channels + walk.channel, dy);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) sum[i] += dy[i];
        }
    }
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) sums[threadIdx.x][i] = sum[i];
    __syncthreads();
    const int first = blockIdx.y * 256 * WIDTH, channels = walk.width * WIDTH;
    for (int c = threadIdx.x; c < channels; c += 256) {
        float total = 0.0f;
        for (int row = 0; row < walk.rows; ++row) total += (&sums[row * walk.width][0])[c];
        a.partials[size_t(blockIdx.x) * a.channels + first + c] = total;
    }
    if (!last_block(a.tickets + blockIdx.y, gridDim.x)) return;
    for (int c = threadIdx.x; c < channels; c += 256) {
        float total = 0.0f;
        for (int block = 0; block < gridDim.x; ++block) total += a.partials[size_t(block) * a.channels + first + c];
        a.dbias[first + c] += total;
    }
}

}  // namespace output_gradient
