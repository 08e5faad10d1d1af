// Stands for templates/device/matrix_store.cuh.

template <class T> RT_DEV uint32_t rt_word_of(const float (&x)[2]) {
  return uint32_t(rt_put<T>(x[0]).bits) | uint32_t(rt_put<T>(x[1]).bits) << 16;
}

RT_DEV void rt_stmatrix(uint32_t row, const uint32_t (&from)[4], RT_SITE) { host::stmatrix(row, from, site); }
