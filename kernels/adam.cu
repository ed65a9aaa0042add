// Adam over the whole parameter arena, in Keras's form: epsilon stands outside the bias correction.
//
//     m += (g - m) (1 - beta1)
//     v += (g^2 - v) (1 - beta2)
//     w -= rate m / (sqrt(v) + epsilon)
//     narrow = bfloat16(w)                     where the device keeps such a copy for its convolutions
//
// `rate [1]` holds both bias corrections and lies in device memory, so that a captured step can be replayed with
// another. A step whose loss is not finite writes nothing: the weights of a run that diverged are those before it did.
//
// Tiling: a thread per four neighbouring parameters, then a thread per parameter for those before the first 16-byte
// boundary (`head`; freezing takes a suffix of the arena, which begins anywhere) and after the last. Where the arenas
// do not share their alignment the host says that all of them are `head`.
//
// Floor: 28 bytes a parameter (w, m, v read and written, g read), 30 with the copy; about 25 instructions, far below.
//
// Launch: grid [ceil((quads + count - 4 quads) / 256)], block 256, no shared memory, no workspace. w + head, m + head,
// v + head, gradients + head are 16-byte aligned if quads > 0, and narrow + head 8-byte aligned.

#include "bfloat16.cuh"

struct Adam {
    float* w;
    float* m;
    float* v;
    bfloat16* narrow;  // or null
    const float* gradients;
    const float* loss;
    const float* rate;
    int count;
    int head;
    int quads;
    float towards_g;         // 1 - beta1
    float towards_g_square;  // 1 - beta2
    float epsilon;
};

__device__ __forceinline__ void update(float& w, float& m, float& v, float g, float rate, const Adam& a) {
    m += (g - m) * a.towards_g;
    v += (g * g - v) * a.towards_g_square;
    w -= rate * m / (sqrtf(v) + a.epsilon);
}

extern "C" __global__ void __launch_bounds__(256) adam(const __grid_constant__ Adam a) {
    int index = blockIdx.x * 256 + threadIdx.x;
    int singles = a.count - 4 * a.quads;
    // |inf| < inf and |NaN| < inf are both false.
    if (index >= a.quads + singles || !(fabsf(a.loss[0]) < __int_as_float(0x7f800000))) return;
    float rate = a.rate[0];
    if (index < a.quads) {
        int at = a.head + 4 * index;
        float4 w = *reinterpret_cast<const float4*>(a.w + at);
        float4 m = *reinterpret_cast<const float4*>(a.m + at);
        float4 v = *reinterpret_cast<const float4*>(a.v + at);
        float4 g = *reinterpret_cast<const float4*>(a.gradients + at);
        update(w.x, m.x, v.x, g.x, rate, a);
        update(w.y, m.y, v.y, g.y, rate, a);
        update(w.z, m.z, v.z, g.z, rate, a);
        update(w.w, m.w, v.w, g.w, rate, a);
        *reinterpret_cast<float4*>(a.w + at) = w;
        *reinterpret_cast<float4*>(a.m + at) = m;
        *reinterpret_cast<float4*>(a.v + at) = v;
        if (a.narrow) {
            *reinterpret_cast<uint2*>(a.narrow + at) = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
        }
    } else {
        int single = index - a.quads;
        int at = single < a.head ? single : single + 4 * a.quads;
        update(a.w[at], a.m[at], a.v[at], a.gradients[at], rate, a);
        if (a.narrow) a.narrow[at] = narrow<bfloat16>(a.w[at]);
    }
}
