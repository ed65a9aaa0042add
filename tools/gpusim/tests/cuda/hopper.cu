// What Hopper adds: barriers in shared memory, bulk copies, warpgroup products. Checked in tests/hopper.rs.

#include "barrier.cuh"

// Warp 0 produces, warp 1 consumes, through a ring of two slots: out[i] = 3 i, for n rounds of 32.
#define RING(name, WAIT_FOR_FULL)                                   \
    extern "C" __global__ void name(int *out, int n) {              \
        __shared__ int ring[2][32];                                 \
        __shared__ word full[2], empty[2];                          \
        int lane = threadIdx.x % 32;                                \
        if (threadIdx.x == 0) {                                     \
            for (int i = 0; i < 2; i++) {                           \
                barrier_init(&full[i], 32);                         \
                barrier_init(&empty[i], 32);                        \
            }                                                       \
            barrier_fence();                                        \
        }                                                           \
        __syncthreads();                                            \
        if (threadIdx.x < 32) {                                     \
            for (int i = 0; i < n; i++) {                           \
                if (i >= 2) barrier_wait(&empty[i % 2], i / 2 + 1 & 1); \
                ring[i % 2][lane] = 3 * (i * 32 + lane);            \
                barrier_arrive(&full[i % 2]);                       \
            }                                                       \
        } else {                                                    \
            for (int i = 0; i < n; i++) {                           \
                if (WAIT_FOR_FULL) barrier_wait(&full[i % 2], i / 2 & 1); \
                out[i * 32 + lane] = ring[i % 2][lane ^ 1];         \
                barrier_arrive(&empty[i % 2]);                      \
            }                                                       \
        }                                                           \
    }

RING(ring, true)
// The consumer waits for its second slot, and reads the first, too, without a wait.
RING(ring_without_wait, i == 1)

// Every form of arriving and waiting, by one thread; out[i] are what the waits and states say.
extern "C" __global__ void forms(int *out) {
    __shared__ word barrier;
    unsigned at = shared_address(&barrier);
    word state;
    unsigned done, pending;
    barrier_init(&barrier, 3);
    asm volatile("mbarrier.arrive.shared::cta.b64 %0, [%1], 2;" : "=l"(state) : "r"(at) : "memory");
    asm volatile("mbarrier.pending_count.b64 %0, %1;" : "=r"(pending) : "l"(state));
    out[0] = pending;
#define TEST(i)                                                                                         \
    asm volatile("{.reg .pred p; mbarrier.test_wait.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}" \
                 : "=r"(done)                                                                           \
                 : "r"(at), "l"(state)                                                                  \
                 : "memory");                                                                           \
    out[i] = done
    TEST(1);
    barrier_expect(&barrier, 16);
    TEST(2);
    asm volatile("mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%0], 16;" ::"r"(at) : "memory");
    TEST(3);
    // The second phase: one arrival is dropped for good, so that the third needs two.
    asm volatile("mbarrier.arrive_drop.shared::cta.b64 %0, [%1];" : "=l"(state) : "r"(at) : "memory");
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], 8;" ::"r"(at) : "memory");
    asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], 8;" ::"r"(at) : "memory");
    TEST(4);
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], 2;" ::"r"(at) : "memory");
    TEST(5);
    asm volatile("mbarrier.arrive.shared::cta.b64 %0, [%1], 2;" : "=l"(state) : "r"(at) : "memory");
    TEST(6);
    // A remote address, as a cluster's other blocks would use it; the cluster is this block.
    unsigned remote, rank;
    asm volatile("mapa.shared::cluster.u32 %0, %1, 0;" : "=r"(remote) : "r"(at));
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0], 2;" ::"r"(remote) : "memory");
    barrier_wait(&barrier, 1);
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(rank));
    out[7] = rank;
    asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(at) : "memory");
}

// Waits for two arrivals, and only one comes.
extern "C" __global__ void one_short() {
    __shared__ word barrier;
    barrier_init(&barrier, 2);
    barrier_arrive(&barrier);
    barrier_wait(&barrier, 0);
}

// Two arrivals where one is expected.
extern "C" __global__ void one_too_many() {
    __shared__ word barrier;
    if (threadIdx.x == 0) {
        barrier_init(&barrier, 2);
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], 3;" ::"r"(shared_address(&barrier)) : "memory");
    }
}

// Arrives before anybody can know that the barrier is there.
extern "C" __global__ void unannounced() {
    __shared__ word barrier;
    if (threadIdx.x == 0) barrier_init(&barrier, 64);
    barrier_arrive(&barrier);
}

// The cluster's barrier, in two halves; one thread of each warp is elected; registers are handed over.
extern "C" __global__ void __launch_bounds__(64) cluster(int *out) {
    __shared__ int values[64];
    values[threadIdx.x] = threadIdx.x;
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    unsigned elected;
    asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p;}" : "=r"(elected));
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    out[threadIdx.x] = elected ? 1000 : values[63 - threadIdx.x];
}

__device__ void bulk_in(void *to, const void *from, int bytes, word *barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

__device__ void bulk_out(void *to, const void *from, int bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n"
                 "cp.async.bulk.commit_group;" ::"l"(__cvta_generic_to_global(to)),
                 "r"(shared_address(from)), "r"(bytes)
                 : "memory");
}

// out[i] = in[i] + 1 for two tiles of 160 floats a block: in and out by bulk copies, both tiles under way at once.
// What is left out makes it wrong: WAIT_IN the wait for a tile, WAIT_OUT the wait before its memory is used again.
#define ADD_ONE(name, WAIT_IN, WAIT_OUT)                                                     \
    extern "C" __global__ void name(float *out, const float *in) {                           \
        __shared__ __align__(16) float tile[2][160];                                         \
        __shared__ word full[2];                                                             \
        const float *from = in + blockIdx.x * 320;                                           \
        float *to = out + blockIdx.x * 320;                                                  \
        if (threadIdx.x == 0) {                                                              \
            for (int i = 0; i < 2; i++) barrier_init(&full[i], 1);                           \
            barrier_fence();                                                                 \
            for (int i = 0; i < 2; i++) {                                                    \
                barrier_expect(&full[i], 640);                                               \
                bulk_in(tile[i], from + i * 160, 640, &full[i]);                             \
            }                                                                                \
        }                                                                                    \
        __syncthreads();                                                                     \
        for (int i = 0; i < 2; i++) {                                                        \
            if (WAIT_IN) barrier_wait(&full[i], 0);                                          \
            for (int j = threadIdx.x; j < 160; j += blockDim.x) tile[i][j] += 1;             \
        }                                                                                    \
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");                         \
        __syncthreads();                                                                     \
        if (threadIdx.x == 0) {                                                              \
            for (int i = 0; i < 2; i++) bulk_out(to + i * 160, tile[i], 640);                \
            if (WAIT_OUT) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");     \
        }                                                                                    \
        __syncthreads();                                                                     \
        tile[1][threadIdx.x] = 0;                                                            \
    }

ADD_ONE(add_one, true, true)
ADD_ONE(add_one_early, i == 0, true)
ADD_ONE(add_one_late, true, false)

// D = A B' (- A B' with negative), A 64x16, B 32x16, both in rows along k: swizzle is 0 (none), 32, 64 or 128 bytes.
// A comes from shared memory or from registers; the product is computed twice, and the second added to the first.
__device__ unsigned piece_at(int row, int half, int swizzle) {
    if (swizzle == 0) return row / 8 * 256 + half * 128 + row % 8 * 16;
    unsigned at = row * swizzle + half * 16;
    return at ^ (at / 128 % (swizzle / 16) * 16);
}

__device__ word descriptor(const void *start, int swizzle) {
    int mode = swizzle == 128 ? 1 : swizzle == 64 ? 2 : swizzle == 32 ? 3 : 0;
    word leading = 128, stride = swizzle == 0 ? 256 : 8 * swizzle;
    return (word)mode << 62 | stride / 16 << 32 | leading / 16 << 16 | shared_address(start) / 16;
}

#define SUMS(f)                                                                                                 \
    f(d[0]), f(d[1]), f(d[2]), f(d[3]), f(d[4]), f(d[5]), f(d[6]), f(d[7]), f(d[8]), f(d[9]), f(d[10]), f(d[11]), \
        f(d[12]), f(d[13]), f(d[14]), f(d[15])
#define IN_OUT(x) "+f"(x)
#define SUM_NAMES "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}"

#define PRODUCT(name, A_SIDE, SCALE_A, TRANSPOSE, WAIT, ...)                                                      \
    extern "C" __global__ void __launch_bounds__(128) name(float *out, const uint4 *a, const uint4 *b, int swizzle) { \
        __shared__ __align__(1024) char x[64 * 128];                                                             \
        __shared__ __align__(1024) char y[32 * 128];                                                             \
        int t = threadIdx.x, lane = t % 32, warp = t / 32;                                                       \
        *(uint4 *)(x + piece_at(t / 2, t % 2, swizzle)) = a[t];                                                  \
        if (t < 64) *(uint4 *)(y + piece_at(t / 2, t % 2, swizzle)) = b[t];                                      \
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");                                             \
        __syncthreads();                                                                                         \
        const unsigned *words = (const unsigned *)a + (warp * 16 + lane / 4) * 8 + lane % 4;                     \
        unsigned r[4] = {words[0], words[64], words[4], words[68]};                                              \
        float d[16];                                                                                             \
        for (int i = 0; i < 16; i++) d[i] = 7;                                                                   \
        word from = descriptor(x, swizzle), with = descriptor(y, swizzle);                                       \
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");                                                  \
        for (int again = 0; again < 2; again++)                                                                  \
            asm volatile("{.reg .pred p; setp.ne.b32 p, %17, 0;\n"                                               \
                         "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 " SUM_NAMES ", " A_SIDE             \
                         ", %16, p, " SCALE_A ", 1, " TRANSPOSE ";}"                                             \
                         : SUMS(IN_OUT)                                                                          \
                         : "l"(with), "r"(again), __VA_ARGS__                                                    \
                         : "memory");                                                                            \
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");                                           \
        if (WAIT) asm volatile("wgmma.wait_group.sync.aligned 0;" : SUMS(IN_OUT)::"memory");                     \
        __syncthreads();                                                                                         \
        *(uint4 *)(x + piece_at(t / 2, t % 2, swizzle)) = uint4{};                                               \
        for (int i = 0; i < 16; i++)                                                                             \
            out[(warp * 16 + lane / 4 + i / 2 % 2 * 8) * 32 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];          \
    }

PRODUCT(product, "%18", "1", "0, 0", true, "l"(from))
PRODUCT(product_from_registers, "{%18,%19,%20,%21}", "-1", "0", true, "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]))
PRODUCT(product_without_wait, "%18", "1", "0, 0", false, "l"(from))

// Warp 0 brings 32 integers by cp.async, and its copies arrive at a barrier; warp 1 waits there (or doesn't) and reads.
#define BEHIND_COPIES(name, WAIT)                                                                                \
    extern "C" __global__ void name(int *out, const int *in) {                                                   \
        __shared__ int tile[32];                                                                                 \
        __shared__ word full;                                                                                    \
        int lane = threadIdx.x % 32;                                                                             \
        if (threadIdx.x == 0) barrier_init(&full, 32);                                                           \
        __syncthreads();                                                                                         \
        if (threadIdx.x < 32) {                                                                                  \
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(&tile[lane])),          \
                         "l"(__cvta_generic_to_global(in + lane))                                                \
                         : "memory");                                                                            \
            asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(&full))     \
                         : "memory");                                                                            \
        } else {                                                                                                 \
            if (WAIT) barrier_wait(&full, 0);                                                                    \
            out[lane] = tile[31 - lane];                                                                         \
        }                                                                                                        \
    }

BEHIND_COPIES(behind_copies, true)
BEHIND_COPIES(behind_copies_without_wait, false)
