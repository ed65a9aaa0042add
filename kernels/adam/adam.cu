// What ends a training step: the check of its numbers, Adam, and the way back if the check failed.
//
// `outcome [3]` is (loss, squared norm of the gradients, squared norm of batch norm's running averages). A step in which
// one of them is not finite is a bad step. Adam writes nothing in it, and `restore` puts back what it moved before: so
// the model behind a bad step is the one before it, and the host hears of it later without having waited.

#include "primitives/bfloat16.cuh"
#include "primitives/reduce.cuh"

// Whether a step is sound. |inf| < inf and |NaN| < inf are both false.
__device__ __forceinline__ bool is_sound(const float* outcome) {
    const float infinity = __int_as_float(0x7f800000);
    return fabsf(outcome[0]) < infinity && fabsf(outcome[1]) < infinity && fabsf(outcome[2]) < infinity;
}

// Adam over the whole parameter arena, in Keras's form: epsilon stands outside the bias correction.
//
//     g *= min(1, clip_norm / |g|)             where |g|^2 is outcome[1]; clip_norm is infinite for no bound
//     m += (g - m) (1 - beta1)
//     v += (g^2 - v) (1 - beta2)
//     w -= decay w                             where the weight decays
//     w -= rate m / (sqrt(v) + epsilon)
//     narrow = bfloat16(w)                     where the device keeps such a copy for its convolutions
//
// `rates [2]` is (rate, decay). The rate holds both bias corrections. They lie in device memory, so that a captured step
// can be replayed with others. `decaying [ceil(count / 16)]` says which weights decay: bit i of the whole number that
// its n-th float is stands for weight 16 n + i.
//
// Tiling: a thread per four neighbouring parameters, then a thread per parameter for those before the first 16-byte
// boundary (`head`; freezing takes a suffix of the arena, which begins anywhere) and after the last. Where the arenas
// do not share their alignment the host says that all of them are `head`.
//
// Floor: 28 bytes a parameter (w, m, v read and written, g read), 30 with the copy, a quarter of a byte more if some
// decay; about 30 instructions, far below.
//
// Launch: grid [ceil((quads + count - 4 quads) / 256)], block 256, no shared memory, no workspace. w + head, m + head,
// v + head, gradients + head are 16-byte aligned if quads > 0, and narrow + head 8-byte aligned.

struct Adam {
    float* w;
    float* m;
    float* v;
    bfloat16* narrow;  // or null
    const float* gradients;
    const float* decaying;  // or null
    const float* outcome;   // [3]
    const float* rates;     // [2]
    int count;
    int head;
    int quads;
    float towards_g;         // 1 - beta1
    float towards_g_square;  // 1 - beta2
    float epsilon;
    float clip_norm;
};

// What is the same for all weights of a step.
struct Pace {
    float rate;
    float decay;
    float scale;  // of the gradient; 1 changes no bit
};

__device__ __forceinline__ void update(float& w, float& m, float& v, float g, int at, const Pace& pace, const Adam& a) {
    g *= pace.scale;
    m += (g - m) * a.towards_g;
    v += (g * g - v) * a.towards_g_square;
    if (a.decaying && static_cast<unsigned>(a.decaying[at / 16]) >> at % 16 & 1) w -= pace.decay * w;
    w -= pace.rate * m / (sqrtf(v) + a.epsilon);
}

extern "C" __global__ void __launch_bounds__(256) adam(const __grid_constant__ Adam a) {
    int index = blockIdx.x * 256 + threadIdx.x;
    int singles = a.count - 4 * a.quads;
    if (index >= a.quads + singles || !is_sound(a.outcome)) return;
    float norm = sqrtf(a.outcome[1]);
    Pace pace{a.rates[0], a.rates[1], norm > a.clip_norm ? a.clip_norm / norm : 1.0f};
    if (index < a.quads) {
        int at = a.head + 4 * index;
        float4 w = *reinterpret_cast<const float4*>(a.w + at);
        float4 m = *reinterpret_cast<const float4*>(a.m + at);
        float4 v = *reinterpret_cast<const float4*>(a.v + at);
        float4 g = *reinterpret_cast<const float4*>(a.gradients + at);
        update(w.x, m.x, v.x, g.x, at, pace, a);
        update(w.y, m.y, v.y, g.y, at + 1, pace, a);
        update(w.z, m.z, v.z, g.z, at + 2, pace, a);
        update(w.w, m.w, v.w, g.w, at + 3, pace, a);
        *reinterpret_cast<float4*>(a.w + at) = w;
        *reinterpret_cast<float4*>(a.m + at) = m;
        *reinterpret_cast<float4*>(a.v + at) = v;
        if (a.narrow) {
            *reinterpret_cast<uint2*>(a.narrow + at) = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
        }
    } else {
        int single = index - a.quads;
        int at = single < a.head ? single : single + 4 * a.quads;
        update(a.w[at], a.m[at], a.v[at], a.gradients[at], at, pace, a);
        if (a.narrow) a.narrow[at] = narrow<bfloat16>(a.w[at]);
    }
}

// sum[0] = x[0]^2 + x[1]^2 + ... , in float. It is infinite from a norm of 1.8e19 on, and NaN or infinite wherever an
// element is, which is what the check needs; a square below 1e-38 counts for less than it is.
//
// Tiling: a block per 16384 neighbouring elements, a thread per 16 groups of four that lie 256 groups apart, loaded
// ahead of their sums by eight. The up to three elements before the first 16-byte boundary (`head`) and those after the
// last group go to the first threads of block 0. Then the order of the sum is fixed by `count` and `head` alone: the four
// elements of a group each have a sum of their own in a thread; the lanes of a warp, the warps of a block, and the
// blocks, by whoever of them comes last. A sum of 25 million squares so passes through some forty roundings, and no
// small number is added to a large one many times.
//
// Floor: 4 bytes an element; two instructions, far below.
//
// Launch: grid [max(1, ceil(quads / 4096))], block 256, static shared memory, a workspace `partials [grid]` and a ticket
// that is zero. x + head is 16-byte aligned if quads > 0; head < 4 and count - head - 4 quads < 4.
struct SquaredNorm {
    float* sum;  // [1]
    const float* x;
    float* partials;
    unsigned* ticket;
    int count;
    int head;
    int quads;
};

// The sum over a block, in thread 0.
__device__ __forceinline__ float block_sum(float x, float (&warp_sums)[8]) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    if (threadIdx.x == 0) {
#pragma unroll
        for (int warp = 0; warp < 8; ++warp) sum += warp_sums[warp];
    }
    return sum;
}

extern "C" __global__ void __launch_bounds__(256) squared_norm(const __grid_constant__ SquaredNorm a) {
    constexpr int GROUPS = 16, AHEAD = 8;
    __shared__ float warp_sums[8];
    const float4* groups = reinterpret_cast<const float4*>(a.x + a.head);
    int first = blockIdx.x * (256 * GROUPS) + threadIdx.x;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int batch = 0; batch < GROUPS; batch += AHEAD) {
        float4 x[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            int group = first + (batch + i) * 256;
            x[i] = group < a.quads ? groups[group] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            sum.x = fmaf(x[i].x, x[i].x, sum.x);
            sum.y = fmaf(x[i].y, x[i].y, sum.y);
            sum.z = fmaf(x[i].z, x[i].z, sum.z);
            sum.w = fmaf(x[i].w, x[i].w, sum.w);
        }
    }
    float total = (sum.x + sum.y) + (sum.z + sum.w);
    int singles = a.count - 4 * a.quads;
    if (blockIdx.x == 0 && threadIdx.x < singles) {
        int single = threadIdx.x;
        float x = a.x[single < a.head ? single : single + 4 * a.quads];
        total = fmaf(x, x, total);
    }
    total = block_sum(total, warp_sums);
    if (threadIdx.x == 0) a.partials[blockIdx.x] = total;
    if (!last_block(a.ticket, gridDim.x)) return;
    total = 0.0f;
    for (int block = threadIdx.x; block < gridDim.x; block += 256) total += a.partials[block];
    total = block_sum(total, warp_sums);
    if (threadIdx.x == 0) a.sum[0] = total;
}

// to = from after a bad step, and nothing after a sound one.
//
// Floor: 12 bytes of `outcome`; after a bad step 8 bytes an element besides. Launch: grid [ceil(count / 256)], block 256.
struct Restore {
    float* to;
    const float* from;
    const float* outcome;  // [3]
    int count;
};

extern "C" __global__ void __launch_bounds__(256) restore(const __grid_constant__ Restore a) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= a.count || is_sound(a.outcome)) return;
    a.to[i] = a.from[i];
}

// A moving average of the weights: to += (from - to) towards, and nothing after a bad step.
//
//     narrow = bfloat16(to)                    where the device keeps such a copy, for the day the average answers
//
// `towards [1]` lies in device memory, as Adam's rates do. Tiling and alignment: as of `adam`. Floor: 12 bytes an element, 14 with
// the copy. Launch: grid [ceil((quads + count - 4 quads) / 256)], block 256.
struct Average {
    float* to;
    bfloat16* narrow;  // or null
    const float* from;
    const float* outcome;  // [3]
    const float* towards;
    int count;
    int head;
    int quads;
};

extern "C" __global__ void __launch_bounds__(256) average(const __grid_constant__ Average a) {
    int index = blockIdx.x * 256 + threadIdx.x;
    int singles = a.count - 4 * a.quads;
    if (index >= a.quads + singles || !is_sound(a.outcome)) return;
    float towards = a.towards[0];
    if (index < a.quads) {
        int at = a.head + 4 * index;
        float4 to = *reinterpret_cast<const float4*>(a.to + at);
        float4 from = *reinterpret_cast<const float4*>(a.from + at);
        to.x += (from.x - to.x) * towards;
        to.y += (from.y - to.y) * towards;
        to.z += (from.z - to.z) * towards;
        to.w += (from.w - to.w) * towards;
        *reinterpret_cast<float4*>(a.to + at) = to;
        if (a.narrow) {
            *reinterpret_cast<uint2*>(a.narrow + at) = make_uint2(pack_bf16(to.x, to.y), pack_bf16(to.z, to.w));
        }
    } else {
        int single = index - a.quads;
        int at = single < a.head ? single : single + 4 * a.quads;
        float to = a.to[at];
        to += (a.from[at] - to) * towards;
        a.to[at] = to;
        if (a.narrow) a.narrow[at] = narrow<bfloat16>(to);
    }
}
