// Maps with a vector of images in each element, and the register tiles of the convolutions over them. Only for kernel
// sources.
#pragma once

#include "kernels/cpu/activation.h"
#include "kernels/cpu/transpose.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Result channels of a tile of 2 x 2 pixels, and of a tile of the weight gradient.
#if defined(__AVX512F__)
constexpr int kImagesWidth = 6, kImagesGradWidth = 4;
#else
constexpr int kImagesWidth = 2, kImagesGradWidth = 2;
#endif
constexpr int kImagesTaps = 5;  // of a row, at most

// A map of some images: the vector of element (channel, row, column) lies at the sum of the strides. The order of axes
// is that of the map in memory, so that runs of it are transposed as they are. Pixels of whole vectors of channels are
// a vector apart: a stride of 1 KB puts what some channels have in a few rows into a quarter of the L1 cache's sets.
template <typename T>
struct ImagesMap {
  T* data;  // of the first element inside the margins
  Layout layout;
  int64_t channels, rows, columns;
  int64_t row_margin, column_margin;  // zeros around
  int64_t channel, row, column;       // strides
  bool are_pixels_apart;

  ImagesMap(Layout layout, int64_t channels, int64_t rows, int64_t columns, int64_t row_margin, int64_t column_margin)
      : data(nullptr),
        layout(layout),
        channels(channels),
        rows(rows),
        columns(columns),
        row_margin(row_margin),
        column_margin(column_margin),
        are_pixels_apart(layout == Layout::nhwc && channels % kLanes<T> == 0) {
    const int64_t height = rows + 2 * row_margin, width = columns + 2 * column_margin;
    const bool nhwc = layout == Layout::nhwc;
    channel = kLanes<T> * (nhwc ? 1 : height * width);
    column = kLanes<T> * (nhwc ? channels + (are_pixels_apart ? 1 : 0) : 1);
    row = width * column;
  }

  int64_t elements() const { return (layout == Layout::nhwc ? 1 : channels) * (rows + 2 * row_margin) * row; }
  int64_t image_elements() const { return channels * rows * columns; }

  // Takes the memory, clears it, and returns what follows.
  T* place(T* memory) {
    __builtin_memset(memory, 0, static_cast<size_t>(elements()) * sizeof(T));
    data = memory + row_margin * row + column_margin * column;
    return memory + elements();
  }

  T* at(int64_t c, int64_t r, int64_t s) const { return data + c * channel + r * row + s * column; }

  // Lanes without an image hold zeros: place() put them there, and what is computed from zeros for them is never read.
  void read(const T* from, int64_t images) const {
    for_runs([&](T* lanes, int64_t offset, int64_t count) {
      transpose<T, true>(from + offset, image_elements(), images, count, lanes, kLanes<T>);
    });
  }

  void write(T* to, int64_t images) const {
    for_runs([&](const T* lanes, int64_t offset, int64_t count) {
      transpose<T>(lanes, kLanes<T>, count, images, to + offset, image_elements());
    });
  }

 private:
  // function(lanes, offset in an image, elements) for runs without gaps in between.
  template <typename Function>
  void for_runs(Function&& function) const {
    const bool nhwc = layout == Layout::nhwc;
    if (are_pixels_apart) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t s = 0; s < columns; ++s) function(at(0, r, s), (r * columns + s) * channels, channels);
      }
      return;
    }
    if (row_margin == 0 && column_margin == 0) {
      function(data, int64_t{0}, image_elements());
      return;
    }
    const int64_t run = nhwc ? columns * channels : columns;
    for (int64_t c = 0; c < (nhwc ? 1 : channels); ++c) {
      for (int64_t r = 0; r < rows; ++r) function(at(c, r, 0), (c * rows + r) * run, run);
    }
  }
};

// Taps begin .. end - 1 of one axis that meet the source somewhere, for a tile of some result pixels from `first` on.
struct TapRange {
  int64_t begin, end;
};
D2L_INLINE TapRange taps_inside(int64_t first, int64_t pixels, int64_t taps, int64_t pad, int64_t source) {
  return {max(0, pad - first - (pixels - 1)), min(taps, source + pad - first)};
}

template <typename T>
struct ImagesTile {
  const T* source;  // under tap (0, 0) of the first pixel
  int64_t source_channel, source_row, source_column;
  int64_t depth, taps_h, taps_w;
  TapRange rows, columns;
  const T* weights;  // depth x taps_h x taps_w x width
  const T* bias;     // width
  Activation activation;
  T* result;  // null: not wanted
  int64_t result_channel, result_row, result_column;
  T* pooled;  // of a tile of 2 x 2 pixels; null: not wanted
  int64_t pooled_channel;
};

template <typename T, int Rows, int Columns, int Width>
void images_tile(const ImagesTile<T>& t) {
  vec_t<T> sums[Width][Rows][Columns];
#pragma GCC unroll 6
  for (int k = 0; k < Width; ++k) {
#pragma GCC unroll 2
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < Columns; ++j) sums[k][i][j] = broadcast(t.bias[k]);
    }
  }
  for (int64_t d = 0; d < t.depth; ++d) {
    for (int64_t r = t.rows.begin; r < t.rows.end; ++r) {
      const T* source = t.source + d * t.source_channel + r * t.source_row + t.columns.begin * t.source_column;
      const T* weights = t.weights + ((d * t.taps_h + r) * t.taps_w + t.columns.begin) * Width;
#pragma GCC unroll 1
      for (int64_t s = t.columns.begin; s < t.columns.end; ++s) {
        vec_t<T> pixels[Rows][Columns];
#pragma GCC unroll 2
        for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
          for (int j = 0; j < Columns; ++j) pixels[i][j] = load(source + i * t.source_row + j * t.source_column);
        }
#pragma GCC unroll 6
        for (int k = 0; k < Width; ++k) {
          const vec_t<T> weight = broadcast(weights[k]);
#pragma GCC unroll 2
          for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
            for (int j = 0; j < Columns; ++j) sums[k][i][j] += weight * pixels[i][j];
          }
        }
        source += t.source_column;
        weights += Width;
      }
    }
  }
  if (t.activation != Activation::none) {
    // Through memory: unrolled for 24 registers, the activation would not fit the instruction cache.
    alignas(64) T values[Width * Rows * Columns * kLanes<T>];
#pragma GCC unroll 6
    for (int k = 0; k < Width; ++k) {
#pragma GCC unroll 2
      for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < Columns; ++j) store(values + ((k * Rows + i) * Columns + j) * kLanes<T>, sums[k][i][j]);
      }
    }
    activate(static_cast<T*>(values), Width * Rows * Columns * kLanes<T>, t.activation);
#pragma GCC unroll 6
    for (int k = 0; k < Width; ++k) {
#pragma GCC unroll 2
      for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < Columns; ++j) sums[k][i][j] = load(values + ((k * Rows + i) * Columns + j) * kLanes<T>);
      }
    }
  }
  if (t.result != nullptr) {
#pragma GCC unroll 6
    for (int k = 0; k < Width; ++k) {
#pragma GCC unroll 2
      for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < Columns; ++j) {
          store(t.result + k * t.result_channel + i * t.result_row + j * t.result_column, sums[k][i][j]);
        }
      }
    }
  }
  if constexpr (Rows == 2 && Columns == 2) {
    if (t.pooled != nullptr) {
#pragma GCC unroll 6
      for (int k = 0; k < Width; ++k) {
        store(t.pooled + k * t.pooled_channel,
              T(0.25) * ((sums[k][0][0] + sums[k][0][1]) + (sums[k][1][0] + sums[k][1][1])));
      }
    }
  }
}

template <typename T>
using ImagesTileFunction = void (*)(const ImagesTile<T>&);

template <typename T, int... I>
D2L_INLINE ImagesTileFunction<T> images_tile_of(int rows, int columns, int width, std::integer_sequence<int, I...>) {
  constexpr ImagesTileFunction<T> kTiles[2][2][kImagesWidth] = {
      {{images_tile<T, 1, 1, 1 + I>...}, {images_tile<T, 1, 2, 1 + I>...}},
      {{images_tile<T, 2, 1, 1 + I>...}, {images_tile<T, 2, 2, 1 + I>...}},
  };
  return kTiles[rows - 1][columns - 1][width - 1];
}

// The tile of 1 or 2 x 1 or 2 pixels and 1 .. kImagesWidth channels.
template <typename T>
D2L_INLINE ImagesTileFunction<T> images_tile_function(int64_t rows, int64_t columns, int64_t width) {
  return images_tile_of<T>(static_cast<int>(rows), static_cast<int>(columns), static_cast<int>(width),
                           std::make_integer_sequence<int, kImagesWidth>{});
}

// With AVX2's 16 registers g++ makes a load part of each product that needs it, and the loads then take longer than the
// products. AVX-512 has room for all, and the baseline, whose products are no fused ones, has not.
template <typename T>
D2L_INLINE vec_t<T> load_once(const T* from) {
  vec_t<T> value = load(from);
#if defined(__AVX2__) && !defined(__AVX512F__)
  keep_in_register(value);
#endif
  return value;
}

// sums[k][s] += sum over rows and columns of grad[k] * input at tap s of one row of taps.
template <typename T>
struct ImagesWeightTile {
  const T* grad;
  int64_t grad_channel, grad_row, grad_column;
  const T* input;
  int64_t input_row, input_column;
  int64_t rows, columns;
  T* sums;
  int64_t sums_channel;  // vectors of a channel's taps follow one another
};

template <typename T, int Width, int Taps>
void images_weight_tile(const ImagesWeightTile<T>& t) {
  vec_t<T> sums[Width][Taps];
#pragma GCC unroll 4
  for (int k = 0; k < Width; ++k) {
#pragma GCC unroll 5
    for (int s = 0; s < Taps; ++s) sums[k][s] = load(t.sums + k * t.sums_channel + s * kLanes<T>);
  }
  for (int64_t p = 0; p < t.rows; ++p) {
    const T *grad = t.grad + p * t.grad_row, *input = t.input + p * t.input_row;
    const auto step = [&]() D2L_INLINE_LAMBDA {
      vec_t<T> pixels[Taps];
#pragma GCC unroll 5
      for (int s = 0; s < Taps; ++s) pixels[s] = load_once(input + s * t.input_column);
#pragma GCC unroll 4
      for (int k = 0; k < Width; ++k) {
        const vec_t<T> gradient = load(grad + k * t.grad_channel);
#pragma GCC unroll 5
        for (int s = 0; s < Taps; ++s) sums[k][s] += gradient * pixels[s];
      }
      grad += t.grad_column;
      input += t.input_column;
    };
    int64_t q = 0;
    if constexpr (Width < kImagesGradWidth) {  // steps of few products take hardly longer than the loop
#pragma GCC unroll 1
      for (; q + 1 < t.columns; q += 2) {
        step();
        step();
      }
    }
#pragma GCC unroll 1
    for (; q < t.columns; ++q) step();
  }
#pragma GCC unroll 4
  for (int k = 0; k < Width; ++k) {
#pragma GCC unroll 5
    for (int s = 0; s < Taps; ++s) store(t.sums + k * t.sums_channel + s * kLanes<T>, sums[k][s]);
  }
}

template <typename T>
using ImagesWeightFunction = void (*)(const ImagesWeightTile<T>&);

template <typename T, int Width, int... I>
D2L_INLINE ImagesWeightFunction<T> images_weight_of(int64_t taps, std::integer_sequence<int, I...>) {
  constexpr ImagesWeightFunction<T> kTiles[kImagesTaps] = {images_weight_tile<T, Width, 1 + I>...};
  return kTiles[taps - 1];
}

template <typename T>
D2L_INLINE ImagesWeightFunction<T> images_weight_function(int64_t width, int64_t taps) {
  constexpr auto kIndices = std::make_integer_sequence<int, kImagesTaps>{};
  if (width == 1) return images_weight_of<T, 1>(taps, kIndices);
  if (width == 2) return images_weight_of<T, 2>(taps, kIndices);
#if defined(__AVX512F__)
  if (width == 3) return images_weight_of<T, 3>(taps, kIndices);
#endif
  return images_weight_of<T, kImagesGradWidth>(taps, kIndices);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
