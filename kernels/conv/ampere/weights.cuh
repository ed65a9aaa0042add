// The weight gradient on tensor cores.
//
//     dw[k][j] += sum over pixels i of dy[i][k] * u[i][j]        i = (n, p, q), j = (r, s, c)
//     u[i][j] = transform(x)[n, p*stride - pad + r, q*stride - pad + s, c], zero outside the image
//
// where transform(x) is x itself without a norm; with one, in conv_backward_weights_TILE, max(0, scale * x + shift), and in
// conv_backward_weights_bounded_TILE scale * x + shift, kept between bounds that are given at launch.
//
// A matrix product: M = K filters, N = R*S*C columns, summed over N*P*Q pixels. The im2col matrix u exists in shared
// memory only. A thread copies 16 bytes of its rows, and because C is a multiple of LANE those lie in one tap; which
// one, and its channels' scale and shift, stay in registers, since a thread keeps to its column. Columns run on over
// the taps, so that a tile of 128 takes two taps of 64 channels and dy is read R*S*C / COLUMNS times, not R*S times.
//
// Both operands have the summed index outermost in memory, the wrong way round for fragments: ldmatrix.trans turns
// 16-bit elements, and 32-bit ones are loaded word by word.
//
// Shared memory: STAGES x (dy [PIXELS][FILTERS], u [PIXELS][COLUMNS]) with the 16-byte chunks of a row permuted
// (`chunk_at`), then the pixels of four slices (`Pixel`): SHARED_BYTES.
//
// Launch: tiles of (columns, filters) by splits, THREADS threads. A split sums `pixels_per_split` neighbouring pixels.
// One split adds its tile to dw; several write [split][K][R*S*C] to `partials`, for conv_backward_weights_sum. Left to
// the last block of a tile, that sum would be a hundred tiles read by one multiprocessor, longer than the product
// itself.
//
// C and K are multiples of LANE, every address is one of 16 bytes, R and S are at most 15.
//
// Floor: 2*K*R*S*C*N*P*Q FLOPs; from DRAM dy and x once, and the partials written and read; from L2 1/FILTERS +
// 1/COLUMNS elements a multiply-add; of shared memory three clocks for every four of the tensor cores' (A100) in a tile
// of 128x128, all four if it transforms.
#pragma once

#include "conv/geometry.cuh"
#include "primitives/tensor_core.cuh"

struct ConvBackwardWeights {
    float* dw;          // [K][R][S][C], written if there are no partials
    float* partials;    // [splits][K][R][S][C], or 0 if there is one split
    const element* dy;  // [N][P][Q][K]
    const element* x;   // [N][H][W][C]
    const float* norm;  // [4][C], of which rows 0 and 1, scale and shift, are read; or 0
    ConvGeometry shape;
    Divisor by_p, by_q;
    int pixels_per_split;  // a multiple of PIXELS
    Bounds bounds;         // of the bounded form
};

#ifndef PRECISION_F32
namespace weights {

// Pixels in a slice, which is one stage of the ring: 32 in bfloat16, 16 in float, the same bytes.
constexpr int PIXELS = 64 / sizeof(element);

// A warp takes 64 x 64 of dw: 32 products for 8 loads of fragments. With half of that, shared memory would be busy for
// longer than the tensor cores. FILTERS x COLUMNS of dw are a block's.
constexpr int WARP = 64;
constexpr int STAGES = 3;

template <int FILTERS_, int COLUMNS_> struct WeightsTile {
    static constexpr int FILTERS = FILTERS_, COLUMNS = COLUMNS_;
    static constexpr int WARPS_ACROSS = COLUMNS / WARP;
    static constexpr int WARPS = FILTERS / WARP * WARPS_ACROSS;
    static constexpr int THREADS = WARPS * 32;
    static constexpr int DY_BYTES = PIXELS * FILTERS * sizeof(element);
    static constexpr int STAGE_BYTES = DY_BYTES + PIXELS * COLUMNS * sizeof(element);
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + 4 * PIXELS * 8;
};

// How a block's threads share a slice of WIDTH elements a row: one column of chunks each, COPIES rows that are ROWS
// apart.
template <int WIDTH, int THREADS> struct RowShare {
    static constexpr int ROW_BYTES = WIDTH * sizeof(element);
    static constexpr int CHUNKS = WIDTH / LANE;
    static constexpr int ROWS = THREADS / CHUNKS;
    static constexpr int COPIES = PIXELS / ROWS;
};

// Where a slice keeps chunk `chunk` of row `row`: scattered so that what a warp reads at once lies in different banks,
// eight rows of one chunk for ldmatrix, or four rows of two chunks for loads of a word. Bits above the scattered ones
// stay.
template <int ROW_BYTES> __device__ __forceinline__ unsigned chunk_at(int row, int chunk) {
    const int scatter = sizeof(element) == 2 ? row % 8 : row % 4 * 2;
    return row * ROW_BYTES + ((chunk ^ scatter) << 4);
}

// acc += dyᵀ u over a slice, for the warp's tile that starts at chunks `filter_chunk` and `column_chunk`.
template <typename T>
__device__ __forceinline__ void multiply_slice(float (&acc)[WARP / 16][WARP / 8][4], unsigned dy, unsigned u,
                                               int filter_chunk, int column_chunk) {
    constexpr int DY_ROW = T::FILTERS * sizeof(element), U_ROW = T::COLUMNS * sizeof(element);
    const int lane = threadIdx.x % 32;
#ifdef PRECISION_BF16
    // Lanes 8i to 8i + 7 give the rows of 8x8 tile i. Of dy: pixels 0-7 then 8-15, for each two chunks of filters. Of
    // u: two chunks of columns, for each pixels 0-7 then 8-15. Chunks are added to the address by XOR, which the
    // swizzle allows.
    const unsigned dy_lane = dy + chunk_at<DY_ROW>(lane / 16 * 8 + lane % 8, filter_chunk + lane / 8 % 2);
    const unsigned u_lane = u + chunk_at<U_ROW>(lane / 8 % 2 * 8 + lane % 8, column_chunk + lane / 16);
#pragma unroll
    for (int pixel = 0; pixel < PIXELS; pixel += 16) {
        unsigned columns[WARP / 16][4];
#pragma unroll
        for (int j = 0; j < WARP / 16; ++j) load_tiles_transposed(columns[j], (u_lane ^ (j << 5)) + pixel * U_ROW);
#pragma unroll
        for (int m = 0; m < WARP / 16; ++m) {
            unsigned filters[4];
            load_tiles_transposed(filters, (dy_lane ^ (m << 5)) + pixel * DY_ROW);
#pragma unroll
            for (int j = 0; j < WARP / 8; ++j) {
                multiply_bf16(acc[m][j], filters, columns[j / 2][j % 2 * 2], columns[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
#else
    // Lane 4g + t reads filter (or column) g of each eight, of pixels t and t + 4. Eights are two chunks.
    const int g = lane / 4, t = lane % 4;
    const unsigned dy_lane = dy + chunk_at<DY_ROW>(t, filter_chunk + g / 4) + g % 4 * 4;
    const unsigned u_lane = u + chunk_at<U_ROW>(t, column_chunk + g / 4) + g % 4 * 4;
    auto load = [](unsigned lane, int eight) {
        return round_tf32(__uint_as_float(load_word((lane ^ (eight % 4 << 5)) + eight / 4 * 128)));
    };
#pragma unroll
    for (int pixel = 0; pixel < PIXELS; pixel += 8) {
        unsigned columns[WARP / 8][2];
#pragma unroll
        for (int j = 0; j < WARP / 8; ++j) {
#pragma unroll
            for (int i = 0; i < 2; ++i) columns[j][i] = load(u_lane + (pixel + 4 * i) * U_ROW, j);
        }
#pragma unroll
        for (int m = 0; m < WARP / 16; ++m) {
            unsigned filters[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) filters[i] = load(dy_lane + (pixel + i / 2 * 4) * DY_ROW, 2 * m + i % 2);
#pragma unroll
            for (int j = 0; j < WARP / 8; ++j) multiply_tf32(acc[m][j], filters, columns[j][0], columns[j][1]);
        }
    }
#endif
}

// Adds two neighbouring results to dw, or stores them as a split's part.
__device__ __forceinline__ void put(float* to, float first, float second, bool add) {
    struct alignas(8) TwoFloats {
        float first, second;
    };
    TwoFloats* const pair = reinterpret_cast<TwoFloats*>(to);
    if (add) {
        const TwoFloats old = *pair;
        first += old.first;
        second += old.second;
    }
    *pair = TwoFloats{first, second};
}

// An output pixel as the copies of u need it.
struct Pixel {
    int first;      // the pixel of x under tap (pad, pad): (n*H + p*stride)*W + q*stride
    unsigned taps;  // bit r and bit 16 + s: row r and column s of the filter lie on the image, r and s < 15
};

constexpr unsigned NEVER = 1u << 15;  // a bit that no pixel has

// The n lowest bits.
__device__ __forceinline__ unsigned low_bits(int n) { return (1u << min(max(n, 0), 15)) - 1; }

__device__ __forceinline__ Pixel locate(const ConvBackwardWeights& a, int pixel, int end) {
    int n, p, q;
    a.by_q.split(pixel, p, q);
    a.by_p.split(p, n, p);
    const int h = p * a.shape.stride, w = q * a.shape.stride, pad = a.shape.pad;
    const unsigned rows = low_bits(a.shape.h + pad - h) & ~low_bits(pad - h);
    const unsigned columns = low_bits(a.shape.w + pad - w) & ~low_bits(pad - w);
    return Pixel{(n * a.shape.h + h) * a.shape.w + w, pixel < end ? rows | columns << 16 : 0};
}

template <typename T, bool BOUNDED> __device__ __forceinline__ void backward(const ConvBackwardWeights& a) {
    using DyShare = RowShare<T::FILTERS, T::THREADS>;
    using UShare = RowShare<T::COLUMNS, T::THREADS>;
    extern __shared__ __align__(128) unsigned char ring[];
    Pixel(*const located)[PIXELS] = reinterpret_cast<Pixel(*)[PIXELS]>(ring + STAGES * T::STAGE_BYTES);
    const unsigned base = shared_address(ring);
    const ConvGeometry& shape = a.shape;
    const int columns = shape.r * shape.s * shape.c;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    const int first = blockIdx.z * a.pixels_per_split;
    const int end = min(first + a.pixels_per_split, shape.n * shape.p * shape.q);
    const int slices = (end - first + PIXELS - 1) / PIXELS;

    // What this thread copies of dy: LANE filters of rows dy_row + i * ROWS, of which dy_left are left in the split.
    const int dy_row = threadIdx.x / DyShare::CHUNKS, dy_chunk = threadIdx.x % DyShare::CHUNKS;
    const int filter = blockIdx.y * T::FILTERS + dy_chunk * LANE;
    int dy_left = filter < shape.k ? end - first - dy_row : 0;
    int dy_at = (first + dy_row) * shape.k + filter;

    // And of u: LANE channels of tap (r, s).
    const int u_row = threadIdx.x / UShare::CHUNKS, u_chunk = threadIdx.x % UShare::CHUNKS;
    const int column = blockIdx.x * T::COLUMNS + u_chunk * LANE;
    const int tap = column / shape.c, channel = column % shape.c;
    const int r = tap / shape.s, s = tap % shape.s;
    const unsigned taps = column < columns ? 1u << r | 1u << (16 + s) : NEVER;
    // In bytes, so that an address is one multiply-add.
    const int row_bytes = shape.c * sizeof(element);
    const int moved = (r - shape.pad) * shape.w + s - shape.pad;
    const char* u_from = reinterpret_cast<const char*>(a.x + moved * shape.c + channel);

    float scale[LANE], shift[LANE];
    if (a.norm != nullptr && column < columns) {
#pragma unroll
        for (int i = 0; i < LANE; ++i) {
            scale[i] = a.norm[channel + i];
            shift[i] = a.norm[shape.c + channel + i];
        }
    }

    // One warp finds the pixels of a slice for all. Four slices have room: one is written while another is used.
    auto locate_slice = [&](int slice) {
        if (lane < PIXELS) located[slice % 4][lane] = locate(a, first + slice * PIXELS + lane, end);
    };

    // A bit a chunk of u in flight, those of the latest slice lowest: whether it is of the image. The rest is zeros and
    // stays so.
    unsigned in_image = 0;

    // Starts the copies of a slice; past the end those of an empty group, so that groups count slices.
    auto copy_slice = [&](int slice, unsigned stage) {
        in_image <<= UShare::COPIES;
        if (slice < slices) {
#pragma unroll
            for (int i = 0; i < DyShare::COPIES; ++i) {
                const int row = i * DyShare::ROWS;
                const bool valid = row < dy_left;
                copy_async(stage + chunk_at<DyShare::ROW_BYTES>(dy_row + row, dy_chunk),
                           a.dy + (valid ? dy_at + row * shape.k : 0), valid);
            }
            dy_at += PIXELS * shape.k;
            dy_left -= PIXELS;
#pragma unroll
            for (int i = 0; i < UShare::COPIES; ++i) {
                const int row = u_row + i * UShare::ROWS;
                const Pixel pixel = located[slice % 4][row];
                const bool valid = (pixel.taps & taps) == taps;
                // What isn't in the image is copied from x's first pixel, which is `moved` before u_from.
                copy_async(stage + T::DY_BYTES + chunk_at<UShare::ROW_BYTES>(row, u_chunk),
                           u_from + (long long)(valid ? pixel.first : -moved) * row_bytes, valid);
                in_image |= valid ? 1u << i : 0;
            }
        }
        commit_copies();
    };

    // Pays what x owes, where this thread's own copies have landed.
    auto transform_slice = [&](unsigned stage) {
#pragma unroll
        for (int i = 0; i < UShare::COPIES; ++i) {
            if (in_image & 1u << ((STAGES - 2) * UShare::COPIES + i)) {
                const int row = u_row + i * UShare::ROWS;
                const unsigned at = stage + T::DY_BYTES + chunk_at<UShare::ROW_BYTES>(row, u_chunk);
                float x[LANE];
                unpack(load_quad(at), x);
#pragma unroll
                for (int j = 0; j < LANE; ++j) x[j] = activated<BOUNDED>(fmaf(x[j], scale[j], shift[j]), a.bounds);
                store_quad(at, pack(x));
            }
        }
    };

    const int warp_filter = warp / T::WARPS_ACROSS * WARP, warp_column = warp % T::WARPS_ACROSS * WARP;
    float acc[WARP / 16][WARP / 8][4] = {};

    for (int slice = warp; slice < STAGES; slice += T::WARPS) locate_slice(slice);
    __syncthreads();
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) copy_slice(stage, base + stage * T::STAGE_BYTES);
    unsigned reading = base, writing = base + (STAGES - 1) * T::STAGE_BYTES;
    for (int slice = 0; slice < slices; ++slice) {
        await_copies<STAGES - 2>();
        if (a.norm != nullptr) transform_slice(reading);
        // One barrier a slice: everybody's copies have landed, and nobody reads the stage that is written next.
        __syncthreads();
        copy_slice(slice + STAGES - 1, writing);
        if (warp == slice % T::WARPS) locate_slice(slice + STAGES);
        multiply_slice<T>(acc, reading, reading + T::DY_BYTES, warp_filter / LANE, warp_column / LANE);
        writing = reading;
        reading += T::STAGE_BYTES;
        if (reading == base + STAGES * T::STAGE_BYTES) reading = base;
    }

    const bool add = a.partials == nullptr;
    float* out = add ? a.dw : a.partials + size_t(blockIdx.z) * shape.k * columns;
    // Lane 4g + t has rows g and g + 8, columns 2t and 2t + 1 of each product of 16 x 8.
    const int first_filter = blockIdx.y * T::FILTERS + warp_filter + lane / 4;
    const int first_column = blockIdx.x * T::COLUMNS + warp_column + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < WARP / 8; ++m) {
        const int k = first_filter + 8 * m;
        if (k >= shape.k) continue;
        float* row = out + size_t(k) * columns;
#pragma unroll
        for (int j = 0; j < WARP / 8; ++j) {
            const int at = first_column + 8 * j;
            if (at < columns) put(row + at, acc[m / 2][j][m % 2 * 2], acc[m / 2][j][m % 2 * 2 + 1], add);
        }
    }
}

}  // namespace weights
#endif

// dw += sum over splits of their partials, 16 bytes a thread. A block has `groups` threads for each 16 bytes: group g
// adds splits g, g + groups, ...; then the groups are added in order. More groups hide the latency of many splits over
// few weights. Grid: ceil(quads / (256 / groups)). Floor: splits + 2 times the bytes of dw.
struct ConvBackwardWeightsSum {
    float* dw;
    const float* partials;  // [splits][quads][4]
    int quads;              // K*R*S*C / 4
    int splits;
    int groups;  // 1, 2, 4 or 8
};

namespace weights {

struct alignas(16) Float4 {
    float x[4];
};

__device__ __forceinline__ Float4 operator+(Float4 a, Float4 b) {
    return Float4{{a.x[0] + b.x[0], a.x[1] + b.x[1], a.x[2] + b.x[2], a.x[3] + b.x[3]}};
}

__device__ __forceinline__ void sum_splits(const ConvBackwardWeightsSum& a) {
    __shared__ Float4 sums[256];
    const int width = 256 / a.groups;
    const int group = threadIdx.x / width;
    const int quad = blockIdx.x * width + threadIdx.x % width;
    Float4 sum = {};
    if (quad < a.quads) {
        const Float4* part = reinterpret_cast<const Float4*>(a.partials) + quad;
#pragma unroll 4
        for (int split = group; split < a.splits; split += a.groups) sum = sum + part[size_t(split) * a.quads];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (group > 0 || quad >= a.quads) return;
    for (int other = 1; other < a.groups; ++other) sum = sum + sums[other * width + threadIdx.x];
    Float4* dw = reinterpret_cast<Float4*>(a.dw) + quad;
    *dw = *dw + sum;
}

}  // namespace weights
