// The stem, a convolution of 7x7 taps over 3 channels with stride 2 and padding 3, on tensor cores.
//
// Channels this few leave the implicit GEMM of the other layers nothing to load in 16 bytes. But under a row of taps
// the 21 numbers (s, c) of a pixel lie side by side in memory, 6 further for the next pixel. So a block copies the
// patch of the image that its pixels see as it lies there, and reads the product's fragments from that: row r of the
// filter takes 24 of the summed index, three steps of 8 (21 numbers and 3 whose weights are zero), and no im2col is
// ever written.
//
// Tiles of 8 x 16 output pixels; a patch of 21 rows of 37 pixels. Blocks walk over tiles, in order, the next patch on
// its way while this one is multiplied.
//
// Alignment. Rows of an image of odd size begin anywhere, and copies of 16 bytes want both sides aligned. So a patch
// row keeps its source's place within 16 bytes, and the reader adds it (Patch::origin). In bfloat16 a fragment is pairs
// of numbers, which must begin at even places: where a row begins at an odd one the 24 slots begin one number earlier,
// and the weights move up by one slot to match (`early`). The three spare slots hold neighbours that belong to other
// pixels; they are masked, so that a NaN there stays where it belongs.
#pragma once

#include "conv/geometry.cuh"
#include "primitives/tensor_core.cuh"

namespace stem {

// Starts a copy of `bytes` of 16 bytes from global to shared memory, and of zeros for the rest. `from` lies inside its
// operand even if nothing is read (see copy_async). The 16 bytes may end behind it: they are aligned, so the whole of them
// is on the page of the first.
__device__ __forceinline__ void copy_async_part(unsigned to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

constexpr int TAPS = 7, CHANNELS = 3, STRIDE = 2, PAD = 3;
constexpr int ROW = TAPS * CHANNELS;  // numbers under a row of taps
constexpr int LENGTH = TAPS * ROW;    // weights of a filter
constexpr int SLOTS = 24;             // of the summed index, a row of taps
constexpr int TILE_P = 8, TILE_Q = 16, PIXELS = TILE_P * TILE_Q;
constexpr int FILTERS = 64;  // a block

// Tile `index` of images in reading order.
struct TilePlace {
    int n, p, q;

    __device__ __forceinline__ TilePlace(const ConvGeometry& g, int index) {
        int down = (g.p + TILE_P - 1) / TILE_P, across = (g.q + TILE_Q - 1) / TILE_Q;
        q = index % across * TILE_Q;
        p = index / across % down * TILE_P;
        n = index / across / down;
    }
};

// What a tile of output pixels sees of the image, as the copies of 16 bytes leave it in shared memory.
struct Patch {
    static constexpr int ROWS = STRIDE * (TILE_P - 1) + TAPS;
    // Numbers that are read from a row's origin on, and room for them wherever in 16 bytes the row begins.
    static constexpr int READ = STRIDE * CHANNELS * (TILE_Q - 1) + SLOTS;
    static constexpr int CHUNKS = (READ + 2 * LANE - 2) / LANE;
    static constexpr int PITCH = CHUNKS * LANE;
    static constexpr int BYTES = ROWS * CHUNKS * 16;

    int start;  // where the row 0 begins in memory, were it inside the image: may be negative
    int pitch;  // from row to row, there
    int top, left, height, width;

    __device__ __forceinline__ Patch(const ConvGeometry& g, const TilePlace& at)
        : pitch(g.w * CHANNELS), top(at.p * STRIDE - PAD), left(at.q * STRIDE - PAD), height(g.h), width(g.w) {
        start = ((at.n * g.h + top) * g.w + left) * CHANNELS;
    }

    // Where row `row` begins within its first 16 bytes.
    __device__ __forceinline__ int origin(int row) const { return (start + row * pitch) & (LANE - 1); }

    // Starts the copies. What lies below or to the right of the image becomes zero, and to the left, but for up to LANE
    // - 1 numbers: those are left to clear().
    template <int THREADS> __device__ __forceinline__ void copy(const element* x, unsigned to) const {
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            int row = i / CHUNKS, chunk = i % CHUNKS;
            int begin = start + row * pitch, from = begin - (begin & (LANE - 1)) + chunk * LANE;
            // Numbers of this chunk before the image's row ends; none if it ends before the row begins.
            int rest = begin + (width - left) * CHANNELS - from;
            bool inside = unsigned(top + row) < unsigned(height) && from + LANE > begin - left * CHANNELS;
            int numbers = inside ? max(0, min(LANE, rest)) : 0;
            copy_async_part(to + i * 16, x + (numbers > 0 ? from : 0), numbers * int(sizeof(element)));
        }
    }

    // Zeros to the left of the image, once the copies have landed.
    template <int THREADS> __device__ __forceinline__ void clear(element* patch) const {
        constexpr int PADDING = PAD * CHANNELS;
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < ROWS * PADDING; i += THREADS) {
            int row = i / PADDING;
            patch[row * PITCH + origin(row) + i % PADDING] = element{};
        }
    }
};

// Which tiles this block takes: [begin, end).
struct Range {
    int begin, end;

    __device__ __forceinline__ Range(const ConvGeometry& g) {
        int tiles = g.n * ((g.p + TILE_P - 1) / TILE_P) * ((g.q + TILE_Q - 1) / TILE_Q);
        int share = (tiles + gridDim.x - 1) / gridDim.x;
        begin = min(tiles, int(blockIdx.x) * share);
        end = min(tiles, begin + share);
    }
};

}  // namespace stem
