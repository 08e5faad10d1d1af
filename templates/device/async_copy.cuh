// Copies from global to shared memory that run beside the thread. They land in groups: a wait
// says how many of the newest groups may still be under way. Below sm_80 a copy is done at once.

// 16 bytes; both addresses are multiples of 16.
RT_DEV void rt_copy_async16(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  uint32_t address;
  asm("{ .reg .u64 p; cvta.to.shared.u64 p, %1; cvt.u32.u64 %0, p; }" : "=r"(address) : "l"(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
#else
  *reinterpret_cast<RtPack<uint32_t, 4>*>(to) = *reinterpret_cast<const RtPack<uint32_t, 4>*>(from);
#endif
}

RT_DEV void rt_copy_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int kNewest> RT_DEV void rt_copy_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
#endif
}
