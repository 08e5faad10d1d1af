// Stands for templates/device/stream.cuh.

template <class T> RT_DEV void rt_stream(T* to, const T& value) { *to = value; }
template <int N, class T, class V> RT_DEV void rt_stream(T* to, const V (&from)[N]) { rt_store<N>(to, from); }
