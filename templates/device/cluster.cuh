// Clusters of blocks that run at the same time and read each other's shared memory (sm_90 and later). A block
// announces what it has written there and waits for all others; after it has read, it announces that,
// and none ends before all have.

RT_DEV void rt_cluster_announce() { asm volatile("barrier.cluster.arrive.release.aligned;" : : : "memory"); }
RT_DEV void rt_cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" : : : "memory"); }

// Four sums at an address of the shared memory of a block of the cluster.
template <class S> RT_DEV void rt_peer_load(S (&to)[4], uint32_t address, int block) {
  uint32_t peer, words[4];
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(peer) : "r"(address), "r"(block));
  asm volatile("ld.shared::cluster.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(peer) : "memory");
  memcpy(&to, &words, sizeof(words));
}
