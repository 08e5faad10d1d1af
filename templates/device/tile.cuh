// Blocks and tiles of matrix kernels.

struct RtTilePlace {
  int m, n, batch, split;
};

// Neighbouring blocks share operands: tiles go down groups of kGroup rows of tiles before
// they go right, splits of a tile are far apart.
template <int kTilesM, int kTilesN, int kSplits, int kGroup = 8>
RT_DEV RtTilePlace rt_tile_place(unsigned block) {
  const unsigned plane = block / unsigned(kTilesM * kTilesN);
  const int within = int(block % unsigned(kTilesM * kTilesN));
  const int first = within / (kGroup * kTilesN) * kGroup;
  const int rows = kTilesM - first < kGroup ? kTilesM - first : kGroup;
  const int inside = within % (kGroup * kTilesN);
  return {first + inside % rows, inside / rows, int(plane / unsigned(kSplits)), int(plane % unsigned(kSplits))};
}

// The same for the blocks of clusters, each of which has the splits of one tile.
template <int kTilesM, int kTilesN, int kSplits>
RT_DEV RtTilePlace rt_cluster_place(unsigned block) {
  RtTilePlace place = rt_tile_place<kTilesM, kTilesN, 1>(block / unsigned(kSplits));
  place.split = int(block % unsigned(kSplits));
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
