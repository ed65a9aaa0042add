// Copies of boxes of tensors, and bulk reductions. Checked in tests/tensor_map.rs.

#include "barrier.cuh"

// What cuda.h calls CUtensorMap.
struct alignas(64) TensorMap {
    word words[16];
};

#define MAP const __grid_constant__ TensorMap map

__device__ void async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ void commit_and_wait() {
    asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");
}

// Thread 0 makes a barrier that expects `bytes`, and starts the copy; all wait (or don't), and write what came to out.
// SHIFT moves the box from where it should be.
#define LOAD(name, FORM, COORDINATES, REST, SHIFT, WAIT, ...)                                              \
    extern "C" __global__ void name(uint4 *out, MAP, int bytes, __VA_ARGS__) {                             \
        extern __shared__ __align__(1024) unsigned char tile[];                                            \
        __shared__ word full;                                                                              \
        if (threadIdx.x == 0) {                                                                            \
            barrier_init(&full, 1);                                                                        \
            barrier_fence();                                                                               \
            barrier_expect(&full, bytes);                                                                  \
            asm volatile("cp.async.bulk.tensor." FORM " [%0], [%1, {" COORDINATES "}], [%2]" REST ";" ::"r"( \
                             shared_address(tile) + SHIFT),                                                \
                         "l"(&map), "r"(shared_address(&full)), ARGUMENTS                                  \
                         : "memory");                                                                      \
        }                                                                                                  \
        __syncthreads();                                                                                   \
        if (WAIT) barrier_wait(&full, 0);                                                                  \
        for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) out[i] = ((uint4 *)(tile + SHIFT))[i];   \
    }

#define BRING(d) d ".shared::cluster.global.tile.mbarrier::complete_tx::bytes"

#define ARGUMENTS "r"(x)
LOAD(load_1d, BRING("1d"), "%3", "", 0, true, int x)
#undef ARGUMENTS
#define ARGUMENTS "r"(x), "r"(y)
LOAD(load_2d, BRING("2d"), "%3, %4", "", 0, true, int x, int y)
LOAD(load_unaligned, BRING("2d"), "%3, %4", "", 16, true, int x, int y)
LOAD(load_early, BRING("2d"), "%3, %4", "", 0, false, int x, int y)
#undef ARGUMENTS
#define ARGUMENTS "r"(x), "r"(y), "h"(blocks)
LOAD(load_multicast, BRING("2d") ".multicast::cluster", "%3, %4", ", %5", 0, true, int x, int y, short blocks)
#undef ARGUMENTS
#define ARGUMENTS "r"(x), "r"(y), "r"(z)
LOAD(load_3d, BRING("3d"), "%3, %4, %5", "", 0, true, int x, int y, int z)
#undef ARGUMENTS
#define ARGUMENTS "r"(x), "r"(y), "r"(z), "r"(u)
LOAD(load_4d, BRING("4d"), "%3, %4, %5, %6", "", 0, true, int x, int y, int z, int u)
#undef ARGUMENTS
#define ARGUMENTS "r"(x), "r"(y), "r"(z), "r"(u), "r"(v)
LOAD(load_5d, BRING("5d"), "%3, %4, %5, %6, %7", "", 0, true, int x, int y, int z, int u, int v)
#undef ARGUMENTS

#define FILTER(d) d ".shared::cluster.global.im2col.mbarrier::complete_tx::bytes"

#define ARGUMENTS "r"(c), "r"(w), "r"(n), "h"(s)
LOAD(filter_3d, FILTER("3d"), "%3, %4, %5", ", {%6}", 0, true, int c, int w, int n, short s)
#undef ARGUMENTS
#define ARGUMENTS "r"(c), "r"(w), "r"(h), "r"(n), "h"(s), "h"(r)
LOAD(filter_4d, FILTER("4d"), "%3, %4, %5, %6", ", {%7, %8}", 0, true, int c, int w, int h, int n, short s, short r)
#undef ARGUMENTS
#define ARGUMENTS "r"(c), "r"(w), "r"(h), "r"(d), "r"(n), "h"(s), "h"(r), "h"(t)
LOAD(filter_5d, FILTER("5d"), "%3, %4, %5, %6, %7", ", {%8, %9, %10}", 0, true, int c, int w, int h, int d, int n, short s,
     short r, short t)
#undef ARGUMENTS

// 1024 bytes for some blocks of the cluster.
extern "C" __global__ void bulk_multicast(uint4 *out, const uint4 *in, short blocks) {
    __shared__ __align__(128) uint4 values[64];
    __shared__ word full;
    if (threadIdx.x == 0) {
        barrier_init(&full, 1);
        barrier_fence();
        barrier_expect(&full, 1024);
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], "
                     "1024, [%2], %3;" ::"r"(shared_address(values)),
                     "l"(__cvta_generic_to_global(in)), "r"(shared_address(&full)), "h"(blocks)
                     : "memory");
    }
    __syncthreads();
    barrier_wait(&full, 0);
    out[threadIdx.x] = values[threadIdx.x];
}

// The same as load_2d with the map in device memory, fetched before as a careful kernel would.
extern "C" __global__ void load_through_pointer(uint4 *out, const TensorMap *map, const float *all, int bytes, int x, int y) {
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ word full;
    if (threadIdx.x == 0) {
        asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
        asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
        asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(map), "r"(x), "r"(y)
                     : "memory");
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(all)), "r"(bytes)
                     : "memory");
        barrier_init(&full, 1);
        barrier_fence();
        barrier_expect(&full, bytes);
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
                     "[%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(tile)),
                     "l"(map), "r"(shared_address(&full)), "r"(x), "r"(y), "l"(0x14f0000000000000ull)
                     : "memory");
    }
    __syncthreads();
    barrier_wait(&full, 0);
    for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) out[i] = ((uint4 *)tile)[i];
}

// The bytes of `in` as a box go to the tensor: WHAT is the copy or a reduction. With WAIT false the box is used again too
// early. Only the first `used` words of each `width` are ever written: where a box is cut, a copy reads no others.
#define STORE(name, WHAT, WAIT)                                                                        \
    extern "C" __global__ void name(const unsigned *in, MAP, int bytes, int x, int y, int width, int used) { \
        extern __shared__ __align__(1024) unsigned char tile[];                                         \
        unsigned *words = (unsigned *)tile;                                                             \
        for (int i = threadIdx.x; i < bytes / 4; i += blockDim.x)                                       \
            if (i % width < used) words[i] = in[i];                                                     \
        async_fence();                                                                                  \
        __syncthreads();                                                                                \
        if (threadIdx.x == 0) {                                                                         \
            asm volatile(WHAT " [%0, {%1, %2}], [%3];" ::"l"(&map), "r"(x), "r"(y), "r"(shared_address(tile)) \
                         : "memory");                                                                   \
            if (WAIT) commit_and_wait();                                                                \
        }                                                                                               \
        __syncthreads();                                                                                \
        words[threadIdx.x] = 0;                                                                         \
    }

STORE(store_2d, "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group", true)
STORE(store_late, "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group", false)

#define REDUCE(op) STORE(reduce_##op, "cp.reduce.async.bulk.tensor.2d.global.shared::cta." #op ".tile.bulk_group", true)

REDUCE(add)
REDUCE(min)
REDUCE(max)
REDUCE(inc)
REDUCE(and)
REDUCE(or)
REDUCE(xor)

// Each of the blocks adds the same 256 bytes to the same place.
#define BULK_REDUCE(name, WHAT)                                                                         \
    extern "C" __global__ void name(unsigned *out, const unsigned *in) {                                \
        __shared__ __align__(128) unsigned values[64];                                                  \
        values[threadIdx.x] = in[threadIdx.x];                                                          \
        async_fence();                                                                                  \
        __syncthreads();                                                                                \
        if (threadIdx.x == 0) {                                                                         \
            asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group." WHAT " [%0], [%1], 256;" ::"l"( \
                             __cvta_generic_to_global(out)),                                            \
                         "r"(shared_address(values))                                                    \
                         : "memory");                                                                   \
            commit_and_wait();                                                                          \
        }                                                                                               \
    }

BULK_REDUCE(bulk_add_f32, "add.f32")
BULK_REDUCE(bulk_add_f64, "add.f64")
BULK_REDUCE(bulk_add_u32, "add.u32")
BULK_REDUCE(bulk_add_bf16, "add.noftz.bf16")
BULK_REDUCE(bulk_max_f16, "max.f16")
BULK_REDUCE(bulk_min_s64, "min.s64")
BULK_REDUCE(bulk_xor_b64, "xor.b64")

// From shared memory to shared memory, by a copy and then by a reduction: out[i] = in[i] + in[i].
extern "C" __global__ void within_cluster(unsigned *out, const unsigned *in) {
    __shared__ __align__(128) unsigned from[64], to[64];
    __shared__ word done;
    from[threadIdx.x] = in[threadIdx.x];
    if (threadIdx.x == 0) barrier_init(&done, 1);
    async_fence();
    __syncthreads();
    if (threadIdx.x == 0) {
#define PASS(WHAT)                                                                                             \
    barrier_expect(&done, 256);                                                                                \
    asm volatile(WHAT " [%0], [%1], 256, [%2];" ::"r"(shared_address(to)), "r"(shared_address(from)),          \
                 "r"(shared_address(&done))                                                                    \
                 : "memory")
        PASS("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes");
        barrier_wait(&done, 0);
        PASS("cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u32");
    }
    __syncthreads();
    barrier_wait(&done, 1);
    out[threadIdx.x] = to[threadIdx.x];
}

// D = A B', A m×k and B n×k of bf16 in rows along k, D m×n of singles: a tile of 64×32 a block, steps of 64 along k. Warp
// 4 brings the tiles, three under way; warps 0 to 3 multiply them and send the result.
__device__ word descriptor(const void *start) {
    return (word)1 << 62 | (word)(1024 / 16) << 32 | (word)1 << 16 | shared_address(start) / 16;
}

#define SUMS                                                                                                        \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),     \
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])

__device__ void bring(void *to, const TensorMap *map, int x, int y, word *barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
                 "[%4];" ::"r"(shared_address(to)),
                 "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier))
                 : "memory");
}

extern "C" __global__ void __launch_bounds__(160)
    gemm(const __grid_constant__ TensorMap d_map, const __grid_constant__ TensorMap a_map,
         const __grid_constant__ TensorMap b_map, int k) {
    const int STAGES = 3;
    __shared__ __align__(1024) unsigned char a[STAGES][64 * 128], b[STAGES][32 * 128];
    __shared__ __align__(128) float tile[64 * 32];
    __shared__ word full[STAGES], empty[STAGES];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.y * 64, column = blockIdx.x * 32;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], 128);
        }
        barrier_fence();
    }
    __syncthreads();
    if (warp == 4) {
        if (lane == 0) {
            for (int step = 0; step * 64 < k; step++) {
                int stage = step % STAGES;
                if (step >= STAGES) barrier_wait(&empty[stage], step / STAGES + 1 & 1);
                barrier_expect(&full[stage], 96 * 128);
                bring(a[stage], &a_map, step * 64, row, &full[stage]);
                bring(b[stage], &b_map, step * 64, column, &full[stage]);
            }
        }
        return;
    }
    float d[16] = {};
    for (int step = 0; step * 64 < k; step++) {
        int stage = step % STAGES;
        barrier_wait(&full[stage], step / STAGES & 1);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        for (int i = 0; i < 4; i++)
            asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
                         "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, 1, 1, 1, 0, 0;"
                         : SUMS
                         : "l"(descriptor(a[stage]) + 2 * i), "l"(descriptor(b[stage]) + 2 * i)
                         : "memory");
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" : SUMS::"memory");
        barrier_arrive(&empty[stage]);
    }
    for (int i = 0; i < 16; i++)
        tile[(warp * 16 + lane / 4 + i / 2 % 2 * 8) * 32 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
    async_fence();
    asm volatile("bar.sync 1, 128;" ::: "memory");
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&d_map),
                     "r"(column), "r"(row), "r"(shared_address(tile))
                     : "memory");
        commit_and_wait();
    }
}
