// Operands of matrix products of float32 as the tiles of AMX want their parts (see float_parts.h). Only for kernel
// sources.
//
// Rows of a and columns of b, "lines" here, are packed 32 at a time, with all of a block of the depth. A step of the
// depth pairs its first 16 values with its last 16, so that registers are paired as they are loaded.
#pragma once

#include "kernels/cpu/float_parts.h"
#include "kernels/cpu/line_prefetch.h"
#include "kernels/cpu/transpose.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kLines = 32, kHalfLines = 16;  // of a tile and of a half of it

// Element (line, depth) of an operand; one of the strides is 1.
struct Lines {
  const float* data;
  int64_t line, depth;
  bool are_rows;  // of a
  bool adjacent;  // `line` is 1

  Lines at(int64_t first_line, int64_t first_depth) const {
    Lines result = *this;
    result.data += first_line * line + first_depth * depth;
    return result;
  }

  // What is in memory of so many lines of so much depth.
  LinePrefetch fetched(int64_t count, int64_t values) const {
    return adjacent ? LinePrefetch::of(data, count, values, depth) : LinePrefetch::of(data, values, count, line);
  }
};

// Packs a tile of at most 32 lines, 16 of them by 32 of the depth at a time, a few packed rows with each call. Where
// there is less, zeros take its place. What lies `ahead` elements further is fetched.
class TileSplit {
 public:
  void start(const Lines& from, int64_t lines, int64_t depth, int64_t ahead, uint16_t* to) {
    from_ = from;
    lines_ = lines;
    depth_ = depth;
    ahead_ = ahead;
    to_ = to;
    steps_ = ceil_div(depth, kPartDepth);
    parts_ = steps_ * ceil_div(lines, kHalfLines);
    part_ = 0;
    start_part();
  }

  // That are left to be packed. Transposing a block is the work of some.
  int64_t rows() const { return (parts_ - part_) * (kHalfLines + (transposes() ? 2 * kRowsOfBlock : 0)); }

  void run(int64_t rows) {
    while (rows > 0 && part_ < parts_) {
      if (row_ < 0) {
        transpose_block(row_++ + 2);
        rows -= kRowsOfBlock;
        continue;
      }
      const int64_t count = min(rows, kHalfLines - row_);
      transposes()
          ? split_rows({blocks_, kLanes<float>, kBlock, kLanes<float>, kLanes<float>, 0xffff, 0xffff}, 0, count)
          : split_rows(source_, ahead_, count);
      rows -= count;
      if (row_ < kHalfLines) continue;
      ++part_;
      start_part();
    }
  }
  void finish() { run(rows()); }

 private:
  static constexpr int64_t kRowsOfBlock = 4, kBlock = kLanes<float> * kLanes<float>;

  // Registers that become one row of pairs, of so many, and which of their lanes there are.
  struct Source {
    const float* data;
    int64_t stride, second;  // from a row to the next, and from the first register to the second
    int64_t first_rows, second_rows;
    __mmask16 first_lanes, second_lanes;

    D2L_INLINE vec_t<float> first(int64_t i) const {
      return _mm512_maskz_loadu_ps(i < first_rows ? first_lanes : 0, data + i * stride);
    }
    D2L_INLINE vec_t<float> second_of(int64_t i) const {
      return _mm512_maskz_loadu_ps(i < second_rows ? second_lanes : 0, data + i * stride + second);
    }
  };

  bool transposes() const { return from_.are_rows == from_.adjacent; }

  void start_part() {
    if (part_ == parts_) return;
    constexpr int64_t kSize = kLanes<float>;
    const int64_t half = part_ / steps_, step = part_ % steps_;
    const int64_t lines = min(kHalfLines, lines_ - half * kHalfLines);
    const int64_t first = min(kSize, depth_ - step * kPartDepth),
                  second = clamp(depth_ - step * kPartDepth - kSize, 0, kSize);
    const float* data = from_.at(half * kHalfLines, step * kPartDepth).data;
    const auto lanes = [](int64_t count) { return static_cast<__mmask16>((1u << count) - 1); };
    source_ = from_.adjacent ? Source{data, from_.depth, kSize * from_.depth, first, second, lanes(lines), lanes(lines)}
                             : Source{data, from_.line, kSize, lines, lines, lanes(first), lanes(second)};
    const int64_t width = from_.are_rows || lines_ > kHalfLines ? kLines : kHalfLines;
    to_row_ = from_.are_rows ? kPartDepth : 2 * width;
    to_part_ = width * kPartDepth;
    part_to_ = to_ + step * kParts * to_part_ + half * kHalfLines * (from_.are_rows ? kPartDepth : 2);
    row_ = transposes() ? -2 : 0;
  }

  void transpose_block(int64_t index) {
    vec_t<float> block[kLanes<float>];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<float>; ++i) {
      block[i] = index == 0 ? source_.first(i) : source_.second_of(i);
      prefetch(source_.data + i * source_.stride + index * source_.second, ahead_);
    }
    transpose_registers<float>(block);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<float>; ++i) store(blocks_ + index * kBlock + i * kLanes<float>, block[i]);
  }

  void split_rows(Source from, int64_t ahead, int64_t count) {
    const int64_t to_row = to_row_, to_part = to_part_, end = row_ + count;
    uint16_t* to = part_to_ + row_ * to_row;
    for (int64_t i = row_; i < end; ++i, to += to_row) {
      prefetch(from.data + i * from.stride, ahead);
      prefetch(from.data + i * from.stride + from.second, ahead);
      store_parts(to, to_part, paired_float_parts(from.first(i), from.second_of(i)));
    }
    row_ = end;
  }

  Lines from_{};
  int64_t lines_ = 0, depth_ = 0, ahead_ = 0, steps_ = 0;
  uint16_t* to_ = nullptr;
  int64_t parts_ = 0, part_ = 0, row_ = 0;  // of 16 lines by 32 of the depth
  Source source_{};
  uint16_t* part_to_ = nullptr;
  int64_t to_row_ = 0, to_part_ = 0;
  alignas(kVectorBytes) float blocks_[2 * kBlock];  // transposed
};

}  // namespace
}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
