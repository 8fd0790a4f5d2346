// Windows that lie side by side, as the kernels of pool2d_tiles_kernel.cpp take them.
#pragma once

#include <algorithm>
#include <array>
#include <numeric>

#include "kernels/cpu/pool2d_tiles_kernel.h"
#include "kernels/cpu/short_array.h"

namespace d2l::cpu {

class Tiles {
 public:
  // `channels` of a pixel that lie side by side; `lanes` of a register, or 0 where lanes cannot be moved about.
  Tiles(const Pool2dShape& shape, int64_t channels, int64_t lanes) {
    const int64_t units = shape.N * shape.C / channels * shape.P;
    work_ = {shape.P, shape.Q, shape.H, shape.W, shape.R, shape.S, channels, units, units * shape.Q * channels,
             nullptr, nullptr, nullptr};
    if (channels >= lanes || shape.R * shape.S > 256) return;
    if (is_run(shape, channels, lanes)) {
      make_run(lanes);
    } else if (!tabulate(lanes, shape.Q * shape.S * channels)) {
      return;
    }
    work_.first = first_.data(), work_.sources = sources_.data(), work_.taps = taps_.data();
  }

  // Whether all pixels belong to windows, and a register holds a whole row of these: then any register of pixels, in
  // all of the tensor, can be made of a register of windows. Where the pixels of a row of windows fill whole registers
  // anyway, rows are faster.
  static bool is_run(const Pool2dShape& shape, int64_t channels, int64_t lanes) {
    const int64_t row = shape.W * channels;
    return shape.Q * channels <= lanes && shape.P * shape.R == shape.H && shape.Q * shape.S == shape.W &&
           (row < lanes || row * shape.R % lanes != 0);
  }

  // Whether windows lie like that: none overlaps, hangs over the edge or has holes. And whether there are any.
  static bool cover(const Pool2dShape& shape) {
    if (shape.P == 0 || shape.Q == 0) return false;
    if (shape.adaptive) return shape.H % shape.P == 0 && shape.W % shape.Q == 0;
    return shape.stride_h == shape.R && shape.stride_w == shape.S && shape.pad_h == 0 && shape.pad_w == 0 &&
           shape.dilation_h == 1 && shape.dilation_w == 1 && shape.P * shape.R <= shape.H &&
           shape.Q * shape.S <= shape.W;
  }

  // By lanes, or by channels where there are some.
  bool is_fast() const { return work_.first != nullptr || work_.channels > 1; }
  const Pool2dTiles& view() const { return work_; }

 private:
  // Units become as many rows of windows as fill whole registers with pixels, in the order they lie in: to the kernel
  // one row of windows, each of a row of R * S pixels.
  void make_run(int64_t lanes) {
    const int64_t windows = work_.columns * work_.channels, taps = work_.R * work_.S;
    const int64_t rows = lanes / std::gcd(windows * taps, lanes);
    tabulate(lanes, rows * windows * taps);
    work_.rows = work_.source_rows = work_.R = work_.channels = 1;
    work_.columns = rows * windows, work_.S = taps;
    work_.source_columns = work_.columns * taps;
    work_.units = (work_.windows + work_.columns - 1) / work_.columns;
  }

  // A pixel of rows of windows, times channels, plus channel; the next one without division.
  struct Pixel {
    const Pool2dTiles& work;
    int64_t channel, s, column, r, row;

    Pixel(const Pool2dTiles& of, int64_t i)
        : work(of),
          channel(i % of.channels),
          s(i / of.channels % of.S),
          column(i / (of.channels * of.S) % of.columns),
          r(i / (of.channels * of.S * of.columns) % of.R),
          row(i / (of.channels * of.S * of.columns * of.R)) {}

    int64_t source() const { return (row * work.columns + column) * work.channels + channel; }
    int64_t tap() const { return r * work.S + s; }
    void advance() {
      if (++channel < work.channels) return;
      channel = 0;
      if (++s < work.S) return;
      s = 0;
      if (++column < work.columns) return;
      column = 0;
      if (++r < work.R) return;
      r = 0;
      ++row;
    }
  };

  // The tables for `used` pixels, times channels, of rows of windows. False if a register would have to read from more
  // windows than it holds.
  bool tabulate(int64_t lanes, int64_t used) {
    const int64_t registers = (used + lanes - 1) / lanes;
    first_.reset(registers);
    sources_.reset(registers * lanes);
    taps_.reset(registers * lanes);
    for (int64_t i = 0; i < registers; ++i) {
      const int64_t begin = std::clamp<int64_t>(used - lanes, 0, i * lanes);  // the last one may repeat some pixels
      const int64_t count = std::min(lanes, used - begin);
      std::array<int64_t, kMostLanes> sources;
      Pixel pixel(work_, begin);
      for (int64_t lane = 0; lane < count; ++lane, pixel.advance()) {
        sources[static_cast<size_t>(lane)] = pixel.source();
        taps_[i * lanes + lane] = static_cast<uint8_t>(pixel.tap());
      }
      const auto [low, high] = std::minmax_element(sources.begin(), sources.begin() + count);
      if (*high - *low >= lanes) return false;
      first_[i] = *low;
      for (int64_t lane = 0; lane < count; ++lane) {
        sources_[i * lanes + lane] = static_cast<uint8_t>(sources[static_cast<size_t>(lane)] - *low);
      }
    }
    return true;
  }

  Pool2dTiles work_;
  ShortArray<int64_t, 32> first_;
  ShortArray<uint8_t, 256> sources_, taps_;
};

// The windows of the forward pass: by blocks of two rows, or of one if they fill one in `share` of the lanes, or by
// channels.
class TileBlocks {
 public:
  TileBlocks(const Pool2dShape& shape, int64_t channels, int64_t lanes, int64_t share) {
    const int64_t S = shape.S, row = shape.Q * S * channels;
    const int64_t rows = row <= lanes ? std::clamp<int64_t>(lanes / std::max<int64_t>(shape.Q * channels, 1), 1, 2) : 1;
    const int64_t block = std::min({lanes / channels, 2 * lanes / (S * channels), shape.Q});
    const int64_t span = block * S * channels;
    work_ = {shape.P,
             shape.Q,
             shape.H,
             shape.W,
             shape.R,
             S,
             channels,
             block,
             rows,
             std::min(span, lanes),
             rows == 2 ? span : std::max<int64_t>(span - lanes, 0),
             nullptr};
    if (rows * block < 2 || (rows == 1 && share * block * channels < lanes)) return;
    places_.reset(S * lanes);
    for (int64_t s = 0; s < S; ++s) {
      for (int64_t i = 0; i < rows * block * channels; ++i) {
        const int64_t window = i / channels, q = window % block;
        places_[s * lanes + i] = static_cast<uint8_t>(window / block * lanes + (q * S + s) * channels + i % channels);
      }
    }
    work_.places = places_.data();
  }

  bool is_fast() const { return work_.places != nullptr || (work_.channels > 1 && work_.R == 2 && work_.S == 2); }
  const Pool2dTileBlocks& view() const { return work_; }

 private:
  Pool2dTileBlocks work_;
  ShortArray<uint8_t, 256> places_;
};

}  // namespace d2l::cpu
