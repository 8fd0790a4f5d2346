// What the launchers of pool2d.cpp hand to the kernels that are compiled once per capability. No inline function here:
// launchers and kernels are compiled for different instruction sets.
//
// Every kernel but one (Pool2dScatter) is a gather: an item (a window of the forward pass, an input pixel of the
// backward pass) reads a rectangle of taps of a source (the input, or grad_output). Which ones is tabulated per axis,
// with what lies in the padding left out, so that strides, dilations, clipped and adaptive windows are all the same to
// the kernels.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/element.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// One row or column of the source. `place` counts rows for a row, elements for a column.
struct Tap {
  int64_t place;
  // Maximum: r * S for a row, s for a column; their sum is the offset within the window.
  // Gradient of an average: the rows or columns that the window counts towards its divisor.
  int64_t code;
};

// Item i of an axis reads taps[first[i]] ... taps[first[i + 1] - 1].
struct AxisTaps {
  const int64_t* first;
  const Tap* taps;
};

// Channels innermost. A unit of work is one row of items.
struct Pool2dNhwc {
  int64_t rows, columns;                // items of one image
  int64_t source_rows, source_columns;  // source pixels of one image
  int64_t channels;
  AxisTaps row_taps, column_taps;
};

// A half-open range.
struct Span {
  int64_t begin, end;
};

// Columns innermost. With a stride t, column w of the input belongs to phase (w + pad) % t, at (w + pad) / t: within a
// phase the taps of neighbouring windows are neighbours, so that a row of windows reads each tap with contiguous loads.
// Averages with too irregular or too wide windows for that go by spans of columns instead.
// A unit of work is one row of items (averages) or `band_rows` rows of items of one plane (maxima).
struct Pool2dNchw {
  int64_t rows, columns;                // items of one plane
  int64_t source_rows, source_columns;  // source pixels of one plane
  int64_t band_rows, bands;             // rows of items that share the scratch memory; bands of one plane (maxima)
  AxisTaps row_taps;
  AxisTaps column_taps;  // forward: one list, for a whole row of windows; averages backward: one a phase or span
  int64_t stride, pad;   // of the columns
  int64_t phase_length;
  int64_t margin;     // backward: zeros before each row of grad_output
  bool rows_in_one;   // averages: windows tile the rows, so that a band of rows is as good as a single long row
  bool copies_rows;   // forward: false where windows can read rows as they lie
  const Span* spans;  // forward: the columns of each window; backward: columns that lie in the same windows; or null
  int64_t span_count;
};

// Columns innermost, windows add their gradients to a plane. Window (p, q) with offset k has its maximum at
// window_rows[p] + window_columns[q] + steps[k] of the plane. kNowhere in place of a term leaves the window out.
struct Pool2dScatter {
  int64_t windows_down, windows_across, taps;
  int64_t plane;   // elements
  int64_t planes;  // that are cleared, added to and rounded at a time
  const int64_t* window_rows;
  const int64_t* window_columns;
  const int64_t* steps;
};
constexpr int64_t kNowhere = INT64_MIN / 4;  // outside every plane, with other terms added as well

// What the windows of an average divide by: rows[p] * columns[q]; `uniform` is that where it is the same for all, or 0.
template <typename T>
struct WindowSizes {
  const T* rows;
  const T* columns;
  T uniform;
};

// Lanes of the longest register: the scratch memory of maxima and the first columns end in that many elements that are
// only read.
constexpr int64_t kMostLanes = 16;

// `scratch` comes filled with the identity of the operation (-infinity for a maximum, else zero); kernels write only
// what lies inside the map. That of Pool2dScatter is for sums that are rounded afterwards.
#define D2L_POOL2D_KERNELS(capability)                                                                                \
  namespace capability {                                                                                              \
  template <typename E, typename Offset>                                                                              \
  void max_pool2d_nhwc(const Pool2dNhwc& work, const E* input, E* output, Offset* offsets, Span units);               \
  template <typename E, typename Offset>                                                                              \
  void max_pool2d_input_grad_nhwc(const Pool2dNhwc& work, const E* grad_output, const Offset* offsets, E* grad_input, \
                                  Span units);                                                                        \
  template <typename E, typename Offset>                                                                              \
  void max_pool2d_nchw(const Pool2dNchw& work, const E* input, const Offset* first_columns, E* output,                \
                       Offset* offsets, computed_t<E>* scratch, Span units);                                          \
  template <typename E, typename Offset>                                                                              \
  void max_pool2d_input_grad_scatter(const Pool2dScatter& work, const E* grad_output, const Offset* offsets,          \
                                     E* grad_input, computed_t<E>* scratch, Span planes);                             \
  template <typename E>                                                                                               \
  void avg_pool2d_nhwc(const Pool2dNhwc& work, const WindowSizes<computed_t<E>>& sizes, const E* input, E* output,    \
                       Span units);                                                                                   \
  template <typename E>                                                                                               \
  void avg_pool2d_input_grad_nhwc(const Pool2dNhwc& work, computed_t<E> uniform_size, const E* grad_output,           \
                                  E* grad_input, Span units);                                                         \
  template <typename E>                                                                                               \
  void avg_pool2d_nchw(const Pool2dNchw& work, const WindowSizes<computed_t<E>>& sizes, const E* input, E* output,    \
                       computed_t<E>* scratch, Span units);                                                           \
  template <typename E>                                                                                               \
  void avg_pool2d_input_grad_nchw(const Pool2dNchw& work, const WindowSizes<computed_t<E>>& sizes,                    \
                                  const E* grad_output, E* grad_input, computed_t<E>* scratch, Span units);           \
  }

D2L_FOR_EACH_CAPABILITY(D2L_POOL2D_KERNELS)

#undef D2L_POOL2D_KERNELS

}  // namespace d2l::cpu
