// Filters of 3x3 that slide down columns of pixels, for channels that make whole 16-byte vectors.
//
// A thread owns a vector of channels and, as `rows` of its Walk, columns of output pixels: `length` of them, one below
// the other, of one image. It reads each row of the input under its column once, three pixels of it, while the row
// before is worked on; pays what they owe; and adds them to the outputs that they belong to, two of which are under way
// with stride 1 and one with stride 2. The filter stays in registers, nine floats for each channel. Neighbouring columns
// are neighbouring threads of a block, so of the three pixels two come from L1; and so that rows where one strip ends
// and the next begins are read but once from memory, strips follow one another in the grid.
#pragma once

#include "conv/geometry.cuh"
#include "depthwise/ends.cuh"

// The grid of columns, and where they lie.
struct Columns {
    WalkShape shape;              // rows: images * strips * width
    int height, width;       // of what is read
    int out_height, out_width;
    int pad;                 // zeros in front of what is read
    int length;              // pixels of a column
    Divisor by_width, by_strips;
};

// One column.
struct Column {
    int image, first, last, place; // its rows are first to last, its place among the columns

    __device__ __forceinline__ Column(const Columns& a, int row, int height) {
        int rest, strip;
        a.by_width.split(row, rest, place);
        a.by_strips.split(rest, image, strip);
        first = strip * a.length;
        last = min(first + a.length, height);
    }
};

__device__ __forceinline__ bool within(int i, int extent) { return unsigned(i) < unsigned(extent); }

// Three neighbours of each row, loaded a row ahead.
template <typename Source> struct Neighbours {
    static constexpr int WIDTH = Source::WIDTH;

    const Source& source;
    int height, width, start, left;
    typename Source::Raw pixel[3];

    __device__ __forceinline__ Neighbours(const Source& source, int height, int width, int image, int left)
        : source(source), height(height), width(width), start(image * height), left(left), pixel{} {}

    __device__ __forceinline__ void load(const Walk<Quad>& walk, int row) {
#pragma unroll
        for (int s = 0; s < 3; ++s) {
            if (within(row, height) && within(left + s, width)) {
                pixel[s] = source.load(walk, (start + row) * width + left + s);
            }
        }
    }
    // Calls `visit(s, value)` for those of the row that are there.
    template <typename Visit>
    __device__ __forceinline__ void visit(const typename Source::Raw (&pixel)[3], int row, Visit visit) const {
#pragma unroll
        for (int s = 0; s < 3; ++s) {
            if (within(row, height) && within(left + s, width)) {
                float value[WIDTH];
                source.pay(pixel[s], value);
                visit(s, value);
            }
        }
    }
};

// The thread's channels of the nine taps, or of the filter turned by half a circle; wherever it begins. Ends with a barrier.
__device__ __forceinline__ void load_filter(float (&w)[9][LANE], const float* from, bool turned, const Walk<Quad>& walk,
                                            Scratch& scratch) {
#pragma unroll
    for (int r = 0; r < 3; ++r) {
        const float* taps[3];
#pragma unroll
        for (int s = 0; s < 3; ++s) taps[s] = from + (turned ? 8 - 3 * r - s : 3 * r + s) * walk.channels;
        float row[3][LANE];
        walk.load_channels(row, taps, scratch);
#pragma unroll
        for (int s = 0; s < 3; ++s) {
#pragma unroll
            for (int j = 0; j < LANE; ++j) w[3 * r + s][j] = row[s][j];
        }
        __syncthreads();
    }
}

__device__ __forceinline__ void add_product(float (&sum)[LANE], const float (&x)[LANE], const float (&w)[LANE]) {
#pragma unroll
    for (int j = 0; j < LANE; ++j) sum[j] = fmaf(x[j], w[j], sum[j]);
}

__device__ __forceinline__ void move(float (&to)[LANE], const float (&from)[LANE]) {
#pragma unroll
    for (int j = 0; j < LANE; ++j) to[j] = from[j];
}

// out[i][j] = sum over r,s of source[i*STRIDE - pad + r][j*STRIDE - pad + s] * w[r][s].
template <int STRIDE, typename Source, typename End>
__device__ __forceinline__ void slide(const Columns& a, const Walk<Quad>& walk, const Source& source, End& end,
                                      const float (&w)[9][LANE]) {
    for (int row = walk.first; row < walk.rows; row += walk.step) {
        const Column column(a, row, a.out_height);
        const int top = column.first * STRIDE - a.pad;
        const int rows = (column.last - column.first - 1) * STRIDE + 3;
        Neighbours<Source> next(source, a.height, a.width, column.image, column.place * STRIDE - a.pad);
        next.load(walk, top);
        int pixel = (column.image * a.out_height + column.first) * a.out_width + column.place;
        // Of the outputs that the row before has touched: the one above, which the coming row ends, and the one below it.
        float above[LANE] = {}, here[LANE] = {};
#pragma unroll 1
        for (int i = 0; i < rows; ++i) {
            const typename Source::Raw now[3] = {next.pixel[0], next.pixel[1], next.pixel[2]};
            if (i + 1 < rows) next.load(walk, top + i + 1);
            const bool ends = i >= 2 && (STRIDE == 1 || i % 2 == 0);
            typename End::Beside beside{};
            if (ends) beside = end.load(walk, pixel);
            float below[LANE] = {};
            if constexpr (STRIDE == 1) {
                next.visit(now, top + i, [&](int s, const float(&x)[LANE]) {
                    add_product(above, x, w[6 + s]);
                    add_product(here, x, w[3 + s]);
                    add_product(below, x, w[s]);
                });
            } else if (i % 2 == 0) {
                next.visit(now, top + i, [&](int s, const float(&x)[LANE]) {
                    add_product(above, x, w[6 + s]);
                    add_product(below, x, w[s]);
                });
            } else {
                next.visit(now, top + i, [&](int s, const float(&x)[LANE]) { add_product(above, x, w[3 + s]); });
            }
            if (ends) {
                end.store(walk, pixel, beside, above);
                pixel += a.out_width;
            }
            if constexpr (STRIDE == 1) {
                move(above, here);
                move(here, below);
            } else if (i % 2 == 0) {
                move(above, below);
            }
        }
    }
}

// The data gradient of stride 2: a column is one of cells of 2x2 pixels, the first of which the filter's corner (0, 0)
// meets at dy[p][q]. That pixel's three neighbours are met there too, and it also at the three dy above and to the left.
template <typename Source, typename End>
__device__ __forceinline__ void spread(const Columns& a, const Walk<Quad>& walk, const Source& source, End& end,
                                       const float (&w)[9][LANE]) {
    const int cells = (a.out_height - 1 + a.pad) / 2 + 1;
    for (int row = walk.first; row < walk.rows; row += walk.step) {
        const Column column(a, row, cells);
        const int q = column.place, left = 2 * q - a.pad;
        // What the row of dy before adds to the first row of a cell.
        float over[2][LANE] = {};
        auto load = [&](int p, typename Source::Raw(&raw)[2]) {
#pragma unroll
            for (int back = 0; back < 2; ++back) {
                if (within(p, a.height) && within(q - back, a.width)) {
                    raw[back] = source.load(walk, (column.image * a.height + p) * a.width + q - back);
                }
            }
        };
        typename Source::Raw next[2] = {};
        load(column.first - 1, next);
#pragma unroll 1
        for (int p = column.first - 1; p < column.last; ++p) {
            const typename Source::Raw now[2] = {next[0], next[1]};
            if (p + 1 < column.last) load(p + 1, next);
            float dy[2][LANE] = {};
#pragma unroll
            for (int back = 0; back < 2; ++back) {
                if (within(p, a.height) && within(q - back, a.width)) source.pay(now[back], dy[back]);
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int h = 2 * p - a.pad + r;
                if (p < column.first || !within(h, a.out_height)) continue;
                const int pixel = (column.image * a.out_height + h) * a.out_width + left;
                typename End::Beside beside[2] = {};
#pragma unroll
                for (int s = 0; s < 2; ++s) {
                    if (within(left + s, a.out_width)) beside[s] = end.load(walk, pixel + s);
                }
#pragma unroll
                for (int s = 0; s < 2; ++s) {
                    if (!within(left + s, a.out_width)) continue;
                    float sum[LANE] = {};
                    if (r == 0) move(sum, over[s]);
                    add_product(sum, dy[0], w[3 * r + s]);
                    if (s == 0) add_product(sum, dy[1], w[3 * r + 2]);
                    end.store(walk, pixel + s, beside[s], sum);
                }
            }
#pragma unroll
            for (int j = 0; j < LANE; ++j) {
                over[0][j] = fmaf(dy[0][j], w[6][j], dy[1][j] * w[8][j]);
                over[1][j] = dy[0][j] * w[7][j];
            }
        }
    }
}

// sums[r][s] += source[i*STRIDE - pad + r][j*STRIDE - pad + s] * dy[i][j].
template <int STRIDE, typename Source, typename Slope>
__device__ __forceinline__ void correlate(const Columns& a, const Walk<Quad>& walk, const Source& source,
                                          const Slope& slope, float (&sums)[9][LANE]) {
    for (int row = walk.first; row < walk.rows; row += walk.step) {
        const Column column(a, row, a.out_height);
        const int top = column.first * STRIDE - a.pad, length = column.last - column.first;
        const int rows = (length - 1) * STRIDE + 3;
        Neighbours<Source> next(source, a.height, a.width, column.image, column.place * STRIDE - a.pad);
        next.load(walk, top);
        int pixel = (column.image * a.out_height + column.first) * a.out_width + column.place;
        typename Slope::Raw raw = slope.load(walk, pixel);
        // dy of the output that begins with this row of the input, and of the two above it.
        float dy[3][LANE] = {};
#pragma unroll 1
        for (int i = 0; i < rows; ++i) {
            const typename Source::Raw now[3] = {next.pixel[0], next.pixel[1], next.pixel[2]};
            if (i + 1 < rows) next.load(walk, top + i + 1);
            if (i % STRIDE == 0) {
                if (STRIDE == 1) move(dy[2], dy[1]);
                move(dy[1], dy[0]);
                if (i < length * STRIDE) slope.pay(raw, dy[0]);
                else
#pragma unroll
                    for (int j = 0; j < LANE; ++j) dy[0][j] = 0.0f;
                if (i + STRIDE < length * STRIDE) raw = slope.load(walk, pixel += a.out_width);
            }
            next.visit(now, top + i, [&](int s, const float(&x)[LANE]) {
                if constexpr (STRIDE == 1) {
                    add_product(sums[s], x, dy[0]);
                    add_product(sums[3 + s], x, dy[1]);
                    add_product(sums[6 + s], x, dy[2]);
                } else if (i % 2 == 0) {
                    add_product(sums[s], x, dy[0]);
                    add_product(sums[6 + s], x, dy[1]);
                } else {
                    add_product(sums[3 + s], x, dy[0]);
                }
            });
        }
    }
}
