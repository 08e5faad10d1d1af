// Matrix instructions of a group of four warps, which read both operands out of shared memory and
// go on while the threads do something else (sm_90a). Tests replace this section by one that
// computes them from the same layout.

// A tile in rows of 128 swizzled bytes, groups of eight rows 1024 bytes apart. Where rows lie
// across k, tiles of 128 bytes of rows are kBlockBytes apart.
template <int kBlockBytes> RT_DEV uint64_t rt_matrix(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t(1) << 62;
  constexpr uint64_t kGroup = uint64_t(1024 / 16) << 32;
  return kSwizzle128 | kGroup | uint64_t(kBlockBytes / 16) << 16 | uint64_t((address & 0x3ffff) >> 4);
}

// A piece without swizzle: eight rows of 16 bytes follow each other; the next 16 bytes of k are kAlongK bytes on, and the
// next eight rows kAlongRows.
template <int kAlongK, int kAlongRows> RT_DEV uint64_t rt_chunks(uint32_t address) {
  static_assert(kAlongK % 16 == 0 && kAlongRows % 16 == 0 && kAlongRows < 1 << 18, "whole chunks, within reach");
  return uint64_t(kAlongRows / 16) << 32 | uint64_t(kAlongK / 16) << 16 | uint64_t((address & 0x3ffff) >> 4);
}

// Before instructions that use sums which the threads have touched.
RT_DEV void rt_wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" : : : "memory"); }

// After a thread has written shared memory, and before the barrier behind which others multiply it.
RT_DEV void rt_wgmma_publish() { asm volatile("fence.proxy.async.shared::cta;" : : : "memory"); }

// Closes the group of instructions since the last call.
RT_DEV void rt_wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory"); }

// Waits until at most kOpen groups are not done: what the others read may be overwritten.
template <int kOpen> RT_DEV void rt_wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kOpen) : "memory"); }

// The threads may touch these sums, or rows that were read from registers, again: the groups that use them are
// waited for.
RT_DEV void rt_wgmma_own(float& value) { asm volatile("" : "+f"(value) : : "memory"); }
RT_DEV void rt_wgmma_own(int32_t& value) { asm volatile("" : "+r"(value) : : "memory"); }
RT_DEV void rt_wgmma_own(uint32_t& value) { asm volatile("" : "+r"(value) : : "memory"); }
template <class S, int kBlocks, int kSums> RT_DEV void rt_wgmma_take(S (&values)[kBlocks][kSums]) {
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
    for (int j = 0; j < kSums; ++j) rt_wgmma_own(values[i][j]);
  }
}

// Waits for all groups; the threads may touch the sums again.
template <class S, int kBlocks, int kSums> RT_DEV void rt_wgmma_end(S (&sums)[kBlocks][kSums]) {
  rt_wgmma_wait<0>();
  rt_wgmma_take(sums);
}

// sum = a * b, or sum += a * b where `keep`, for 64 rows and kColumns columns, 32 bytes deep.
// kAcrossA and kAcrossB: whether rows of the tile hold one k each, as 16-bit elements may.
template <class T, int kColumns, int kAcrossA, int kAcrossB> struct RtWgmma;

#define RT_SUMS_8(c, i) c(sum[i]), c(sum[i + 1]), c(sum[i + 2]), c(sum[i + 3]), c(sum[i + 4]), c(sum[i + 5]), c(sum[i + 6]), c(sum[i + 7])
#define RT_SUMS_32(c, i) RT_SUMS_8(c, i), RT_SUMS_8(c, i + 8), RT_SUMS_8(c, i + 16), RT_SUMS_8(c, i + 24)
#define RT_SUMS_64(c) RT_SUMS_32(c, 0)
#define RT_SUMS_128(c) RT_SUMS_64(c), RT_SUMS_32(c, 32)
#define RT_SUMS_192(c) RT_SUMS_128(c), RT_SUMS_32(c, 64)
#define RT_SUMS_256(c) RT_SUMS_192(c), RT_SUMS_32(c, 96)
#define RT_LIST_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define RT_LIST_128 \
  RT_LIST_64 ", " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define RT_LIST_192 \
  RT_LIST_128 ", " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define RT_LIST_256 \
  RT_LIST_192 ", " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// The tiles and `keep` are the asm's operands behind the sums. `how` is what the instruction is told
// after them: signs of floats, and how tiles of 16-bit elements lie.
#define RT_WGMMA(T, S, c, kind, columns, a_b, keep_register, how, ...) \
  template <int kAcrossA, int kAcrossB> struct RtWgmma<T, columns, kAcrossA, kAcrossB> { \
    static RT_DEV void run(S (&sum)[columns / 2], uint64_t a, uint64_t b, bool keep) { \
      asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, " keep_register ", 0;\n" \
                   "wgmma.mma_async.sync.aligned.m64n" #columns kind " {" RT_LIST_##columns "}, " a_b ", keep" how ";\n}" \
                   : RT_SUMS_##columns(c) : "l"(a), "l"(b), "r"(int(keep)) __VA_ARGS__); \
    } \
  };
#define RT_WGMMA_HALVES(T, columns, a_b, keep_register, across) \
  RT_WGMMA(T, float, "+f", "k16.f32." #T "." #T, columns, a_b, keep_register, ", 1, 1, " across, , "n"(kAcrossA), "n"(kAcrossB))
#define RT_WGMMA_BYTES(columns, a_b, keep_register) \
  RT_WGMMA(int8_t, int32_t, "+r", "k32.s32.s8.s8", columns, a_b, keep_register, "") \
  RT_WGMMA(f8e4m3, float, "+f", "k32.f32.e4m3.e4m3", columns, a_b, keep_register, ", 1, 1")
RT_WGMMA_HALVES(f16, 64, "%32, %33", "%34", "%35, %36")
RT_WGMMA_HALVES(bf16, 64, "%32, %33", "%34", "%35, %36")
RT_WGMMA_BYTES(64, "%32, %33", "%34")
RT_WGMMA_HALVES(f16, 128, "%64, %65", "%66", "%67, %68")
RT_WGMMA_HALVES(bf16, 128, "%64, %65", "%66", "%67, %68")
RT_WGMMA_BYTES(128, "%64, %65", "%66")
RT_WGMMA_HALVES(f16, 192, "%96, %97", "%98", "%99, %100")
RT_WGMMA_HALVES(bf16, 192, "%96, %97", "%98", "%99, %100")
RT_WGMMA_BYTES(192, "%96, %97", "%98")
RT_WGMMA_HALVES(f16, 256, "%128, %129", "%130", "%131, %132")
RT_WGMMA_HALVES(bf16, 256, "%128, %129", "%130", "%131, %132")
RT_WGMMA_BYTES(256, "%128, %129", "%130")

// As RtWgmma, with the rows of a in registers: those of an instruction of one warp, for each warp.
template <class T, int kColumns, int kAcrossB> struct RtWgmmaRows;

#define RT_WGMMA_ROWS(T, columns, a_b, keep_register, across) \
  template <int kAcrossB> struct RtWgmmaRows<T, columns, kAcrossB> { \
    static RT_DEV void run(float (&sum)[columns / 2], const uint32_t (&a)[4], uint64_t b, bool keep) { \
      asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, " keep_register ", 0;\n" \
                   "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." #T "." #T " {" RT_LIST_##columns "}, " a_b ", keep, 1, 1, " across ";\n}" \
                   : RT_SUMS_##columns("+f") : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(keep)), "n"(kAcrossB)); \
    } \
  };
RT_WGMMA_ROWS(f16, 64, "{%32, %33, %34, %35}, %36", "%37", "%38")
RT_WGMMA_ROWS(bf16, 64, "{%32, %33, %34, %35}, %36", "%37", "%38")
RT_WGMMA_ROWS(f16, 128, "{%64, %65, %66, %67}, %68", "%69", "%70")
RT_WGMMA_ROWS(bf16, 128, "{%64, %65, %66, %67}, %68", "%69", "%70")
