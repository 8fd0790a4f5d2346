// Tables of taps for the pooling kernels (see pool2d_kernel.h): which rows and columns an item reads.
#pragma once

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cpu/pool2d_kernel.h"

namespace d2l::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

class AxisTable {
 public:
  AxisTable() = default;
  AxisTable(std::vector<int64_t> first, std::vector<Tap> taps) : first_(std::move(first)), taps_(std::move(taps)) {}

  void add(int64_t place, int64_t code) { taps_.push_back({place, code}); }
  void end_item() { first_.push_back(static_cast<int64_t>(taps_.size())); }
  int64_t items() const { return static_cast<int64_t>(first_.size()) - 1; }
  AxisTaps view() const { return {first_.data(), taps_.data()}; }

  // The most source rows that `band` neighbouring items span.
  int64_t largest_span(int64_t band) const {
    int64_t largest = 0;
    for (int64_t begin = 0; begin < items(); begin += band) {
      const auto from = taps_.begin() + first_[begin];
      const auto to = taps_.begin() + first_[std::min(begin + band, items())];
      if (from == to) continue;
      const auto by_place = [](const Tap& a, const Tap& b) { return a.place < b.place; };
      const auto [low, high] = std::minmax_element(from, to, by_place);
      largest = std::max(largest, high->place - low->place + 1);
    }
    return largest;
  }

 private:
  std::vector<int64_t> first_{0};
  std::vector<Tap> taps_;
};

// One axis of a Pool2dShape.
struct PoolAxis {
  const Pool2dShape& shape;
  bool vertical;

  int64_t size() const { return vertical ? shape.H : shape.W; }
  int64_t windows() const { return vertical ? shape.P : shape.Q; }
  Window window(int64_t i) const { return vertical ? shape.rows(i) : shape.columns(i); }
  int64_t pad() const { return shape.adaptive ? 0 : vertical ? shape.pad_h : shape.pad_w; }

  // What an average over window i divides by, along this axis.
  int64_t divisor(int64_t i) const {
    if (shape.divisor_override != 0) return vertical ? shape.divisor_override : 1;
    const Window taps = window(i);
    const int64_t counted = shape.count_include_pad ? std::min(taps.end, size() + pad()) - taps.begin
                                                    : std::min(taps.end, size()) - std::max<int64_t>(taps.begin, 0);
    return std::max<int64_t>(counted, 1);  // the average of nothing is 0
  }
};

// Item i: the places of window i, times `scale`. Codes count taps, times `code_scale`.
inline AxisTable tabulate_windows(const PoolAxis& axis, int64_t scale, int64_t code_scale) {
  AxisTable table;
  for (int64_t i = 0; i < axis.windows(); ++i) {
    const Window window = axis.window(i);
    int64_t tap = 0;
    for (int64_t place = window.begin; place < window.end; place += window.step, ++tap) {
      if (place >= 0 && place < axis.size()) table.add(place * scale, tap * code_scale);
    }
    table.end_item();
  }
  return table;
}

// Item h: the windows that cover place h, times `scale`, in ascending order, coded code(window, tap).
template <typename Code>
AxisTable tabulate_covers(const PoolAxis& axis, int64_t scale, Code&& code) {
  const auto for_each_tap = [&](auto&& visit) {
    for (int64_t i = 0; i < axis.windows(); ++i) {
      const Window window = axis.window(i);
      int64_t tap = 0;
      for (int64_t place = window.begin; place < window.end; place += window.step, ++tap) {
        if (place >= 0 && place < axis.size()) visit(static_cast<size_t>(place), i, tap);
      }
    }
  };
  std::vector<int64_t> first(static_cast<size_t>(axis.size()) + 1, 0);
  for_each_tap([&](size_t place, int64_t, int64_t) { ++first[place + 1]; });
  std::partial_sum(first.begin(), first.end(), first.begin());
  std::vector<Tap> taps(static_cast<size_t>(first.back()));
  std::vector<int64_t> next(first.begin(), first.end() - 1);
  for_each_tap([&](size_t place, int64_t i, int64_t tap) {
    taps[static_cast<size_t>(next[place]++)] = {i * scale, code(i, tap)};
  });
  return {std::move(first), std::move(taps)};
}

constexpr int64_t kLargestPhasedStride = 4;  // a split into more phases costs more than it saves
constexpr int64_t kFewestPhasedColumns = 4;

// Columns as the phased kernels need them: all windows alike, `stride` apart.
struct PhasedColumns {
  bool possible;
  int64_t stride, pad, dilation, taps;

  explicit PhasedColumns(const Pool2dShape& shape)
      : possible(false), stride(shape.stride_w), pad(shape.pad_w), dilation(shape.dilation_w), taps(shape.S) {
    if (shape.Q < kFewestPhasedColumns) return;
    if (shape.adaptive) {
      if (shape.W % shape.Q != 0) return;
      stride = taps = shape.W / shape.Q;
      pad = 0;
      dilation = 1;
    }
    possible = stride <= kLargestPhasedStride;
  }

  int64_t reach() const { return (taps - 1) * dilation / stride; }
  // Windows that neither overlap nor leave anything out, so that rows one after the other are like one long row.
  bool tile(const Pool2dShape& shape) const { return pad == 0 && reach() == 0 && shape.W == shape.Q * stride; }

  AxisTable forward_taps(int64_t phase_length) const {
    AxisTable table;
    for (int64_t s = 0; s < taps; ++s) {
      table.add(s * dilation % stride * phase_length + s * dilation / stride, s);
    }
    table.end_item();
    return table;
  }

  AxisTable backward_taps() const {
    AxisTable table;
    for (int64_t phase = 0; phase < stride; ++phase) {
      for (int64_t s = taps - 1; s >= 0; --s) {  // ascending windows
        if (s * dilation % stride == phase) table.add(reach() - s * dilation / stride, s);
      }
      table.end_item();
    }
    return table;
  }
};

}  // namespace d2l::cpu
