// What becomes of the sums of a block of 32 x 32 that the tiles of AMX have left in memory. Only for kernel sources.
#pragma once

#include "kernels/cpu/activation.h"
#include "kernels/cpu/gemm_parts_pack.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kBlockSize = kLines * kLines;

// A block of sums on its way to c.
struct Finish {
  float* c;
  int64_t c_row;
  int64_t rows, columns;
  const float* bias;  // of its columns, or null
  bool adds;          // to what is in c
  bool streams;       // past the cache
  Activation activation;
  bool is_last;  // of its tile
};

class Finisher {
 public:
  // For the next sums, while those of the other block wait. The lines of c that they go to are fetched meanwhile.
  float* free_block(const Finish& next) {
    next_ = next;
    fetched_row_ = next.streams ? next.rows : 0;
    return blocks_[1 - used_];
  }

  // That block takes the place of the one that waited.
  void wait() {
    const Finish& finish = f_ = next_;
    used_ = 1 - used_;
    row_ = 0;
    first_lanes_ = min(finish.columns, kLanes<float>);
    second_lanes_ = finish.columns - first_lanes_;
    const bool has_bias = finish.bias != nullptr;
    first_bias_ = has_bias ? load_partial(finish.bias, first_lanes_) : vec_t<float>{};
    second_bias_ =
        has_bias && second_lanes_ > 0 ? load_partial(finish.bias + kLanes<float>, second_lanes_) : vec_t<float>{};
    has_whole_rows_ = finish.columns == kLines && !finish.streams &&
                      (finish.activation == Activation::none || finish.activation == Activation::relu);
  }

  void run(int64_t count) {
    for (const int64_t end = min(next_.rows, fetched_row_ + count); fetched_row_ < end; ++fetched_row_) {
      const float* const row = next_.c + fetched_row_ * next_.c_row;
      __builtin_prefetch(row, 1);
      __builtin_prefetch(row + kLanes<float>, 1);
    }
    const int64_t begin = row_, end = min(f_.rows, row_ + count);
    if (begin >= end) return;
    row_ = end;
    const float* from = blocks_[used_] + begin * kLines;
    float* to = f_.c + begin * f_.c_row;
    if (has_whole_rows_) {
      f_.adds ? finish_whole_rows<true>(from, to, end - begin) : finish_whole_rows<false>(from, to, end - begin);
      return;
    }
    vec_t<float> check = check_;
    for (int64_t i = begin; i < end; ++i, from += kLines, to += f_.c_row) {
      finish_register(from, to, first_lanes_, first_bias_, check);
      if (second_lanes_ == 0) continue;
      finish_register(from + kLanes<float>, to + kLanes<float>, second_lanes_, second_bias_, check);
    }
    check_ = check;
  }

  // Whether that completes a tile.
  bool finish() {
    if (f_.rows == 0) return false;
    run(f_.rows);
    f_.rows = 0;
    return f_.is_last;
  }

  // Whether all that was finished since the last question is finite.
  bool was_finite() {
    const bool result = is_finite(check_);
    check_ = vec_t<float>{};
    return result;
  }

 private:
  template <bool kAdds>
  D2L_INLINE void finish_whole_rows(const float* from, float* to, int64_t rows) {
    const vec_t<float> first_bias = first_bias_, second_bias = second_bias_;
    const bool is_relu = f_.activation == Activation::relu;
    const vec_t<float> least = broadcast(is_relu ? 0.0f : -__builtin_inff());  // NaN stays NaN
    vec_t<float> first_check = check_, second_check{};
    for (const int64_t to_row = f_.c_row; rows > 0; --rows, from += kLines, to += to_row) {
      vec_t<float> first = load(from) + first_bias, second = load(from + kLanes<float>) + second_bias;
      if (kAdds) {
        first += load<float>(to);
        second += load<float>(to + kLanes<float>);
      }
      first_check += first * 0.0f;
      second_check += second * 0.0f;
      store(to, larger<float>(least, first));
      store(to + kLanes<float>, larger<float>(least, second));
    }
    check_ = first_check + second_check;
  }

  D2L_INLINE void finish_register(const float* from, float* to, int64_t lanes, vec_t<float> bias, vec_t<float>& check) {
    vec_t<float> sum = load(from) + bias;
    if (f_.adds) sum += load_partial(to, lanes);
    check += sum * 0.0f;  // NaN of what is not finite
    if (f_.activation == Activation::relu) sum = relu<float>(sum);
    if (f_.activation == Activation::sigmoid) sum = sigmoid<float>(sum);
    if (f_.activation == Activation::tanh) sum = tanh<float>(sum);
    if (f_.streams) {
      store_streaming(to, sum);
    } else {
      store_partial(to, sum, lanes);
    }
  }

  alignas(kVectorBytes) float blocks_[2][kBlockSize];
  int64_t used_ = 0;
  Finish f_{}, next_{};
  int64_t fetched_row_ = 0, row_ = 0, first_lanes_ = 0, second_lanes_ = 0;
  vec_t<float> first_bias_{}, second_bias_{}, check_{};
  bool has_whole_rows_ = false;
};

}  // namespace
}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
