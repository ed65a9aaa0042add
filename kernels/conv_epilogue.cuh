// What a tensor-core convolution does with a tile of results: stage, finish, store, reduce.
//
// Staging. The products leave a warp's results scattered over its lanes. They go to shared memory as floats [PIXELS][COLUMNS],
// over the main loop's stages, and from there each thread takes 16 bytes' worth of columns, always the same ones, from ROWS
// rows: so it stores (and loads y and old gradients) in whole 16-byte vectors, a warp whole lines, and its sums over
// pixels stay in registers. Chunks of four floats change places so that neither side meets a bank conflict.
//
// Reduction over pixels, in a fixed order: rows of a thread, lanes, then as partials: warps (one [2][columns] a tile in the workspace),
// the tiles of a group (by the group's last block), the groups (by the column's last block). Two levels, because a batch has
// thousands of tiles, and the last block must not walk through them alone while the others have gone home.
#pragma once

#include "conv_tensor.cuh"
#include "reduce.cuh"

namespace tensor {

// The gradient's two sums: of dz and of dz * (y - mean).
struct Sums {
    float dz, product;
};

__device__ __forceinline__ Sums merge(Sums a, Sums b) { return Sums{a.dz + b.dz, a.product + b.product}; }

// A partial is two numbers a column, in a table [rows][2][columns] in which every row covers `span` pixels, in order, and
// together `pixels`: so how many each covers follows from its place.
__device__ __forceinline__ void write_partial(float* partial, int columns, Moments x) {
    partial[0] = x.mean;
    partial[columns] = x.m2;
}
__device__ __forceinline__ void write_partial(float* partial, int columns, Sums x) {
    partial[0] = x.dz;
    partial[columns] = x.product;
}
__device__ __forceinline__ void read_partial(const float* partial, int columns, int pixels, Moments& x) {
    x = Moments{float(pixels), partial[0], partial[columns]};
}
__device__ __forceinline__ void read_partial(const float* partial, int columns, int, Sums& x) {
    x = Sums{partial[0], partial[columns]};
}
// Rows first to last of such a table merged, of the column that it points to.
template <typename Part>
__device__ __forceinline__ Part merge_rows(const float* table, int columns, int first, int last, int span, int pixels) {
    Part total{};
#pragma unroll 4
    for (int row = first; row < last; ++row) {
        Part part;
        read_partial(table + row * 2 * columns, columns, max(0, min(span, pixels - row * span)), part);
        total = merge(total, part);
    }
    return total;
}

// The result proper: statistics are mean and biased variance.
__device__ __forceinline__ void write_result(float* result, int columns, Moments x) {
    result[0] = x.mean;
    result[columns] = x.m2 / x.count;
}
__device__ __forceinline__ void write_result(float* result, int columns, Sums x) { write_partial(result, columns, x); }

// Where a reduction over all pixels happens. The grid is [tiles][column_tiles], column tiles fastest.
struct Reduction {
    float* result;      // [2][columns]
    float* partials;    // [tiles + groups][2][columns], groups = ceil(tiles / group)
    unsigned* tickets;  // [column_tiles][groups + 1], zero
    int tiles, group;
};

// Which part of the product this block makes.
template <typename T> struct Place {
    int tile, column_tile, column_tiles;  // of pixels, of columns
    int pixels, columns;                  // in all
    __device__ __forceinline__ int first_pixel() const { return tile * T::PIXELS; }
    __device__ __forceinline__ int first_column() const { return column_tile * T::COLUMNS; }
};

template <typename T> struct Staged {
    // Vectors of 16 bytes (of elements) in a row. A warp finishes WARP_ROWS neighbouring rows, STEP at a time.
    static constexpr int VECTORS = T::COLUMNS / LANE, STEP = 32 / VECTORS;
    static constexpr int WARP_ROWS = T::PIXELS / T::WARPS, ROWS = WARP_ROWS / STEP;
    static_assert(T::PIXELS * T::COLUMNS * 4 <= T::SHARED_BYTES, "the tile fits over the stages");
    static_assert(VECTORS <= 32, "a warp stores whole rows");

    float* tile;
    // This thread's vector, its first row, and their place.
    int vector, row, mine;

    __device__ __forceinline__ Staged(char* shared)
        : tile(reinterpret_cast<float*>(shared)), vector(threadIdx.x % VECTORS),
          row(threadIdx.x / 32 * WARP_ROWS + threadIdx.x % 32 / VECTORS), mine(place(row, vector * LANE)) {}

    static __device__ __forceinline__ int place(int row, int column) {
        int chunk = column / 4;
        return row * T::COLUMNS + ((chunk ^ (row & 3) << 1 ^ (chunk >> 3 & 1)) << 2) + column % 4;
    }

    // Every warp's results, where all threads can read them.
    __device__ __forceinline__ void stage(const Results<T>& sum) const {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        int top = warp / T::WARPS_ACROSS * T::WARP_PIXELS + lane / 4;
        int left = warp % T::WARPS_ACROSS * T::WARP_COLUMNS + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < T::DOWN; ++i) {
#pragma unroll
            for (int j = 0; j < T::ACROSS; ++j) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float* at = tile + place(top + i * 16 + half * 8, left + j * 8);
                    *reinterpret_cast<float2*>(at) = make_float2(sum[i][j][2 * half], sum[i][j][2 * half + 1]);
                }
            }
        }
        __syncthreads();
    }

    // This thread's columns of its i-th row, or of its warp's first. Rows i * STEP and `row` have no bit in common within a
    // warp, so that only an XOR stands between their places.
    __device__ __forceinline__ void read(float (&x)[LANE], int i) const { read_at(x, mine ^ (i * STEP & 3) << 3, i * STEP); }
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
};

// The reduction's result for one column, in the block's first COLUMNS threads, of rows first to last of a table in the
// workspace: the threads that share a column take a part each.
template <typename T, typename Part>
__device__ __forceinline__ Part merge_table(const float* table, int first, int last, int span, const Place<T>& place,
                                            float* shared) {
    constexpr int WAYS = T::THREADS / T::COLUMNS;
    const int column = threadIdx.x % T::COLUMNS, way = threadIdx.x / T::COLUMNS;
    const int share = (last - first + WAYS - 1) / WAYS;
    const int from = min(first + way * share, last), to = min(from + share, last);
    Part part{};
    if (place.first_column() + column < place.columns) {
        part = merge_rows<Part>(table + place.first_column() + column, place.columns, from, to, span, place.pixels);
    }
    write_partial(shared + way * 2 * T::COLUMNS + column, T::COLUMNS, part);
    __syncthreads();
    const int pixels = min(last * span, place.pixels) - first * span;
    part = merge_rows<Part>(shared + column, T::COLUMNS, 0, WAYS, share * span, pixels);
    __syncthreads();
    return part;
}

// Pixels of this tile that this warp finishes.
template <typename T> __device__ __forceinline__ int warp_pixels(const Place<T>& place) {
    constexpr int ROWS = Staged<T>::WARP_ROWS;
    return max(0, min(ROWS, place.pixels - place.first_pixel() - int(threadIdx.x) / 32 * ROWS));
}

// Two sums a column over the rows of a thread, added over the lanes that share its columns.
template <typename T> __device__ __forceinline__ void add_lanes(float (&sums)[2][LANE]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < LANE; ++j) {
#pragma unroll
            for (int by = 16; by >= Staged<T>::VECTORS; by /= 2) sums[i][j] += __shfl_xor_sync(0xffffffffu, sums[i][j], by);
        }
    }
}

// From every warp's partial, in each of its lanes the two numbers of the lane's columns, to the result.
template <typename T, typename Part>
__device__ __forceinline__ void reduce(const float (&partial)[2][LANE], const Reduction& to, const Place<T>& place,
                                       float* shared) {
    using S = Staged<T>;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int columns = place.columns, column = place.first_column() + threadIdx.x;
    const bool mine = threadIdx.x < T::COLUMNS && column < columns;
    __syncthreads();  // The staged tile has been read.
    if (lane < S::VECTORS) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < LANE; j += 4) {
                *reinterpret_cast<float4*>(shared + (warp * 2 + i) * T::COLUMNS + lane * LANE + j) =
                    make_float4(partial[i][j], partial[i][j + 1], partial[i][j + 2], partial[i][j + 3]);
            }
        }
    }
    __syncthreads();
    Part total{};
    if (mine) {
        total = merge_rows<Part>(shared + threadIdx.x, T::COLUMNS, 0, T::WARPS, S::WARP_ROWS, place.pixels - place.first_pixel());
        write_partial(to.partials + place.tile * 2 * columns + column, columns, total);
    }

    const int groups = (to.tiles + to.group - 1) / to.group, group = place.tile / to.group;
    const int first = group * to.group, last = min(first + to.group, to.tiles);
    unsigned* tickets = to.tickets + place.column_tile * (groups + 1);
    if (!last_block(tickets + group, last - first)) return;
    total = merge_table<T, Part>(to.partials, first, last, T::PIXELS, place, shared);
    if (groups > 1) {
        float* table = to.partials + to.tiles * 2 * columns;
        if (mine) write_partial(table + group * 2 * columns + column, columns, total);
        if (!last_block(tickets + groups, groups)) return;
        total = merge_table<T, Part>(table, 0, groups, to.group * T::PIXELS, place, shared);
    }
    if (mine) write_result(to.result + column, columns, total);
}

// Forward: y = round(sum + bias), and the moments of y if they are wanted.
template <typename T>
__device__ __forceinline__ void store_output(const Results<T>& sum, element* y, const float* bias, const Reduction& stats,
                                             const Place<T>& place, char* shared) {
    using S = Staged<T>;
    const S staged(shared);
    staged.stage(sum);
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
        Quad rounded = pack(x);
        unpack(rounded, x);
        return rounded;
    };
    // Deviations from the warp's first row. Any of the numbers serves as a pivot: the squares around it are at the most as
    // many times those around the mean as there are numbers, so little is lost when the difference is taken.
    float pivot[LANE], sums[2][LANE] = {};
    staged.read_first(pivot);
    finish(pivot);
#pragma unroll
    for (int i = 0; i < S::ROWS; ++i) {
        int pixel = place.first_pixel() + staged.row + i * S::STEP;
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
    if (!stats.result) return;
    add_lanes<T>(sums);
    const int count = warp_pixels(place);
    const float share = count > 0 ? 1.0f / float(count) : 0.0f;
#pragma unroll
    for (int j = 0; j < LANE; ++j) {
        float shift = sums[0][j] * share;
        sums[1][j] = relu(fmaf(-shift, sums[0][j], sums[1][j]));
        sums[0][j] = pivot[j] + shift;
    }
    reduce<T, Moments>(sums, stats, place, staged.tile);
}

// What the data gradient's epilogue reads besides the products.
struct GradientEnd {
    element* dx;
    bool accumulate;
    const element* y;   // the raw activation in front, or absent: no mask, no sums
    const float* norm;  // [4, C]
};

// Zeros for the pixels that the stride skips after (p, q): the rest of its cell of stride x stride, within the image.
__device__ __forceinline__ void clear_skipped(element* dx, const ConvGeometry& shape, int pixel, int p, int q) {
    int down = min(shape.stride, shape.h - p * shape.stride), right = min(shape.stride, shape.w - q * shape.stride);
    for (int i = 0; i < down; ++i) {
        for (int j = i == 0; j < right; ++j) *reinterpret_cast<Quad*>(dx + (pixel + i * shape.w + j) * shape.c) = Quad{};
    }
}

// Data gradient: dx (+)= sum; masked by the ReLU in front and reduced if `end.y`. With a stride (1x1 filters) the pixels are
// the sampled ones, and each takes its skipped neighbours to the right and below with it: they get zeros.
template <typename T>
__device__ __forceinline__ void store_gradient(const Results<T>& sum, const GradientEnd& end, const ConvGeometry& shape,
                                               Divisor image, Divisor line, const Reduction& sums, const Place<T>& place,
                                               char* shared) {
    using S = Staged<T>;
    // Rows whose loads are under way together.
    constexpr int BATCH = S::ROWS < 4 ? S::ROWS : 4;
    const S staged(shared);
    staged.stage(sum);
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
    float own[2][LANE] = {};
#pragma unroll 1
    for (int first = 0; first < S::ROWS; first += BATCH) {
        int at[BATCH];
        Quad old[BATCH], y[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            int pixel = place.first_pixel() + staged.row + (first + i) * S::STEP;
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
                for (int j = 0; j < LANE; ++j) x[j] = mask(x[j], fmaf(scale[j], other[j], shift[j]));
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
    if (!masks) return;
    add_lanes<T>(own);
    reduce<T, Sums>(own, sums, place, staged.tile);
}

}  // namespace tensor
