// Stands for templates/device/cluster.cuh.

RT_DEV void rt_cluster_announce(RT_SITE) { host::cluster_announce(site); }
RT_DEV void rt_cluster_wait(RT_SITE) { host::cluster_wait(site); }
template <class S> RT_DEV void rt_peer_load(S (&to)[4], uint32_t address, int block) {
  host::peer_load(&to, sizeof to, address, block);
}
