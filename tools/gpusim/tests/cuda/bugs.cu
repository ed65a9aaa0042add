// One kernel a check, with that very bug planted. tests/bugs.rs expects each to be found.

extern "C" __global__ void out_of_bounds(float *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) out[i] = 1;
}

extern "C" __global__ void use_after_free(float *out, const float *freed) { out[threadIdx.x] = freed[threadIdx.x]; }

extern "C" __global__ void misaligned(float4 *out, const char *in) {
    out[threadIdx.x] = *(const float4 *)(in + 4 * threadIdx.x);
}

extern "C" __global__ void uninitialised_global(float *out, const float *never_written) {
    out[threadIdx.x] = never_written[threadIdx.x];
}

extern "C" __global__ void uninitialised_shared(float *out) {
    __shared__ float values[64];
    if (threadIdx.x < 63) values[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void out_of_bounds_shared(float *out) {
    extern __shared__ float values[];
    values[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

// No barrier between writing and reading another warp's value.
extern "C" __global__ void race_shared(float *out) {
    __shared__ float values[128];
    values[threadIdx.x] = 0;
    __syncthreads();
    values[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = values[127 - threadIdx.x];
}

// The barrier of the next round is missing: a fast warp overwrites what a slow one still reads.
extern "C" __global__ void race_write_after_read(float *out) {
    __shared__ float values[128];
    float sum = 0;
    for (int round = 0; round < 3; round++) {
        values[threadIdx.x] = round;
        __syncthreads();
        sum += values[127 - threadIdx.x];
    }
    out[threadIdx.x] = sum;
}

// Lanes of a warp without __syncwarp.
extern "C" __global__ void race_in_warp(float *out) {
    __shared__ float values[32];
    values[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = values[31 - threadIdx.x];
}

// Every block writes its neighbour's first element too.
extern "C" __global__ void race_between_blocks(float *out) {
    out[blockIdx.x * 32 + threadIdx.x] = blockIdx.x;
    if (threadIdx.x == 0) out[(blockIdx.x + 1) * 32] = blockIdx.x;
}

// A barrier inside a block is not a barrier between warps of device memory that nobody synchronised.
extern "C" __global__ void race_global_in_block(float *out, float *scratch) {
    scratch[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = scratch[127 - threadIdx.x];
}

extern "C" __global__ void divergent_barrier(float *out) {
    if (threadIdx.x < 16) __syncthreads();
    out[threadIdx.x] = 1;
}

// Half of the warps wait for a barrier that the others never reach.
extern "C" __global__ void deadlock(float *out) {
    if (threadIdx.x < 64) asm volatile("bar.sync 1, 128;");
    out[threadIdx.x] = 1;
}

extern "C" __global__ void async_unwaited(float *out, const float *in) {
    __shared__ __align__(16) float values[128];
    unsigned to = (unsigned)__cvta_generic_to_shared(&values[threadIdx.x * 4]);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(in + threadIdx.x * 4));
    asm volatile("cp.async.commit_group;");
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

// Waited for by the thread that copied, but the others read without a barrier.
extern "C" __global__ void async_without_barrier(float *out, const float *in) {
    __shared__ __align__(16) float values[256];
    for (int i = 0; i < 4; i++) values[threadIdx.x + 64 * i] = 0;
    __syncthreads();
    unsigned to = (unsigned)__cvta_generic_to_shared(&values[threadIdx.x * 4]);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(in + threadIdx.x * 4));
    asm volatile("cp.async.commit_group;\n cp.async.wait_group 0;");
    out[threadIdx.x] = values[255 - threadIdx.x];
}

extern "C" __global__ void member_mask(int *out) {
    int value = 0;
    if (threadIdx.x < 16) value = __shfl_xor_sync(~0u, 1, 1);
    out[threadIdx.x] = value;
}

extern "C" __global__ void traps(int *out) {
    if (threadIdx.x == 3) __trap();
    out[threadIdx.x] = 1;
}

// The last block adds up what all have left in `partial`, behind which lies a ticket; with fences around it, or without.
template <bool BEFORE, bool AFTER> __device__ void sum_by_ticket(float *total, float *partial) {
    __shared__ bool last;
    unsigned *ticket = (unsigned *)(partial + gridDim.x * 64);
    partial[blockIdx.x * 64 + threadIdx.x] = 1;
    if (BEFORE || threadIdx.x == 0) __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (!last) return;
    if (AFTER) __threadfence();
    float sum = 0;
    for (int i = 0; i < gridDim.x; i++) sum += partial[i * 64 + threadIdx.x];
    total[threadIdx.x] = sum;
}
extern "C" __global__ void ticket_with_fences(float *total, float *partial) { sum_by_ticket<true, true>(total, partial); }
extern "C" __global__ void ticket_of_one_fence(float *total, float *partial) { sum_by_ticket<false, true>(total, partial); }
extern "C" __global__ void ticket_without_second_fence(float *total, float *partial) {
    sum_by_ticket<true, false>(total, partial);
}

// The same as kernels do it that pay for one fence a block: thread 0 releases after a barrier what all have written, and
// acquires before the next what others have. One part of that may be missing.
enum Missing { NOTHING, BARRIER, RELEASE, ACQUIRE };
template <Missing MISSING> __device__ void sum_by_released_ticket(float *total, float *partial) {
    __shared__ bool last;
    unsigned *ticket = (unsigned *)(partial + gridDim.x * 64);
    partial[blockIdx.x * 64 + threadIdx.x] = 1;
    if (MISSING != BARRIER) __syncthreads();
    if (threadIdx.x == 0) {
        unsigned before;
        if (MISSING != RELEASE) {
            asm volatile("atom.release.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(ticket) : "memory");
        } else {
            asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(ticket) : "memory");
        }
        last = before == gridDim.x - 1;
        if (last && MISSING != ACQUIRE) asm volatile("fence.acq_rel.gpu;" ::: "memory");
        if (last) *ticket = 0;
    }
    __syncthreads();
    if (!last) return;
    float sum = 0;
    for (int i = 0; i < gridDim.x; i++) sum += partial[i * 64 + threadIdx.x];
    total[threadIdx.x] = sum;
}
extern "C" __global__ void released_ticket(float *total, float *partial) {
    sum_by_released_ticket<NOTHING>(total, partial);
}
extern "C" __global__ void released_ticket_without_barrier(float *total, float *partial) {
    sum_by_released_ticket<BARRIER>(total, partial);
}
extern "C" __global__ void released_ticket_without_release(float *total, float *partial) {
    sum_by_released_ticket<RELEASE>(total, partial);
}
extern "C" __global__ void released_ticket_without_acquire(float *total, float *partial) {
    sum_by_released_ticket<ACQUIRE>(total, partial);
}

// Copies of 16 bytes, of which so many come from memory, from an address in it or behind it.
extern "C" __global__ void async_source(float *out, const float *in, int first, int size) {
    __shared__ __align__(16) float values[128];
    unsigned to = (unsigned)__cvta_generic_to_shared(&values[threadIdx.x * 4]);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(in + first), "r"(size));
    asm volatile("cp.async.commit_group;\n cp.async.wait_group 0;" ::: "memory");
    out[threadIdx.x] = values[threadIdx.x * 4];
}

// A copy of nothing from an address that no copy of 16 bytes may have.
extern "C" __global__ void async_misaligned(float *out, const float *in) {
    __shared__ __align__(16) float values[128];
    unsigned to = (unsigned)__cvta_generic_to_shared(&values[threadIdx.x * 4]);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, 0;" ::"r"(to), "l"(in + threadIdx.x));
    asm volatile("cp.async.commit_group;\n cp.async.wait_group 0;");
    out[threadIdx.x] = values[threadIdx.x * 4];
}
