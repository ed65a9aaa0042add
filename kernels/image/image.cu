// From stored RGB bytes to the network's input: placed, reordered, scaled and shifted in one pass.
//
//     x[n, row, column, c] = scale * pixels[n, row - shift_y, from(column - shift_x), order[c]] + shift[c]
//
// where from(k) = k, or size - 1 - k in a mirrored image, and x = 0 for what lies outside the stored image.
//
// Three channels divide neither 16 bytes nor a word, so nothing is aligned to a pixel. A block makes 256 * LANE
// neighbouring elements of x, a Quad a thread, whatever rows and images they belong to. The bytes it needs of an output
// row are one piece of one stored row: a warp fetches each piece in words, side by side, into shared memory, where the
// threads pick their bytes.
//
// Shared memory, `rows` being the most output rows that a block touches: Segment [rows], then bytes [rows][4 * pitch].
// Floor: a byte read and an element written, each once. Launch contract: block 256, grid ceil(elements / (256 * LANE)),
// dynamic shared memory as above; `pixels` is aligned to 4 bytes and readable to the next such; x is aligned to 16;
// fewer than 2^31 elements.

#include "conv/geometry.cuh"
#include "primitives/element.cuh"

struct ImageForward {
    element* x;
    const unsigned char* pixels;
    const signed char* placements; // an image: mirrored, shift_y, shift_x
    int len;                       // elements of x
    int size;                      // height and width
    int rows, pitch;               // of shared memory: output rows, words a row
    Divisor by_row, by_size;       // 3 * size, size
    int order[3];
    float scale;
    float shift[3];
};

// Where an output row's bytes come from: column k's from stored column origin + step*k, if that exists.
struct Segment {
    int origin, step;
    int first, words; // the words of `pixels` that the block needs
    int at;           // of the stored row's first byte in shared memory, where it would be
};

// That of output row `row`, from its first to its last column that the block makes, in row `slot` of shared memory.
__device__ __forceinline__ Segment segment_of(const ImageForward& a, int row, int slot, int first_column,
                                              int last_column) {
    int n, line;
    a.by_size.split(row, n, line);
    const signed char* placement = a.placements + 3 * n;
    bool mirrored = placement[0];
    line -= placement[1];
    int shift = placement[2];
    Segment segment{mirrored ? a.size - 1 + shift : -shift, mirrored ? -1 : 1, 0, 0, 0};
    int from = segment.origin + segment.step * (mirrored ? last_column : first_column);
    int to = segment.origin + segment.step * (mirrored ? first_column : last_column);
    from = max(from, 0), to = min(to, a.size - 1);
    if (line < 0 || line >= a.size || from > to) return Segment{-1, 0, 0, 0, 0};
    int start = (n * a.size + line) * a.size * 3;
    segment.first = (start + 3 * from) / 4;
    segment.words = (start + 3 * to + 2) / 4 - segment.first + 1;
    segment.at = 4 * (slot * a.pitch - segment.first) + start;
    return segment;
}

extern "C" __global__ void __launch_bounds__(256) image_forward(const __grid_constant__ ImageForward a) {
    extern __shared__ Segment segments[];
    unsigned* words = reinterpret_cast<unsigned*>(segments + a.rows);
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(words);

    int begin = blockIdx.x * 256 * LANE, end = min(begin + 256 * LANE, a.len);
    int first_row, last_row, first_element, last_element;
    a.by_row.split(begin, first_row, first_element);
    a.by_row.split(end - 1, last_row, last_element);
    for (int row = first_row + threadIdx.x; row <= last_row; row += 256) {
        int slot = row - first_row;
        segments[slot] = segment_of(a, row, slot, row == first_row ? first_element / 3 : 0,
                                    row == last_row ? last_element / 3 : a.size - 1);
    }
    __syncthreads();
    const unsigned* pixels = reinterpret_cast<const unsigned*>(a.pixels);
    for (int slot = threadIdx.x / 32; slot <= last_row - first_row; slot += 8) {
        int first = segments[slot].first, count = segments[slot].words;
        for (int word = threadIdx.x % 32; word < count; word += 32) words[slot * a.pitch + word] = pixels[first + word];
    }
    __syncthreads();

    int element_index = begin + threadIdx.x * LANE;
    if (element_index >= end) return;
    int row, rest;
    a.by_row.split(element_index, row, rest);
    int column = rest / 3, c = rest - 3 * column;
    // Turned so that element j of the thread has channel j % 3 of these.
    int order[3];
    float shift[3];
#pragma unroll
    for (int j = 0; j < 3; ++j) {
        int channel = c + j < 3 ? c + j : c + j - 3;
        order[j] = channel == 0 ? a.order[0] : channel == 1 ? a.order[1] : a.order[2];
        shift[j] = channel == 0 ? a.shift[0] : channel == 1 ? a.shift[1] : a.shift[2];
    }
    Segment segment = segments[row - first_row];
    float x[LANE];
#pragma unroll
    for (int j = 0; j < LANE; ++j) {
        int from = segment.origin + segment.step * column;
        bool inside = from >= 0 && from < a.size && element_index + j < end;
        x[j] = inside ? fmaf(a.scale, bytes[segment.at + 3 * from + order[j % 3]], shift[j % 3]) : 0.0f;
        if (++c == 3) {
            c = 0;
            if (++column == a.size) {
                column = 0;
                ++row;
                if (row <= last_row) segment = segments[row - first_row];
            }
        }
    }
    if (element_index + LANE <= end) {
        *reinterpret_cast<Quad*>(a.x + element_index) = pack(x);
    } else {
#pragma unroll
        for (int j = 0; j < LANE; ++j) {
            if (element_index + j < end) a.x[element_index + j] = narrow<element>(x[j]);
        }
    }
}
