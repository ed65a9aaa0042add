// What a tensor-core convolution does with a tile of results: stage, finish, store, sum.
//
// The products leave a warp's results scattered over its lanes. They go to shared memory as floats, [rows][COLUMNS]
// over the main loop's stages, in two passes where the tile is larger than these; and from there each thread takes 16
// bytes' worth of columns, always the same ones, from ROWS rows. So it stores (and loads y and old gradients) in whole
// 16-byte vectors, a warp whole lines, and its sums over pixels stay in registers. Chunks of four floats change places
// so that neither side meets a bank conflict. Behind the staged rows lie the warps' partial sums, one row of a table
// for each warp and pass.
#pragma once

#include "conv/ampere/reduction.cuh"

namespace ampere {

template <typename T> struct Staged {
    static constexpr int PASSES = T::PIXELS * T::COLUMNS * 4 < T::SHARED_BYTES ? 1 : 2;
    // Vectors of 16 bytes (of elements) in a row. A warp finishes WARP_ROWS neighbouring rows in a pass, STEP at a
    // time.
    static constexpr int VECTORS = T::COLUMNS / LANE, STEP = 32 / VECTORS;
    static constexpr int PASS_ROWS = T::PIXELS / PASSES, WARP_ROWS = PASS_ROWS / T::WARPS, ROWS = WARP_ROWS / STEP;
    // Rows of 16 that a warp of the main loop stages in a pass, and all its rows in a pass.
    static constexpr int DOWN = T::DOWN / PASSES, BAND = T::WARP_PIXELS / PASSES;
    static_assert(VECTORS <= 32 && BAND % WARP_ROWS == 0, "a warp finishes whole rows that are neighbours");
    static_assert((PASS_ROWS + 2 * T::PIXELS / WARP_ROWS) * T::COLUMNS * 4 <= T::SHARED_BYTES, "rows and sums fit");

    float* tile;
    float* partials;  // [PIXELS / WARP_ROWS][2][COLUMNS]
    // This thread's vector, its first row among those staged, and their place.
    int vector, row, mine;

    __device__ __forceinline__ Staged(char* shared)
        : tile(reinterpret_cast<float*>(shared)), partials(tile + PASS_ROWS * T::COLUMNS),
          vector(threadIdx.x % VECTORS), row(threadIdx.x / 32 * WARP_ROWS + threadIdx.x % 32 / VECTORS),
          mine(place(row, vector * LANE)) {}

    static __device__ __forceinline__ int place(int row, int column) {
        int chunk = column / 4;
        return row * T::COLUMNS + ((chunk ^ (row & 3) << 1 ^ (chunk >> 3 & 1)) << 2) + column % 4;
    }

    // A pass's part of every warp's results, where all threads can read it.
    __device__ __forceinline__ void stage(const Results<T>& sum, int pass) const {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        int top = warp / T::WARPS_ACROSS * BAND + lane / 4;
        int left = warp % T::WARPS_ACROSS * T::WARP_COLUMNS + lane % 4 * 2;
        if (pass > 0) __syncthreads();
#pragma unroll
        for (int i = 0; i < DOWN; ++i) {
#pragma unroll
            for (int j = 0; j < T::ACROSS; ++j) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const float(&from)[4] = sum[pass * DOWN + i][j];
                    float* at = tile + place(top + i * 16 + half * 8, left + j * 8);
                    *reinterpret_cast<float2*>(at) = make_float2(from[2 * half], from[2 * half + 1]);
                }
            }
        }
        __syncthreads();
    }

    // The row of the whole tile that `row` is in a pass.
    __device__ __forceinline__ int tile_row(int pass) const {
        return row / BAND * T::WARP_PIXELS + pass * BAND + row % BAND;
    }

    // Pixels among the rows that this warp finishes in a pass.
    __device__ __forceinline__ int pixels(int pass, const BlockPlace<T>& place) const {
        int first = tile_row(pass) / WARP_ROWS * WARP_ROWS;
        return max(0, min(WARP_ROWS, place.pixels - place.first_pixel() - first));
    }

    // This thread's columns of its i-th row, or of its warp's first. Rows i * STEP and `row` have no bit in common
    // within a warp, so that only an XOR stands between their places.
    __device__ __forceinline__ void read(float (&x)[LANE], int i) const {
        read_at(x, mine ^ (i * STEP & 3) << 3, i * STEP);
    }
    __device__ __forceinline__ void read_first(float (&x)[LANE]) const {
        read_at(x, place(row - row % WARP_ROWS, vector * LANE), 0);
    }
    __device__ __forceinline__ void read_at(float (&x)[LANE], int at, int rows_below) const {
#pragma unroll
        for (int j = 0; j < LANE; j += 4) {
            float4 part = *reinterpret_cast<const float4*>(tile + (at ^ j) + rows_below * T::COLUMNS);
            x[j] = part.x, x[j + 1] = part.y, x[j + 2] = part.z, x[j + 3] = part.w;
        }
    }

    // Two sums a column over the rows of a thread, added over the lanes that share its columns.
    static __device__ __forceinline__ void add_lanes(float (&sums)[2][LANE]) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < LANE; ++j) {
#pragma unroll
                for (int by = 16; by >= VECTORS; by /= 2) sums[i][j] += __shfl_xor_sync(0xffffffffu, sums[i][j], by);
            }
        }
    }

    // The warp's partial of a pass, in each lane the two numbers of its columns, to the block's table.
    __device__ __forceinline__ void write_partials(const float (&partial)[2][LANE], int pass) const {
        if (threadIdx.x % 32 >= VECTORS) return;
        float* to = partials + tile_row(pass) / WARP_ROWS * 2 * T::COLUMNS + vector * LANE;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < LANE; j += 4) {
                *reinterpret_cast<float4*>(to + i * T::COLUMNS + j) =
                    make_float4(partial[i][j], partial[i][j + 1], partial[i][j + 2], partial[i][j + 3]);
            }
        }
    }
};

// Forward: y = round(sum + bias, kept between the bounds), and the moments of y if they are wanted.
template <typename T>
__device__ __forceinline__ void store_output(const Results<T>& sum, element* y, const float* bias, Bounds activation,
                                             const Reduction& stats, const BlockPlace<T>& place, char* shared) {
    using S = Staged<T>;
    const S staged(shared);
    const int column = place.first_column() + staged.vector * LANE;
    const bool inside = column < place.columns;
    float offset[LANE] = {};
    if (inside && bias) {
#pragma unroll
        for (int j = 0; j < LANE; ++j) offset[j] = bias[column + j];
    }
    auto finish = [&](float (&x)[LANE]) {
        if (bias) {
#pragma unroll
            for (int j = 0; j < LANE; ++j) x[j] += offset[j];
        }
#pragma unroll
        for (int j = 0; j < LANE; ++j) x[j] = bounded(x[j], activation);
        Quad rounded = pack(x);
        unpack(rounded, x);
        return rounded;
    };
#pragma unroll
    for (int pass = 0; pass < S::PASSES; ++pass) {
        staged.stage(sum, pass);
        const int first = place.first_pixel() + staged.tile_row(pass);
        // Deviations from the warp's first row. Any of the numbers serves as a pivot: the squares around it are at the
        // most as many times those around the mean as there are numbers, so little is lost when the difference is
        // taken.
        float pivot[LANE], sums[2][LANE] = {};
        staged.read_first(pivot);
        finish(pivot);
#pragma unroll
        for (int i = 0; i < S::ROWS; ++i) {
            int pixel = first + i * S::STEP;
            if (!inside || pixel >= place.pixels) break;
            float x[LANE];
            staged.read(x, i);
            Quad rounded = finish(x);
            *reinterpret_cast<Quad*>(y + (pixel * place.columns + column)) = rounded;
            if (!stats.result) continue;
#pragma unroll
            for (int j = 0; j < LANE; ++j) {
                float deviation = x[j] - pivot[j];
                sums[0][j] += deviation;
                sums[1][j] = fmaf(deviation, deviation, sums[1][j]);
            }
        }
        if (!stats.result) continue;
        S::add_lanes(sums);
        const int count = staged.pixels(pass, place);
        const float share = count > 0 ? 1.0f / float(count) : 0.0f;
#pragma unroll
        for (int j = 0; j < LANE; ++j) {
            float shift = sums[0][j] * share;
            sums[1][j] = relu(fmaf(-shift, sums[0][j], sums[1][j]));
            sums[0][j] = pivot[j] + shift;
        }
        staged.write_partials(sums, pass);
    }
    if (stats.result) reduce<T, Moments>(staged.partials, S::WARP_ROWS, stats, place, staged.tile);
}

// What the data gradient's epilogue reads besides the products.
struct GradientEnd {
    element* dx;
    bool accumulate;
    const element* y;   // the raw activation in front, or absent: no mask, no sums
    const float* norm;  // [4, C]
    Stops stops;
};

// Zeros for the pixels that the stride skips after (p, q): the rest of its cell of stride x stride, within the image.
__device__ __forceinline__ void clear_skipped(element* dx, const ConvGeometry& shape, int pixel, int p, int q) {
    int down = min(shape.stride, shape.h - p * shape.stride), right = min(shape.stride, shape.w - q * shape.stride);
    for (int i = 0; i < down; ++i) {
        for (int j = i == 0; j < right; ++j) {
            *reinterpret_cast<Quad*>(dx + (pixel + i * shape.w + j) * shape.c) = Quad{};
        }
    }
}

// Data gradient: dx (+)= sum; masked by the activation in front and reduced if `end.y`. With a stride (1x1 filters) the
// pixels are the sampled ones, and each takes its skipped neighbours to the right and below with it: they get zeros.
template <typename T>
__device__ __forceinline__ void store_gradient(const Results<T>& sum, const GradientEnd& end, const ConvGeometry& shape,
                                               Divisor image, Divisor line, const Reduction& sums,
                                               const BlockPlace<T>& place, char* shared) {
    using S = Staged<T>;
    // Rows whose loads are under way together.
    constexpr int BATCH = S::ROWS < 4 ? S::ROWS : 4;
    const S staged(shared);
    const int column = place.first_column() + staged.vector * LANE;
    const bool inside = column < place.columns, masks = end.y != nullptr;
    float scale[LANE], shift[LANE], mean[LANE];
    if (masks && inside) {
#pragma unroll
        for (int j = 0; j < LANE; j += 4) {
            const float* of = end.norm + column + j;
            *reinterpret_cast<float4*>(scale + j) = __ldg(reinterpret_cast<const float4*>(of));
            *reinterpret_cast<float4*>(shift + j) = __ldg(reinterpret_cast<const float4*>(of + place.columns));
            *reinterpret_cast<float4*>(mean + j) = __ldg(reinterpret_cast<const float4*>(of + 2 * place.columns));
        }
    }
#pragma unroll
    for (int pass = 0; pass < S::PASSES; ++pass) {
        staged.stage(sum, pass);
        const int top = place.first_pixel() + staged.tile_row(pass);
        float own[2][LANE] = {};
#pragma unroll 1
        for (int first = 0; first < S::ROWS; first += BATCH) {
            int at[BATCH];
            Quad old[BATCH], y[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                int pixel = top + (first + i) * S::STEP;
                at[i] = -1;
                if (!inside || pixel >= place.pixels) continue;
                if (shape.stride > 1) {
                    int n, p, q, in_image;
                    image.split(pixel, n, in_image);
                    line.split(in_image, p, q);
                    pixel = (n * shape.h + p * shape.stride) * shape.w + q * shape.stride;
                    if (!end.accumulate) clear_skipped(end.dx + column, shape, pixel, p, q);
                }
                at[i] = pixel * place.columns + column;
                if (end.accumulate) old[i] = *reinterpret_cast<const Quad*>(end.dx + at[i]);
                if (masks) y[i] = *reinterpret_cast<const Quad*>(end.y + at[i]);
            }
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                if (at[i] < 0) continue;
                float x[LANE], other[LANE];
                staged.read(x, first + i);
                if (end.accumulate) {
                    unpack(old[i], other);
#pragma unroll
                    for (int j = 0; j < LANE; ++j) x[j] += other[j];
                }
                if (masks) {
                    unpack(y[i], other);
#pragma unroll
                    for (int j = 0; j < LANE; ++j) x[j] = mask(x[j], fmaf(scale[j], other[j], shift[j]), end.stops);
                }
                Quad rounded = pack(x);
                *reinterpret_cast<Quad*>(end.dx + at[i]) = rounded;
                if (masks) {
                    unpack(rounded, x);
#pragma unroll
                    for (int j = 0; j < LANE; ++j) {
                        own[0][j] += x[j];
                        own[1][j] = fmaf(x[j], other[j] - mean[j], own[1][j]);
                    }
                }
            }
        }
        if (!masks) continue;
        S::add_lanes(own);
        staged.write_partials(own, pass);
    }
    if (masks) reduce<T, Sums>(staged.partials, S::WARP_ROWS, sums, place, staged.tile);
}

}  // namespace ampere
