// Copies to shared memory that go on while the thread does something else (sm_80 and later).

// 16 bytes, or zeros where `valid` is false; nothing is read then.
RT_DEV void rt_async_copy_16(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(to), "l"(from), "r"(valid ? 16 : 0));
}

// Closes the group of copies begun since the last call.
RT_DEV void rt_async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits until at most kOpen groups are not done. Other threads see the bytes after a barrier.
template <int kOpen> RT_DEV void rt_async_wait() { asm volatile("cp.async.wait_group %0;" : : "n"(kOpen) : "memory"); }
