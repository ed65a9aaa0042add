// Sums over all pixels of a convolution's results, a column each: the statistics of the forward pass, the sums of the
// data gradient.
//
// In a fixed order: rows of a thread, lanes (epilogue.cuh), then as partials, of two numbers a column, the warps
// of a tile, the tiles of a group (by the group's last block) and the groups (by the column's last block). Two levels,
// because a batch has thousands of tiles, and the last block must not walk through them alone while the others have
// gone home.
#pragma once

#include "conv/ampere/main_loop.cuh"
#include "primitives/partials.cuh"
#include "primitives/reduce.cuh"

namespace ampere {

// Where a reduction over all pixels happens. The grid is [tiles][column_tiles], column tiles fastest.
struct Reduction {
    float* result;      // [2][columns]
    float* partials;    // [tiles + groups][2][columns], groups = ceil(tiles / group)
    unsigned* tickets;  // [column_tiles][groups + 1], zero
    int tiles, group;
};

// Which part of the product this block makes.
template <typename T> struct BlockPlace {
    int tile, column_tile;  // of pixels, of columns
    int pixels, columns;    // in all
    __device__ __forceinline__ int first_pixel() const { return tile * T::PIXELS; }
    __device__ __forceinline__ int first_column() const { return column_tile * T::COLUMNS; }
};

// The reduction's result for one column, in the block's first COLUMNS threads, of rows first to last of a table in the
// workspace: the threads that share a column take a part each.
template <typename T, typename Part>
__device__ __forceinline__ Part merge_table(const float* table, int first, int last, int span,
                                            const BlockPlace<T>& place, float* shared) {
    constexpr int WAYS = T::THREADS / T::COLUMNS;
    const int column = threadIdx.x % T::COLUMNS, way = threadIdx.x / T::COLUMNS;
    const int share = (last - first + WAYS - 1) / WAYS;
    const int from = min(first + way * share, last), to = min(from + share, last);
    Part part{};
    if (place.first_column() + column < place.columns) {
        part = merge_rows<Part>(table + place.first_column() + column, place.columns, from, to,
                                EvenSpans{span, place.pixels});
    }
    write_partial(shared + way * 2 * T::COLUMNS + column, T::COLUMNS, part);
    __syncthreads();
    const int pixels = min(last * span, place.pixels) - first * span;
    part = merge_rows<Part>(shared + column, T::COLUMNS, 0, WAYS, EvenSpans{share * span, pixels});
    __syncthreads();
    return part;
}

// From the block's table of partials in shared memory, [PIXELS / span][2][COLUMNS], to the result. `scratch` may hold a
// partial for every thread.
template <typename T, typename Part>
__device__ __forceinline__ void reduce(const float* partials, int span, const Reduction& to, const BlockPlace<T>& place,
                                       float* scratch) {
    const int columns = place.columns, column = place.first_column() + threadIdx.x;
    const bool mine = threadIdx.x < T::COLUMNS && column < columns;
    __syncthreads();
    Part total{};
    if (mine) {
        const int pixels = place.pixels - place.first_pixel();
        total = merge_rows<Part>(partials + threadIdx.x, T::COLUMNS, 0, T::PIXELS / span,
                                 EvenSpans{span, pixels});
        write_partial(to.partials + place.tile * 2 * columns + column, columns, total);
    }

    const int groups = (to.tiles + to.group - 1) / to.group, group = place.tile / to.group;
    const int first = group * to.group, last = min(first + to.group, to.tiles);
    unsigned* tickets = to.tickets + place.column_tile * (groups + 1);
    if (!last_block(tickets + group, last - first)) return;
    total = merge_table<T, Part>(to.partials, first, last, T::PIXELS, place, scratch);
    if (groups > 1) {
        float* table = to.partials + to.tiles * 2 * columns;
        if (mine) write_partial(table + group * 2 * columns + column, columns, total);
        if (!last_block(tickets + groups, groups)) return;
        total = merge_table<T, Part>(table, 0, groups, to.group * T::PIXELS, place, scratch);
    }
    if (mine) write_result(to.result + column, columns, total);
}

}  // namespace ampere
