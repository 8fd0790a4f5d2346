// How the launchers of batch_norm.cpp cut maps into pieces, and what they keep for each piece and channel.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/cpu/batch_norm.h"
#include "kernels/cpu/batch_norm_kernel.h"

namespace d2l::cpu {

constexpr int64_t kElementsPerPart = 32768;  // fewer are not worth a thread, nor the joining of their sums
constexpr int64_t kRowsPerPart = 64;
constexpr int64_t kFewRows = 256;  // groups of columns instead of parts
constexpr int64_t kColumnsPerGroup = 256;
constexpr int64_t kNarrow = 64;  // columns: fewer make short loops
constexpr int64_t kSmall = 16;   // pixels or columns: fewer do not fill a register

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How the maps are cut into groups of channels, and these into parts, whose sums are joined in order. All of it follows
// from the shape, nothing from the number of threads.
//
// By planes, a channel is a group and a part is some of its images. By columns, a part is some rows, and all channels
// are one group, unless there are few rows of many columns; column j of a group belongs to channel
// j / run % group_channels. Rows of few columns are taken `repeat` at a time if they are `dense`, but for the last
// ones, which do not fill a wide row: they are the last part. Too few for one wide row are taken one at a time.
struct Partition {
  bool by_columns;
  int64_t channels, pixels, group_channels = 1;
  int64_t run = 1, repeat = 1, width = 1;                               // width: columns of a group
  int64_t groups, items, items_per_part, whole_parts, narrow_rows = 0;  // items: images, or wide rows

  Partition(const BatchNormShape& shape, Layout layout, bool dense)
      : by_columns(layout == Layout::nhwc || shape.pixels < kSmall), channels(shape.C), pixels(shape.pixels) {
    if (by_columns) {
      run = layout == Layout::nchw ? pixels : 1;
      const int64_t rows = shape.values() / run, row = channels * run;
      repeat = row >= kNarrow || !dense ? 1 : row >= kSmall ? 4 : 16;
      if (rows < repeat) repeat = 1;
      group_channels = repeat == 1 && rows <= kFewRows ? channels_per_group(rows) : channels;
      width = group_channels * run * repeat;
      groups = channels / group_channels;
      items = rows / repeat;
      narrow_rows = rows % repeat;
      set_parts(std::max(kRowsPerPart, ceil_div(kElementsPerPart, width)));
    } else {
      groups = channels;
      items = shape.N;
      set_parts(ceil_div(kElementsPerPart, pixels));
    }
  }

  int64_t channels_per_group(int64_t rows) const {
    int64_t count = channels;
    while (count % 2 == 0 && count * run >= std::max(2 * kColumnsPerGroup, 2 * kElementsPerPart / rows)) count /= 2;
    return count;
  }

  // Parts of the same size, and of an even number, that threads have the same to do.
  void set_parts(int64_t least_items) {
    const int64_t most = std::max<int64_t>(1, items / least_items);
    items_per_part = std::max<int64_t>(1, ceil_div(items, most > 1 ? most / 2 * 2 : 1));
    whole_parts = ceil_div(items, items_per_part);
  }

  int64_t parts() const { return whole_parts + (narrow_rows > 0 ? 1 : 0); }
  bool is_narrow(int64_t part) const { return part == whole_parts; }
  int64_t items_of(int64_t part) const {
    return is_narrow(part) ? narrow_rows : std::min(items_per_part, items - part * items_per_part);
  }

  // The part of a group as a matrix.
  NormExtent extent(int64_t part) const {
    if (!by_columns) return {items_of(part), pixels};
    return {items_of(part), is_narrow(part) ? width / repeat : width};
  }
  template <typename T>
  NormRows<T> rows(NormMaps<T> maps, int64_t group, int64_t part) const {
    if (maps.data == nullptr) return {nullptr, 0};
    const int64_t item = is_narrow(part) ? items : part * items_per_part;
    if (!by_columns) return {maps.data + (item * channels + group) * pixels, channels * pixels};
    const int64_t pitch = maps.pixel > 0 ? maps.pixel : width * groups;
    return {maps.data + item * pitch + group * width, maps.pixel > 0 || !is_narrow(part) ? pitch : width / repeat};
  }
  // Where a part begins, in pixels counted over all images; it ends where the next one begins.
  int64_t first_pixel(int64_t part) const {
    const int64_t of_wide_rows = std::min(part * items_per_part, items) * repeat;
    const int64_t rows = part > whole_parts ? of_wide_rows + narrow_rows : of_wide_rows;
    return rows * (by_columns ? run : pixels);
  }
  // Values of each channel in the part.
  double values_of(int64_t part) const {
    return static_cast<double>(items_of(part) * extent(part).width / group_channels);
  }
};

// The columns of each of the channels: visit(column, channel).
template <typename Visit>
void for_each_column(int64_t width, int64_t run, int64_t channels, Visit&& visit) {
  if (run == 1 && width == channels) {  // a loop for vectors
    for (int64_t c = 0; c < channels; ++c) visit(c, c);
    return;
  }
  for (int64_t column = 0; column < width;) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < run; ++i, ++column) visit(column, c);
    }
  }
}

// Channels [begin, end).
struct Channels {
  int64_t begin, end;
};

// Two sums for every channel of every part.
class PartialSums {
 public:
  explicit PartialSums(const Partition& cut) : cut_(cut), sums_(2 * cut.channels * cut.parts()) {}
  double* first(int64_t part, int64_t group = 0) {
    return sums_.data() + 2 * part * cut_.channels + group * cut_.group_channels;
  }
  double* second(int64_t part, int64_t group = 0) { return first(part, group) + cut_.channels; }

 private:
  const Partition& cut_;
  ChannelArray<double> sums_;
};

// kCount factors for each channel, as the kernels read them: repeated for every column.
template <typename T, int kCount>
class Factors {
 public:
  explicit Factors(const Partition& cut)
      : cut_(cut),
        length_(cut.width * cut.groups),
        of_channels_(kCount * cut.channels),
        of_columns_(length_ > cut.channels ? kCount * length_ : 0) {}

  // To write the factors of channels to; spread() makes those of whole groups known to get().
  T* of_channels(int which) { return of_channels_.data() + which * cut_.channels; }
  void spread(int which, Channels channels) {
    if (of_columns_.size() == 0) return;
    const int64_t count = channels.end - channels.begin;
    const T* const from = of_channels(which) + channels.begin;
    T* const to = of_columns_.data() + which * length_ + channels.begin * cut_.run;
    for_each_column(length_ / cut_.channels * count, cut_.run, count,
                    [&](int64_t column, int64_t c) { to[column] = from[c]; });
  }
  const T* get(int which, int64_t group) const {
    return (of_columns_.size() == 0 ? of_channels_.data() : of_columns_.data()) + which * length_ + group * cut_.width;
  }

 private:
  const Partition& cut_;
  int64_t length_;
  ChannelArray<T> of_channels_, of_columns_;
};

// The mean as the nearest T and what that leaves: (x - near) - rest keeps all bits that T has for x - mean.
template <typename T>
struct Center {
  double near, rest;
  explicit Center(double mean) : near(static_cast<double>(static_cast<T>(mean))), rest(mean - near) {}
};

}  // namespace d2l::cpu
