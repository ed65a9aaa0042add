// Reductions in a fixed order: the same input gives the same bits, whoever finishes first.
#pragma once

// The sum over a warp, in every lane. A butterfly: lane order does not matter, because each step adds the same two numbers.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// Whether this block is the last of `blocks` to come here; true for exactly one. What every block wrote before is then
// visible to the last one's reads. The ticket decides who does the rest, never in which order, so results repeat bit for
// bit. Every thread of the block must call it.
//
// Thread 0 speaks for its block, in the patterns of PTX's memory model. The first barrier puts the block's writes before
// thread 0's atomic, which releases them: causality passes through the barrier, so no other thread needs a fence. The
// last block's thread reads, by its own atomic, from the chain of all those before it, and the fence behind makes that an
// acquire; the second barrier passes it on. So one thread of a block waits for its writes to arrive, and only the last
// block empties the L1 cache of its multiprocessor. With a __threadfence() of all threads, as before a plain atomic,
// every warp would do both.
//
// Assumed: one kernel at a time uses these tickets and the partial results that they guard. The ticket is zero when the
// kernel starts and zero again when it ends, because the last block resets it. A second kernel beside it with the same
// workspace, be it on another stream, on a parallel branch of a graph or launched before this one's end (programmatic
// dependent launch), would draw from the same ticket: then a block takes itself for the last one too early, and none or
// two may finish the result.
__device__ __forceinline__ bool last_block(unsigned* ticket, unsigned blocks) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned before;
        asm volatile("atom.release.gpu.global.add.u32 %0, [%1], 1;"
                     : "=r"(before)
                     : "l"(__cvta_generic_to_global(ticket))
                     : "memory");
        last = before == blocks - 1;
        if (last) {
            asm volatile("fence.acq_rel.gpu;" ::: "memory");
            *ticket = 0;
        }
    }
    __syncthreads();
    return last;
}
