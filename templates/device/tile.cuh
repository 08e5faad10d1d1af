// Blocks and tiles of matrix kernels.

struct RtTilePlace {
  int m, n, batch, split;
};

// Neighbouring blocks share operands: tiles go down groups of kGroup rows of tiles before
// they go right, splits of a tile are far apart. Counts of tiles are constants or arguments of a kernel.
template <int kGroup = 8>
RT_DEV RtTilePlace rt_tile_place(unsigned block, int tiles_m, int tiles_n, int splits) {
  const unsigned plane = block / unsigned(tiles_m * tiles_n);
  const int within = int(block % unsigned(tiles_m * tiles_n));
  const int first = within / (kGroup * tiles_n) * kGroup;
  const int rows = tiles_m - first < kGroup ? tiles_m - first : kGroup;
  const int inside = within % (kGroup * tiles_n);
  return {first + inside % rows, inside / rows, int(plane / unsigned(splits)), int(plane % unsigned(splits))};
}

// The same for the blocks of clusters, each of which has the splits of one tile.
RT_DEV RtTilePlace rt_cluster_place(unsigned block, int tiles_m, int tiles_n, int splits) {
  RtTilePlace place = rt_tile_place(block / unsigned(splits), tiles_m, tiles_n, 1);
  place.split = int(block % unsigned(splits));
  return place;
}

// Place of a 16-byte chunk in a row of kChunks of them, so that neither eight rows at one
// chunk nor one row at eight chunks meet in a bank.
template <int kChunks> RT_DEV int rt_swizzle(int row, int chunk) {
  if (kChunks >= 8) return row * kChunks + (chunk ^ (row & 7));
  if (kChunks == 4) return row * kChunks + (chunk ^ ((row >> 1) & 3));
  if (kChunks == 2) return row * kChunks + (chunk ^ ((row >> 2) & 1));
  return row * kChunks + chunk;
}

// The same for warps that read single words: four rows at eight neighbouring columns.
template <int kChunks> RT_DEV int rt_swizzle_words(int row, int chunk) {
  if (kChunks >= 8) return row * kChunks + (chunk ^ ((row & 3) << 1));
  if (kChunks == 4) return row * kChunks + (chunk ^ (((row >> 1) & 1) << 1));
  return row * kChunks + chunk;
}
