// What the end of one layer and the start of the next costs: a chain of dependent layers as kernels
// of one CUDA graph (plain and programmatic edges), and as one persistent kernel whose blocks meet
// at a counter of the whole grid or at counters of the tiles that they read.
//
//     nvcc -O3 -arch=sm_90a boundaries.cu -o boundaries && ./boundaries
//
// Every layer: each block copies its own weights to shared memory before it waits for the layer
// before (they depend on nothing), reads a tile of activations that other blocks have written, adds
// up and writes its part. Nothing is multiplied, so that the boundary is what is timed.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>
#define CHECK(call) do { cudaError_t e = (call); if (e != cudaSuccess) { printf("%s: %s\n", #call, cudaGetErrorString(e)); exit(1); } } while (0)

constexpr int LAYERS = 48, THREADS = 256;
struct Shape { int blocks, groups, weights, reads, writes; };  // bytes are per block

__device__ __forceinline__ void fetch_weights(uint32_t slab, const char* weights, int bytes) {
    for (int i = threadIdx.x * 16; i < bytes; i += THREADS * 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(slab + i), "l"(weights + i) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// The blocks of a group read what the group wrote in the layer before.
__device__ __forceinline__ void layer(const Shape& s, const char* slab, const char* from, char* to, int block) {
    int per_group = s.blocks / s.groups, group = block / per_group;
    const uint4* tile = (const uint4*)(from + (size_t)group * per_group * s.writes);
    int span = per_group * s.writes / 16, n = s.reads / 16;
    uint4 sum = make_uint4(0, 0, 0, 0);
    #pragma unroll 8
    for (int i = threadIdx.x; i < n; i += THREADS) {
        uint4 v = __ldcg(tile + i % span);
        sum.x += v.x; sum.y += v.y; sum.z += v.z; sum.w += v.w;
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    for (int i = threadIdx.x * 16; i < s.writes; i += THREADS * 16) {
        uint4 w = *(const uint4*)(slab + i % s.weights);
        sum.x ^= w.x;
        __stcg((uint4*)(to + (size_t)block * s.writes + i), sum);
    }
}

__global__ void one_layer(Shape s, const char* weights, const char* from, char* to, int programmatic) {
    extern __shared__ __align__(128) char slab[];
    if (programmatic) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    fetch_weights((uint32_t)__cvta_generic_to_shared(slab), weights + (size_t)blockIdx.x * s.weights, s.weights);
    if (programmatic) asm volatile("griddepcontrol.wait;" ::: "memory");
    layer(s, slab, from, to, blockIdx.x);
}

__global__ void persistent(Shape s, const char* weights, char* a, char* b, unsigned* counters, unsigned round, int by_group) {
    extern __shared__ __align__(128) char slab[];
    int per_group = s.blocks / s.groups, group = by_group ? blockIdx.x / per_group : 0;
    unsigned expected = (by_group ? per_group : s.blocks) * (round + 1);
    for (int l = 0; l < LAYERS; l++) {
        int half = l & 1;
        uint32_t at = (uint32_t)__cvta_generic_to_shared(slab) + half * s.weights;
        fetch_weights(at, weights + ((size_t)l * s.blocks + blockIdx.x) * s.weights, s.weights);
        if (l > 0) {
            if (threadIdx.x == 0) {
                const unsigned* counter = counters + ((l - 1) * s.groups + group) * 32;
                unsigned seen;
                do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
                while (seen < expected);
            }
            __syncthreads();
        }
        layer(s, slab + half * s.weights, half ? b : a, half ? a : b, blockIdx.x);
        __syncthreads();
        if (threadIdx.x == 0)
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" :: "l"(counters + (l * s.groups + group) * 32) : "memory");
    }
}

struct Timer {
    cudaStream_t stream; cudaEvent_t from, to;
    Timer() { CHECK(cudaStreamCreate(&stream)); CHECK(cudaEventCreate(&from)); CHECK(cudaEventCreate(&to)); }
    template <class F> float median_us(F run) {
        std::vector<float> times;
        for (int i = 0; i < 60; i++) {
            CHECK(cudaEventRecord(from, stream)); run(); CHECK(cudaEventRecord(to, stream));
            CHECK(cudaEventSynchronize(to));
            float ms; CHECK(cudaEventElapsedTime(&ms, from, to));
            if (i >= 10) times.push_back(ms * 1000);
        }
        std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
        return times[times.size() / 2];
    }
};

int main() {
    Timer timer;
    Shape shapes[] = {{128, 4, 4096, 32768, 3072}, {128, 4, 9216, 32768, 1024}, {128, 4, 16384, 65536, 4096},
                      {128, 1, 4096, 32768, 3072}, {64, 4, 8192, 32768, 2048}};
    printf("us per layer of %d: %d threads a block\n", LAYERS, THREADS);
    for (Shape s : shapes) {
        char *weights, *a, *b; unsigned* counters;
        size_t activations = (size_t)s.blocks * s.writes;
        CHECK(cudaMalloc(&weights, (size_t)LAYERS * s.blocks * s.weights)); CHECK(cudaMalloc(&a, activations)); CHECK(cudaMalloc(&b, activations));
        CHECK(cudaMemset(weights, 1, (size_t)LAYERS * s.blocks * s.weights)); CHECK(cudaMemset(a, 1, activations));
        size_t counter_bytes = (size_t)LAYERS * s.groups * 128;
        CHECK(cudaMalloc(&counters, counter_bytes));
        int smem = 2 * s.weights;
        CHECK(cudaFuncSetAttribute(one_layer, cudaFuncAttributeMaxDynamicSharedMemorySize, s.weights));
        CHECK(cudaFuncSetAttribute(persistent, cudaFuncAttributeMaxDynamicSharedMemorySize, smem));
        float us[4];
        std::vector<char> results[4];
        for (int mode = 0; mode < 4; mode++) {
            unsigned zero_round = 0;
            cudaGraph_t graph; cudaGraphExec_t exec;
            CHECK(cudaMemset(a, 1, activations)); CHECK(cudaMemset(b, 0, activations));
            CHECK(cudaDeviceSynchronize());
            CHECK(cudaStreamBeginCapture(timer.stream, cudaStreamCaptureModeGlobal));
            if (mode < 2) for (int l = 0; l < LAYERS; l++) {
                cudaLaunchConfig_t config = {}; cudaLaunchAttribute attribute = {};
                config.gridDim = s.blocks; config.blockDim = THREADS; config.dynamicSmemBytes = s.weights; config.stream = timer.stream;
                attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization; attribute.val.programmaticStreamSerializationAllowed = 1;
                config.attrs = &attribute; config.numAttrs = mode == 1 && l > 0;
                const char* w = weights + (size_t)l * s.blocks * s.weights;
                CHECK(cudaLaunchKernelEx(&config, one_layer, s, w, (const char*)((l & 1) ? b : a), (l & 1) ? a : b, mode));
            } else {
                CHECK(cudaMemsetAsync(counters, 0, counter_bytes, timer.stream));
                persistent<<<s.blocks, THREADS, smem, timer.stream>>>(s, weights, a, b, counters, zero_round, mode == 3);
            }
            CHECK(cudaStreamEndCapture(timer.stream, &graph));
            CHECK(cudaGraphInstantiate(&exec, graph, 0));
            CHECK(cudaGraphLaunch(exec, timer.stream)); CHECK(cudaStreamSynchronize(timer.stream));
            results[mode].resize(activations);
            CHECK(cudaMemcpy(results[mode].data(), a, activations, cudaMemcpyDeviceToHost));
            us[mode] = timer.median_us([&] { CHECK(cudaGraphLaunch(exec, timer.stream)); });
        }
        bool same = results[0] == results[1] && results[0] == results[2] && results[0] == results[3];
        printf("%3d blocks in %d groups, %5d bytes of weights, %5d read, %4d written a block: kernels %.2f  programmatic %.2f  persistent, one counter %.2f  counters of groups %.2f  %s\n",
               s.blocks, s.groups, s.weights, s.reads, s.writes, us[0] / LAYERS, us[1] / LAYERS, us[2] / LAYERS, us[3] / LAYERS, same ? "equal" : "DIFFERENT");
        CHECK(cudaFree(weights)); CHECK(cudaFree(a)); CHECK(cudaFree(b)); CHECK(cudaFree(counters));
    }
}
