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

// Before instructions that use sums which the threads have touched.
RT_DEV void rt_wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" : : : "memory"); }

// Closes the group of instructions since the last call.
RT_DEV void rt_wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory"); }

// Waits until at most kOpen groups are not done: what the others read may be overwritten.
template <int kOpen> RT_DEV void rt_wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kOpen) : "memory"); }

// Waits for all groups; the threads may touch the sums again.
template <int kBlocks, int kSums> RT_DEV void rt_wgmma_end(float (&sums)[kBlocks][kSums]) {
  rt_wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
    for (int j = 0; j < kSums; ++j) asm volatile("" : "+f"(sums[i][j]) : : "memory");
  }
}

// sum = a * b, or sum += a * b where `keep`, for 64 rows and kColumns columns, 32 bytes deep.
// kAcrossA and kAcrossB: whether rows of the tile hold one k each.
template <class T, int kColumns, int kAcrossA, int kAcrossB> struct RtWgmma;

#define RT_SUMS_8(i) \
  "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3]), "+f"(sum[i + 4]), "+f"(sum[i + 5]), "+f"(sum[i + 6]), "+f"(sum[i + 7])
#define RT_SUMS_32(i) RT_SUMS_8(i), RT_SUMS_8(i + 8), RT_SUMS_8(i + 16), RT_SUMS_8(i + 24)
#define RT_LIST_64 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, keep, 1, 1, %35, %36;\n"
#define RT_LIST_128 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, keep, 1, 1, %67, %68;\n"
#define RT_LIST_192 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, %96, %97, keep, 1, 1, %99, %100;\n"
#define RT_LIST_256 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, %128, %129, keep, 1, 1, %131, %132;\n"

#define RT_WGMMA(T, kind, columns, keep_register, ...) \
  template <int kAcrossA, int kAcrossB> struct RtWgmma<T, columns, kAcrossA, kAcrossB> { \
    static RT_DEV void run(float (&sum)[columns / 2], uint64_t a, uint64_t b, bool keep) { \
      asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, " keep_register ", 0;\n" \
                   "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." kind " " RT_LIST_##columns "}" \
                   : __VA_ARGS__ : "l"(a), "l"(b), "r"(int(keep)), "n"(kAcrossA), "n"(kAcrossB)); \
    } \
  };
RT_WGMMA(f16, "f16.f16", 64, "%34", RT_SUMS_32(0))
RT_WGMMA(f16, "f16.f16", 128, "%66", RT_SUMS_32(0), RT_SUMS_32(32))
RT_WGMMA(f16, "f16.f16", 192, "%98", RT_SUMS_32(0), RT_SUMS_32(32), RT_SUMS_32(64))
RT_WGMMA(f16, "f16.f16", 256, "%130", RT_SUMS_32(0), RT_SUMS_32(32), RT_SUMS_32(64), RT_SUMS_32(96))
RT_WGMMA(bf16, "bf16.bf16", 64, "%34", RT_SUMS_32(0))
RT_WGMMA(bf16, "bf16.bf16", 128, "%66", RT_SUMS_32(0), RT_SUMS_32(32))
RT_WGMMA(bf16, "bf16.bf16", 192, "%98", RT_SUMS_32(0), RT_SUMS_32(32), RT_SUMS_32(64))
RT_WGMMA(bf16, "bf16.bf16", 256, "%130", RT_SUMS_32(0), RT_SUMS_32(32), RT_SUMS_32(64), RT_SUMS_32(96))
