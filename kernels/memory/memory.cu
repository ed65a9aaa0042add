// Moves between buffers that the driver's own copies don't make: fills, sums, and changes of width. Element i of `to`
// depends on element i of `from` (and of `to`) alone.
//
// A view may begin at any element. Where both begin on a full group (16 bytes of floats or of bfloat16, and the eight
// bytes of bfloat16 that stand for four floats), threads move groups side by side and single elements only at the end;
// elsewhere single elements all the way, which still are neighbours across a warp.
//
// Floor, bytes an element: fill 4 or 2, add 12 or 6, narrow and widen 6. Launch contract: block 256, any grid (each
// thread strides over it), no shared memory.

#include "primitives/bfloat16.cuh"

struct Elementwise {
    void* to;
    const void* from; // unused by fills
    unsigned long long len;
    float value; // used by fills
};

__device__ __forceinline__ bool starts_on(const void* pointer, unsigned bytes) {
    return reinterpret_cast<unsigned long long>(pointer) % bytes == 0;
}

// Calls `group(g)` for groups of WIDTH elements, if both ends are aligned to them, and `single(i)` for the elements
// left.
template <int WIDTH, typename Group, typename Single>
__device__ __forceinline__ void each(const Elementwise& a, bool aligned, Group group, Single single) {
    unsigned long long thread = blockIdx.x * 256ull + threadIdx.x, threads = gridDim.x * 256ull;
    unsigned long long groups = aligned ? a.len / WIDTH : 0;
    for (unsigned long long g = thread; g < groups; g += threads) group(g);
    for (unsigned long long i = groups * WIDTH + thread; i < a.len; i += threads) single(i);
}

template <typename T> __device__ __forceinline__ void fill(const Elementwise& a) {
    constexpr int WIDTH = 16 / sizeof(T);
    float values[WIDTH];
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) values[j] = a.value;
    T* to = static_cast<T*>(a.to);
    Quad quad = pack(values);
    T one = narrow<T>(a.value);
    each<WIDTH>(
        a, starts_on(to, 16), [&](unsigned long long g) { reinterpret_cast<Quad*>(to)[g] = quad; },
        [&](unsigned long long i) { to[i] = one; });
}

template <typename T> __device__ __forceinline__ void add(const Elementwise& a) {
    constexpr int WIDTH = 16 / sizeof(T);
    T* to = static_cast<T*>(a.to);
    const T* from = static_cast<const T*>(a.from);
    each<WIDTH>(
        a, starts_on(to, 16) && starts_on(from, 16),
        [&](unsigned long long g) {
            float x[WIDTH], y[WIDTH];
            unpack(load_quad(reinterpret_cast<Quad*>(to) + g), x);
            unpack(load_quad(reinterpret_cast<const Quad*>(from) + g), y);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) x[j] += y[j];
            reinterpret_cast<Quad*>(to)[g] = pack(x);
        },
        [&](unsigned long long i) { to[i] = narrow<T>(widen(to[i]) + widen(from[i])); });
}

// to = value.
extern "C" __global__ void __launch_bounds__(256) fill_f32(const __grid_constant__ Elementwise a) { fill<float>(a); }
extern "C" __global__ void __launch_bounds__(256) fill_bf16(const __grid_constant__ Elementwise a) { fill<bfloat16>(a); }

// to += from.
extern "C" __global__ void __launch_bounds__(256) add_f32(const __grid_constant__ Elementwise a) { add<float>(a); }
extern "C" __global__ void __launch_bounds__(256) add_bf16(const __grid_constant__ Elementwise a) { add<bfloat16>(a); }

// Floats to bfloat16, to nearest even.
extern "C" __global__ void __launch_bounds__(256) narrow(const __grid_constant__ Elementwise a) {
    bfloat16* to = static_cast<bfloat16*>(a.to);
    const float* from = static_cast<const float*>(a.from);
    each<4>(
        a, starts_on(to, 8) && starts_on(from, 16),
        [&](unsigned long long g) {
            float x[4];
            unpack(load_quad(reinterpret_cast<const Quad*>(from) + g), x);
            reinterpret_cast<uint2*>(to)[g] = uint2{pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3])};
        },
        [&](unsigned long long i) { to[i] = narrow<bfloat16>(from[i]); });
}

// bfloat16 to floats.
extern "C" __global__ void __launch_bounds__(256) widen(const __grid_constant__ Elementwise a) {
    float* to = static_cast<float*>(a.to);
    const bfloat16* from = static_cast<const bfloat16*>(a.from);
    each<4>(
        a, starts_on(to, 16) && starts_on(from, 8),
        [&](unsigned long long g) {
            uint2 pair = reinterpret_cast<const uint2*>(from)[g];
            reinterpret_cast<Quad*>(to)[g] =
                Quad{{pair.x << 16, pair.x & 0xffff0000u, pair.y << 16, pair.y & 0xffff0000u}};
        },
        [&](unsigned long long i) { to[i] = widen(from[i]); });
}
