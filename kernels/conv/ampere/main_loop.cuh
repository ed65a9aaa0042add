// Convolution as a matrix product on tensor cores: the main loop that the forward pass and the data gradient share.
//
// Both are D[pixel][column] = sum over taps (r, s) and channels c of A[pixel moved by the tap][c] * B[tap][c][column]:
//   forward         A = x, columns are filters,         B = w[column][r][s][c]    (rows of channels: FilterRows)
//   data gradient   A = dy, columns are input channels, B = w[c][r'][s'][column]  (rows of columns: ChannelRows)
// where r' = R - 1 - r and s' = S - 1 - s turn the filter. A is never written out (im2col): each thread computes where
// its pixels lie at each tap, and copies of pixels in the padding, past the last pixel or past the last channel fill in
// zeros without reading.
//
// Tiling. A block makes PIXELS x COLUMNS results, a warp WARP_PIXELS x WARP_COLUMNS of them, in registers. The sum is
// cut into slices of 64 bytes of channels (SLICE) at one tap. Channels are the outer loop and taps the inner one, so
// that the taps of a slice, which read nearly the same pixels, follow one another and find them in the L1 cache.
//
// Pipeline. STAGES slices are in shared memory or on their way (cp.async, 16 bytes a copy). A slice is two steps of 32
// bytes of channels, a step's fragments come 16 rows at a time, and while the tensor cores multiply one such row of
// tiles the next is loaded. Before the last row of a slice the block waits for the next slice (a thread first for its
// own copies, which its warp then transforms if that is due: input_transform.cuh), and starts the copies of slice
// + STAGES over the one just read.
//
// Shared memory, a stage: A [PIXELS][64 bytes], then B, [COLUMNS][64 bytes] or [SLICE][COLUMNS]. Chunks of 16 bytes
// change places within a row, by an XOR with bits of the row's number, so that the eight rows that one phase of
// ldmatrix reads lie in different banks, and the copies' as well.
//
// The bytes of bfloat16 and TF32 fragments lie alike (a word is two of one or one of the other), so one code serves
// both.
#pragma once

#include "conv/geometry.cuh"
#include "conv/ampere/input_transform.cuh"
#include "primitives/tensor_core.cuh"

namespace ampere {

constexpr int STAGES = 3;
// Channels in a row of 64 bytes, and the row's chunks of 16 bytes.
constexpr int SLICE = 4 * LANE;
constexpr int CHUNKS = 4;

template <int PIXELS_, int COLUMNS_, int WARP_PIXELS_, int WARP_COLUMNS_> struct ProductTile {
    static constexpr int PIXELS = PIXELS_, COLUMNS = COLUMNS_;
    static constexpr int WARP_PIXELS = WARP_PIXELS_, WARP_COLUMNS = WARP_COLUMNS_;
    static constexpr int WARPS_ACROSS = COLUMNS / WARP_COLUMNS;
    static constexpr int WARPS = WARPS_ACROSS * (PIXELS / WARP_PIXELS), THREADS = 32 * WARPS;
    // A warp's products: m16n8 each.
    static constexpr int DOWN = WARP_PIXELS / 16, ACROSS = WARP_COLUMNS / 8;
    // Copies of 16 bytes a thread makes for a slice of A, and for one of B.
    static constexpr int PIXEL_COPIES = PIXELS * CHUNKS / THREADS, COLUMN_COPIES = COLUMNS * CHUNKS / THREADS;
    static constexpr int COLUMN_BYTES = PIXELS * 64;
    static constexpr int STAGE_BYTES = (PIXELS + COLUMNS) * 64;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES;
};

// A warp's results: two of row lane / 4 at columns 2 * (lane % 4), two of the row 8 below, for each 16 x 8 of the
// warp's tile.
template <typename T> using Results = float[T::DOWN][T::ACROSS][4];

// Where the main loop is in its sum.
struct Position {
    int r, s, tap, channel;

    // Without branches, so that the main loop stays in one piece.
    __device__ __forceinline__ void advance(const ConvGeometry& shape) {
        bool line = ++s == shape.s;
        s = line ? 0 : s;
        r = line ? r + 1 : r;
        bool all = r == shape.r;
        r = all ? 0 : r;
        tap = all ? 0 : tap + 1;
        channel = all ? channel + SLICE : channel;
    }
};

// Chunk `chunk` of row `row` of a tile of 64-byte rows. Two rows share a line of all banks.
__device__ __forceinline__ unsigned swizzled(int row, int chunk) { return row * 64 + ((chunk ^ (row >> 1 & 3)) << 4); }

// Where a thread makes its first copy of a tile of 64-byte rows. Neighbouring lanes copy the same chunk of neighbouring
// rows, as the input transform wants it; eight lanes two whole rows.
__device__ __forceinline__ int copied_row() { return threadIdx.x / 8 * 2 + threadIdx.x % 2; }
__device__ __forceinline__ int copied_chunk() { return threadIdx.x / 2 % CHUNKS; }

// A's copies; filters of 15 x 15 taps at the most. `shape` is the geometry of the pass seen as a forward convolution:
// its input is A, its output the pixels.
template <typename T> struct PixelCopies {
    // From one copy of a thread to its next: rows, and bytes of shared memory.
    static constexpr int ROWS = T::THREADS / CHUNKS, APART = ROWS * 64;

    const ConvGeometry& shape;
    const element* source;
    unsigned to;
    int channel;
    // Of each row: where its first tap lies in `source`, and which taps lie inside the image (bit r, and bit 16 + s).
    int offset[T::PIXEL_COPIES];
    unsigned taps[T::PIXEL_COPIES];

    __device__ __forceinline__ PixelCopies(const ConvGeometry& shape, const element* source, Divisor image,
                                           Divisor line, int pad_top, int pad_left, int first_pixel)
        : shape(shape), source(source) {
        int row = copied_row(), chunk = copied_chunk();
        to = swizzled(row, chunk);
        channel = chunk * LANE;
#pragma unroll
        for (int i = 0; i < T::PIXEL_COPIES; ++i) {
            int pixel = first_pixel + row + i * ROWS;
            int n, p, q, in_image;
            image.split(pixel, n, in_image);
            line.split(in_image, p, q);
            int top = p * shape.stride - pad_top, left = q * shape.stride - pad_left;
            offset[i] = ((n * shape.h + top) * shape.w + left) * shape.c + channel;
            taps[i] = 0;
            if (pixel >= shape.n * shape.p * shape.q) continue;
            for (int r = 0; r < shape.r; ++r) taps[i] |= unsigned(unsigned(top + r) < unsigned(shape.h)) << r;
            for (int s = 0; s < shape.s; ++s) taps[i] |= unsigned(unsigned(left + s) < unsigned(shape.w)) << (16 + s);
        }
    }

    // Starts this thread's copies of a slice, and says which bits of `taps` a row must have for more than zeros.
    __device__ __forceinline__ unsigned start(unsigned stage, const Position& at) const {
        unsigned tap = at.channel + channel < shape.c ? 1u << at.r | 0x10000u << at.s : ~0u;
        int step = (at.r * shape.w + at.s) * shape.c + at.channel;
#pragma unroll
        for (int i = 0; i < T::PIXEL_COPIES; ++i) {
            bool inside = (tap & ~taps[i]) == 0;
            copy_async_cached(stage + to + i * APART, source + (inside ? offset[i] + step : 0), inside);
        }
        return tap;
    }
};

// B of the forward pass: w[column][tap][c], a row of the tile a filter.
template <typename T> struct FilterRows {
    static constexpr int ROWS = T::THREADS / CHUNKS;  // from one copy of a thread to its next

    const ConvGeometry& shape;
    const element* w;
    unsigned to;
    int channel, columns_here;
    int offset[T::COLUMN_COPIES];  // where each of the thread's rows begins in `w`; 0 where there is no such filter

    __device__ __forceinline__ FilterRows(const ConvGeometry& shape, const element* weights, int first_column)
        : shape(shape), w(weights) {
        int row = copied_row(), chunk = copied_chunk();
        to = T::COLUMN_BYTES + swizzled(row, chunk);
        channel = chunk * LANE;
        columns_here = shape.k - first_column - row;
        int filter = shape.r * shape.s * shape.c;
#pragma unroll
        for (int i = 0; i < T::COLUMN_COPIES; ++i) {
            offset[i] = i * ROWS < columns_here ? (first_column + row + i * ROWS) * filter : 0;
        }
    }

    __device__ __forceinline__ void start(unsigned stage, const Position& at) const {
        bool in_channels = at.channel + channel < shape.c;
        int step = in_channels ? at.tap * shape.c + at.channel + channel : 0;
#pragma unroll
        for (int i = 0; i < T::COLUMN_COPIES; ++i) {
            bool inside = in_channels && i * ROWS < columns_here;
            copy_async(stage + to + i * (ROWS * 64), w + (offset[i] + step), inside);
        }
    }

    // Fragments of one step for all the warp's columns, two n8 tiles a load.
    struct Loader {
        unsigned at;

        __device__ __forceinline__ Loader(int first_column) {
            int lane = threadIdx.x % 32;
            at = T::COLUMN_BYTES + swizzled(first_column + (lane & 7) + (lane >> 4 << 3), lane >> 3 & 1);
        }

        __device__ __forceinline__ void load(unsigned (&b)[T::ACROSS][2], unsigned stage, int step) const {
#pragma unroll
            for (int j = 0; j < T::ACROSS; j += 2) {
                unsigned tile[4];
                load_tiles(tile, stage + (at ^ step << 5) + j * 8 * 64);
                b[j][0] = tile[0], b[j][1] = tile[1], b[j + 1][0] = tile[2], b[j + 1][1] = tile[3];
            }
        }
    };
};

// B of the data gradient: w[c][tap][column], a row of the tile one of the slice's channels (which are the filters).
template <typename T> struct ChannelRows {
    static constexpr int ROW_CHUNKS = T::COLUMNS / LANE;
    static constexpr int ROWS = T::THREADS / ROW_CHUNKS;
    static constexpr int ROW_BYTES = ROW_CHUNKS * 16;

    // bfloat16: the eight rows of a transposed 8x8 tile in different banks. Singles are read one by one, four rows of
    // eight columns at a time, so those four must differ by a pair of chunks.
    static __device__ __forceinline__ unsigned place(int row, int chunk) {
        return row * ROW_BYTES + ((chunk ^ (LANE == 8 ? row & 7 : (row & 3) << 1)) << 4);
    }

    const ConvGeometry& shape;
    const element* w;
    int row, chunk;
    bool in_columns;
    int first;  // where the thread's first row of channels lies in `w`, of its first tap

    __device__ __forceinline__ ChannelRows(const ConvGeometry& shape, const element* weights, int first_column)
        : shape(shape), w(weights), row(threadIdx.x / ROW_CHUNKS), chunk(threadIdx.x % ROW_CHUNKS) {
        in_columns = first_column + chunk * LANE < shape.k;
        first = row * shape.r * shape.s * shape.k + first_column + chunk * LANE;
    }

    __device__ __forceinline__ void start(unsigned stage, const Position& at) const {
        int taps = shape.r * shape.s;
        int step = first + (at.channel * taps + taps - 1 - at.tap) * shape.k;
#pragma unroll
        for (int i = 0; i < T::COLUMN_COPIES; ++i) {
            bool inside = in_columns && at.channel + row + i * ROWS < shape.c;
            unsigned to = T::COLUMN_BYTES + place(row + i * ROWS, chunk);
            copy_async(stage + to, w + (inside ? i * ROWS * taps * shape.k + step : 0), inside);
        }
    }

    struct Loader {
        int column;

        __device__ __forceinline__ Loader(int first_column) : column(first_column) {}

        __device__ __forceinline__ void load(unsigned (&b)[T::ACROSS][2], unsigned stage, int step) const {
            int lane = threadIdx.x % 32;
            stage += T::COLUMN_BYTES;
#ifdef PRECISION_BF16
            int row = step * 16 + (lane & 15);
#pragma unroll
            for (int j = 0; j < T::ACROSS; j += 2) {
                unsigned tile[4];
                load_tiles_transposed(tile, stage + place(row, column / 8 + j + (lane >> 4)));
                b[j][0] = tile[0], b[j][1] = tile[1], b[j + 1][0] = tile[2], b[j + 1][1] = tile[3];
            }
#else
#pragma unroll
            for (int j = 0; j < T::ACROSS; ++j) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    int row = step * 8 + half * 4 + lane % 4, at = column + j * 8 + lane / 4;
                    b[j][half] = load_word(stage + place(row, at / 4) + at % 4 * 4);
                }
            }
#endif
        }
    };
};

#ifdef PRECISION_BF16
template <int N> __device__ __forceinline__ void round_operands(unsigned (&)[N]) {}
#else
// TF32 operands are floats up to here.
template <int N> __device__ __forceinline__ void round_operands(unsigned (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = round_tf32(__uint_as_float(x[i]));
}
#endif

// 16 rows' products with all of the warp's columns.
template <int ACROSS>
__device__ __forceinline__ void multiply(float (&sum)[ACROSS][4], const unsigned (&a)[4],
                                         const unsigned (&b)[ACROSS][2]) {
#pragma unroll
    for (int j = 0; j < ACROSS; ++j) {
#ifdef PRECISION_BF16
        multiply_bf16(sum[j], a, b[j][0], b[j][1]);
#else
        multiply_tf32(sum[j], a, b[j][0], b[j][1]);
#endif
    }
}

// sum += A * B over all slices, of A as `input` leaves it. `shared` is SHARED_BYTES long, and free again on return.
template <typename T, typename Columns, typename Transform>
__device__ __forceinline__ void multiply_slices(Results<T>& sum, char* shared, const PixelCopies<T>& pixels,
                                                const Columns& columns, const Transform& input) {
    const ConvGeometry& shape = pixels.shape;
    const unsigned base = shared_address(shared);
    const int slices = (shape.c + SLICE - 1) / SLICE * shape.r * shape.s;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned a_at = swizzled(warp / T::WARPS_ACROSS * T::WARP_PIXELS + lane % 16, lane / 16);
    const typename Columns::Loader b_loader(warp % T::WARPS_ACROSS * T::WARP_COLUMNS);

    // Of each slice in shared memory or on its way, the oldest first: its first channel, and what `start` said.
    int channel[STAGES] = {};
    unsigned tap[STAGES] = {};
    Position next{0, 0, 0, 0};
    // A group of copies is closed for every slice, behind the last one empty, because groups are waited for by their
    // count.
    auto copy = [&](unsigned stage, bool more) {
#pragma unroll
        for (int i = 1; i < STAGES; ++i) channel[i - 1] = channel[i], tap[i - 1] = tap[i];
        if (more) {
            channel[STAGES - 1] = next.channel;
            tap[STAGES - 1] = pixels.start(stage, next);
            columns.start(stage, next);
            next.advance(shape);
        }
        commit_copies();
    };

    // 16 rows of A in use, and the 16 to follow; the columns' fragments of this step, and of the next.
    unsigned a[2][4], b[2][T::ACROSS][2];
    static_assert(T::DOWN % 2 == 0, "a step begins with a[0]");
    auto load_rows = [&](unsigned stage, int step, int i) {
        load_tiles(a[i % 2], stage + (a_at ^ step << 5) + i * 16 * 64);
    };

#pragma unroll
    for (int stage = 0; stage < STAGES; ++stage) copy(base + stage * T::STAGE_BYTES, stage < slices);
    await_copies<STAGES - 1>();
    input.apply(base, channel[0], tap[0]);
    __syncthreads();
    b_loader.load(b[0], base, 0);
    load_rows(base, 0, 0);

    unsigned stage = base;
    // `more` says whether there is a slice to copy, `next_one` whether there is one to multiply.
    auto multiply_slice = [&](bool more, bool next_one) {
        const unsigned following = stage == base + (STAGES - 1) * T::STAGE_BYTES ? base : stage + T::STAGE_BYTES;
#pragma unroll
        for (int step = 0; step < 2; ++step) {
#pragma unroll
            for (int i = 0; i < T::DOWN; ++i) {
                if (i + 1 < T::DOWN) {
                    load_rows(stage, step, i + 1);
                } else if (step == 0) {
                    b_loader.load(b[1], stage, 1);
                    load_rows(stage, 1, 0);
                } else {
                    await_copies<STAGES - 2>();
                    if (next_one) input.apply(following, channel[1], tap[1]);
                    __syncthreads();
                    copy(stage, more);
                    if (next_one) {
                        b_loader.load(b[0], following, 0);
                        load_rows(following, 0, 0);
                    }
                }
                if (i == 0) {
#pragma unroll
                    for (int j = 0; j < T::ACROSS; ++j) round_operands(b[step][j]);
                }
                round_operands(a[i % 2]);
                multiply(sum[i], a[i % 2], b[step]);
            }
        }
        stage = following;
    };
    // The main loop proper has no branches.
    int slice = 0;
#pragma unroll 1
    for (; slice < slices - STAGES; ++slice) multiply_slice(true, true);
#pragma unroll 1
    for (; slice < slices; ++slice) multiply_slice(false, slice + 1 < slices);
    __syncthreads();
}

}  // namespace ampere
