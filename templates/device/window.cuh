// How many of the cells first, first + kDilation, .. of a window lie in low .. high.
template <int kKernel, int kDilation> RT_DEV int rt_cells(int first, int low, int high) {
  int count = 0;
#pragma unroll
  for (int cell = 0; cell < kKernel; ++cell) {
    const int position = first + cell * kDilation;
    count += position >= low && position < high ? 1 : 0;
  }
  return count;
}
