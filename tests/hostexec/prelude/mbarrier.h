// Stands for templates/device/mbarrier.cuh.

RT_DEV void rt_barrier_init(uint32_t barrier, int arrivals) { host::barrier_init(barrier, arrivals); }
RT_DEV void rt_barrier_publish() { host::barrier_publish(); }
RT_DEV void rt_barrier_arrive(uint32_t barrier) { host::barrier_arrive(barrier); }
RT_DEV void rt_barrier_expect(uint32_t barrier, int bytes) { host::barrier_expect(barrier, bytes); }
RT_DEV void rt_barrier_wait(uint32_t barrier, int parity, RT_SITE) { host::barrier_wait(barrier, parity, site); }
