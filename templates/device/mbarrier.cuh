// Barriers in shared memory that threads and copies arrive at (sm_90 and later). A barrier has
// phases, numbered from zero: one ends when as many arrivals have come as the barrier expects
// and every announced byte. Addresses are those of shared memory.

RT_DEV void rt_barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(barrier), "r"(arrivals) : "memory");
}

// Shows initialized barriers to copies; other threads need a barrier of the block after it.
RT_DEV void rt_barrier_publish() { asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory"); }

RT_DEV void rt_barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(barrier) : "memory");
}

// Arrives, and announces bytes that copies will bring in this phase.
RT_DEV void rt_barrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" : : "r"(barrier), "r"(bytes) : "memory");
}

// Waits until the phase of this parity has ended. Before the first phase an odd one has.
RT_DEV void rt_barrier_wait(uint32_t barrier, int parity) {
  asm volatile("{\n"
               ".reg .pred done;\n"
               "again_%=:\n"
               "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
               "@!done bra again_%=;\n"
               "}" : : "r"(barrier), "r"(parity) : "memory");
}
