// Stands for templates/device/async_copy.cuh.

RT_DEV void rt_async_copy_16(uint32_t to, const void* from, bool valid) { host::async_copy(to, from, valid); }
RT_DEV void rt_async_commit() { host::async_commit(); }
template <int kOpen> void rt_async_wait() { host::async_wait(kOpen); }
