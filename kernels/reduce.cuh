// Reductions in a fixed order: the same input gives the same bits, whoever finishes first.
#pragma once

// The sum over a warp, in every lane. A butterfly: lane order does not matter, because each step adds the same two numbers.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// Mean and sum of squared deviations of some numbers.
struct Moments {
    float count, mean, m2;
};

// Those of two groups together (Chan, Golub and LeVeque). Either group may be empty.
__device__ __forceinline__ Moments merge(Moments a, Moments b) {
    float count = a.count + b.count;
    float share = count > 0.0f ? b.count / count : 0.0f;
    float delta = b.mean - a.mean;
    return Moments{count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share};
}

// Whether this block is the last of `blocks` to come here; true for exactly one. What every block wrote before is then
// visible to the last one's reads. The ticket decides who does the rest, never in which order, so results repeat bit for
// bit. The last block puts the ticket back to zero for the next launch. Every thread of the block must call it.
__device__ __forceinline__ bool last_block(unsigned* ticket, unsigned blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(ticket, 1u) == blocks - 1;
        if (last) atomicExch(ticket, 0u);
    }
    __syncthreads();
    if (last) __threadfence();
    return last;
}
