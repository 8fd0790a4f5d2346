// What the launchers of conv2d_groups.h prepare for the kernels, which are compiled once per capability.
#pragma once

#include <type_traits>

#include "kernels/cpu/capability.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/progress.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// A tap that falls into the map, and the row or column of the source under it.
struct AxisTap {
  int64_t tap, source;
};

// Columns first, first + step, ... of the result, which meet the same taps: from one to the next the columns of the
// source move by `advance`. `taps` holds those of the first column.
struct ColumnRun {
  int64_t first, step, count, advance;
  const AxisTap* taps;
  int64_t tap_count;
};

// The rows and columns of a pass: row i of the result meets row_taps[row_begin[i]] to row_taps[row_begin[i + 1]].
struct GroupsAxes {
  int64_t source_rows, source_columns, result_rows, result_columns;
  const AxisTap* row_taps;
  const int64_t* row_begin;
  const ColumnRun* runs;
  int64_t run_count;
  int64_t taps, taps_in_row;  // R * S, S
};

// The channels of a pixel as vectors: each holds `groups_in_vector` whole groups, the last one what is left. Lane l of
// `sources[j]` says which lane of a vector of the source is channel j of the group that lane l of the result belongs
// to.
template <typename T>
struct GroupsChannels {
  static constexpr int64_t kMostLanes = 64 / static_cast<int64_t>(sizeof(T));
  static constexpr int64_t kMostDepth = kMostLanes / 2;

  int64_t groups, groups_in_vector, vectors;
  int64_t depth, width;  // channels of the source and of the result, in one group
  std::conditional_t<sizeof(T) == 4, int32_t, int64_t> sources[kMostDepth][kMostLanes];

  bool is_depthwise() const { return depth == 1 && width == 1; }
};

// A map of several images, its pixels `pixel` elements apart in NHWC.
template <typename E>
struct GroupsMap {
  Layout layout;
  int64_t pixel;
  E* data;
};

template <typename E>
struct GroupsCorrelation {
  int64_t images;
  GroupsAxes axes;
  GroupsChannels<computed_t<E>> channels;
  GroupsMap<const E> source;
  GroupsMap<E> result;
  const computed_t<E>* weight;  // [vectors][taps][depth][lanes], zeros in empty lanes
  const computed_t<E>* bias;    // [vectors][lanes], or null
  Activation activation;
  Progress progress;
};

// The axes are those of the forward pass.
template <typename E>
struct GroupsWeightGradient {
  int64_t images;
  GroupsAxes axes;
  GroupsChannels<computed_t<E>> channels;
  GroupsMap<const E> input, grad_output;
  int64_t parts;        // of the images' rows (NHWC) or of the images (NCHW), each with sums of its own
  computed_t<E>* sums;  // [parts][vectors][taps][depth][lanes]
};

#define D2L_CONV2D_GROUPS_KERNELS(capability)                          \
  namespace capability {                                               \
  template <typename E>                                                \
  void correlate_groups(const GroupsCorrelation<E>& problem);          \
  template <typename E>                                                \
  void weight_gradient_groups(const GroupsWeightGradient<E>& problem); \
  }
D2L_FOR_EACH_CAPABILITY(D2L_CONV2D_GROUPS_KERNELS)
#undef D2L_CONV2D_GROUPS_KERNELS

}  // namespace d2l::cpu
