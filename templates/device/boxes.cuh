// Boxes of images by their corners, and what they share.

struct RtBox {
  float low_y, low_x, high_y, high_x;
};

// Two corners in any order.
RT_DEV RtBox rt_box_of_corners(float y0, float x0, float y1, float x1) {
  return {fminf(y0, y1), fminf(x0, x1), fmaxf(y0, y1), fmaxf(x0, x1)};
}
// A centre and a size.
RT_DEV RtBox rt_box_of_centre(float y, float x, float height, float width) {
  return rt_box_of_corners(y - height / 2.0f, x - width / 2.0f, y + height / 2.0f, x + width / 2.0f);
}
RT_DEV float rt_box_area(RtBox box) { return rt_mul_rounded(box.high_y - box.low_y, box.high_x - box.low_x); }

// Whether what two boxes share is more than `most` of what they cover together. Products are rounded, so that
// a box next to the limit is kept where the reference keeps it.
RT_DEV bool rt_boxes_overlap(RtBox a, RtBox b, float most) {
  const float height = fminf(a.high_y, b.high_y) - fmaxf(a.low_y, b.low_y);
  const float width = fminf(a.high_x, b.high_x) - fmaxf(a.low_x, b.low_x);
  if (!(height > 0.0f) || !(width > 0.0f)) return false;
  const float common = rt_mul_rounded(height, width);
  const float area_a = rt_box_area(a);
  const float area_b = rt_box_area(b);
  const float both = area_a + area_b - common;
  return area_a > 0.0f && area_b > 0.0f && both > 0.0f && common / both > most;
}

// An integer with the order of floats, where minus zero is below zero and NaN are beyond infinity.
RT_DEV int32_t rt_order_of_f32(float x) {
  const uint32_t bits = rt_bits_of_f32(x);
  return int32_t(int32_t(bits) < 0 ? bits ^ 0x7fffffffu : bits);
}

// A number by which boxes are ranked: by score, and of equal ones the first is ahead.
RT_DEV int64_t rt_rank_of_box(float score, int box) {
  return int64_t(uint64_t(uint32_t(rt_order_of_f32(score))) << 32 | uint32_t(~box));
}
// The box of a rank; -1 of the least number.
RT_DEV int rt_box_of_rank(int64_t rank) { return ~int(uint32_t(rank)); }
