// Index arithmetic where a position may be negative or out of range.

template <class T> RT_DEV T rt_floor_div(T a, T b) {
  T quotient = a / b;
  return a % b < 0 ? quotient - 1 : quotient;
}
template <class T> RT_DEV T rt_floor_mod(T a, T b) {
  T rest = a % b;
  return rest < 0 ? rest + b : rest;
}
template <class T> RT_DEV T rt_clamp_index(T a, T extent) {
  return a < 0 ? 0 : a < extent ? a : extent - 1;
}
