// Pooling over windows that are whole maps: reductions over all pixels, whose offsets count pixels.
//
//   grad_input[i] = grad_output where offsets = i, else 0     (maximum: zeros, and one store a window)
//   grad_input[i] = grad_output / size                        (average)
//
// Bytes: each tensor once. Threads share images (NHWC) or planes (NCHW). Vectors run over the channels, or over the
// pixels of a plane; several accumulators hide the latency of an operation. They are merged in an order that depends on
// the shape alone.
#include <limits>

#include "kernels/cpu/pool2d_global_kernel.h"
#include "kernels/cpu/pool2d_pack.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

constexpr int kAccumulators = 4;
constexpr int64_t kClearedBytes = 16384;  // at a time: still in the first cache when gradients are stored

// Folds the upper half of the lanes onto the lower one until a single lane is left.
template <typename Value, typename Fold, int... kIndices>
D2L_INLINE auto fold_lanes(Value value, Fold&& fold, std::integer_sequence<int, kIndices...>) {
  constexpr int kHalf = sizeof...(kIndices);
  const auto half = fold(__builtin_shufflevector(value, value, kIndices...),
                         __builtin_shufflevector(value, value, (kHalf + kIndices)...));
  if constexpr (kHalf == 1) {
    return half[0];
  } else {
    return fold_lanes(half, fold, std::make_integer_sequence<int, kHalf / 2>{});
  }
}

template <typename T, typename Fold>
D2L_INLINE T fold_all(vec_t<T> value, Fold&& fold) {
  return fold_lanes(value, fold, std::make_integer_sequence<int, kLanes<T> / 2>{});
}

// Maxima of lanes, and the first pixels they are found at.
template <typename T, int kCount>
struct Maxima {
  pack_t<T, kCount> best = spread<kCount>(-static_cast<T>(__builtin_inf()));
  pack_t<lane_t<T>, kCount> pixel{};

  D2L_INLINE void merge(const Maxima& other) {
    const auto wins = (other.best > best) | ((other.best == best) & (other.pixel < pixel));
    best = wins ? other.best : best;
    pixel = wins ? other.pixel : pixel;
  }
};

template <typename E, typename Offset>
void max_of_plane_one_by_one(const E* plane, int64_t pixels, E* output, Offset* offset) {
  using T = computed_t<E>;
  T best = -std::numeric_limits<T>::infinity();
  int64_t place = 0;
  for (int64_t i = 0; i < pixels; ++i) {
    const T value = read_one(plane[i]);
    if (value > best || value != value) best = value, place = i;
  }
  *output = rounded_one<E>(best);
  if (offset != nullptr) *offset = static_cast<Offset>(place);
}

template <bool kWithOffsets, typename E, typename Offset>
D2L_INLINE void max_of_plane(const E* plane, int64_t pixels, E* output, Offset* offset) {
  using T = computed_t<E>;
  using Code = lane_t<T>;
  constexpr int kCount = kLanes<T>;
  if (pixels < kCount) return max_of_plane_one_by_one(plane, pixels, output, offset);
  vec_t<Code> lanes;
  for (int lane = 0; lane < kCount; ++lane) lanes[lane] = lane;
  Maxima<T, kCount> maxima[kAccumulators];
  NanWatch<vec_t<T>> nans;
  for_each_pack<kCount, kAccumulators>(pixels, [&](auto, auto blocks, int64_t i) D2L_INLINE_LAMBDA {
    vec_t<T> values[blocks.value];
    for (int b = 0; b < blocks.value; ++b) {
      values[b] = read(plane + i + b * kCount);
      const auto pixel = lanes + static_cast<Code>(i + b * kCount);
      replace_where_greater(values[b], pixel, maxima[b].best, maxima[b].pixel);
    }
    for (int b = 0; b < blocks.value; b += 2) nans.see(values[b], values[min(b + 1, blocks.value - 1)]);
  });
  if (__builtin_expect(nans.saw_any(), false)) return max_of_plane_one_by_one(plane, pixels, output, offset);
  const auto larger = [](auto a, auto b) D2L_INLINE_LAMBDA { return a > b ? a : b; };
  const auto smaller = [](auto a, auto b) D2L_INLINE_LAMBDA { return a < b ? a : b; };
  if constexpr (kWithOffsets) {
    maxima[0].merge(maxima[1]), maxima[2].merge(maxima[3]), maxima[0].merge(maxima[2]);
    const auto best = broadcast(fold_all<T>(maxima[0].best, larger));
    const auto elsewhere = broadcast(std::numeric_limits<Code>::max());
    const vec_t<Code> pixel = maxima[0].best == best ? maxima[0].pixel : elsewhere;
    const Code place = fold_all<Code>(pixel, smaller);
    *output = plane[place];  // of two zeros the first one, with its sign
    *offset = static_cast<Offset>(place);
  } else {
    T best =
        fold_all<T>(larger(larger(maxima[0].best, maxima[1].best), larger(maxima[2].best, maxima[3].best)), larger);
    if (best == 0) {  // likewise
      while (read_one(*plane) != 0) ++plane;
      best = read_one(*plane);
    }
    *output = rounded_one<E>(best);
  }
}

// Calls visit(accumulator, pixel) for all pixels in order, the accumulators in turn.
template <int kTurns, typename Visit>
D2L_INLINE void for_each_pixel(int64_t pixels, Visit&& visit) {
  int64_t i = 0;
  for (; i + kTurns <= pixels; i += kTurns) {
    for (int turn = 0; turn < kTurns; ++turn) visit(turn, i + turn);
  }
  for (; i < pixels; ++i) visit(0, i);
}

template <bool kWithOffsets, typename E, typename Offset>
D2L_INLINE void max_of_channels(const Pool2dGlobal& work, const E* image, E* output, Offset* offsets) {
  using T = computed_t<E>;
  using Code = lane_t<T>;
  for_each_pack<T>(work.channels, [&](auto count, auto blocks, int64_t c) D2L_INLINE_LAMBDA {
    constexpr int kCount = count.value, kBlocks = blocks.value, kTurns = kAccumulators / kBlocks;
    Maxima<T, kCount> maxima[kTurns][kBlocks];
    NanWatch<pack_t<T, kCount>> nans[kTurns];
    for_each_pixel<kTurns>(work.pixels, [&](int turn, int64_t i) D2L_INLINE_LAMBDA {
      pack_t<T, kCount> values[kBlocks];
      const auto pixel = spread<kCount>(static_cast<Code>(i));
      for (int b = 0; b < kBlocks; ++b) {
        values[b] = load_pack<kCount>(image + i * work.channels + c + b * kCount);
        replace_where_greater(values[b], pixel, maxima[turn][b].best, maxima[turn][b].pixel);
      }
      for (int b = 0; b < kBlocks; b += 2) nans[turn].see(values[b], values[min(b + 1, kBlocks - 1)]);
    });
    bool any_nan = false;
    for (const auto& watch : nans) any_nan |= watch.saw_any();
    for (int b = 0; b < kBlocks; ++b) {
      const int64_t at = c + b * kCount;
      Maxima<T, kCount>& all = maxima[0][b];
      if (__builtin_expect(any_nan, false)) {
        all = {};
        for (int64_t i = 0; i < work.pixels; ++i) {
          replace_where_greater_or_nan(load_pack<kCount>(image + i * work.channels + at),
                                       spread<kCount>(static_cast<Code>(i)), all.best, all.pixel);
        }
      } else {
        for (int turn = 1; turn < kTurns; ++turn) all.merge(maxima[turn][b]);
      }
      store_pack(output + at, all.best);
      if constexpr (kWithOffsets) store_codes<Code, kCount>(offsets + at, all.pixel);
    }
  });
}

template <bool kWithOffsets, typename E, typename Offset>
D2L_INLINE void max_of_units(const Pool2dGlobal& work, const E* input, E* output, Offset* offsets, Span units) {
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const E* source = input + unit * work.pixels * work.channels;
    Offset* places = kWithOffsets ? offsets + unit * work.channels : nullptr;
    if (work.channels == 1) {
      max_of_plane<kWithOffsets>(source, work.pixels, output + unit, places);
    } else {
      max_of_channels<kWithOffsets>(work, source, output + unit * work.channels, places);
    }
  }
}

template <typename E, typename T = computed_t<E>>
D2L_INLINE T sum_of_plane(const E* plane, int64_t pixels) {
  constexpr int kCount = kLanes<T>;
  vec_t<T> sums[kAccumulators] = {};
  int64_t i = 0;
  for (; i + kAccumulators * kCount <= pixels; i += kAccumulators * kCount) {
    for (int b = 0; b < kAccumulators; ++b) sums[b] += read(plane + i + b * kCount);
  }
  for (; i + 2 * kCount <= pixels; i += 2 * kCount) {
    for (int b = 0; b < 2; ++b) sums[b] += read(plane + i + b * kCount);
  }
  if (i + kCount <= pixels) sums[2] += read(plane + i), i += kCount;
  if (i < pixels) sums[3] += read_partial(plane + i, pixels - i);
  return fold_all<T>((sums[0] + sums[1]) + (sums[2] + sums[3]), [](auto a, auto b) D2L_INLINE_LAMBDA { return a + b; });
}

}  // namespace

template <typename E, typename Offset>
void max_pool2d_global(const Pool2dGlobal& work, const E* input, E* output, Offset* offsets, Span units) {
  if (offsets != nullptr) {
    max_of_units<true>(work, input, output, offsets, units);
  } else {
    max_of_units<false>(work, input, output, offsets, units);
  }
}

template <typename E, typename Offset>
void max_pool2d_input_grad_global(const Pool2dGlobal& work, const E* grad_output, const Offset* offsets, E* grad_input,
                                  Span units) {
  const int64_t elements = work.pixels * work.channels;
  const int64_t step = max(1, kClearedBytes / (elements * static_cast<int64_t>(sizeof(E))));
  for (int64_t begin = units.begin; begin < units.end; begin += step) {
    const int64_t end = min(begin + step, units.end);
    fill_run(grad_input + begin * elements, (end - begin) * elements, 0);
    for (int64_t unit = begin; unit < end; ++unit) {
      for (int64_t c = 0; c < work.channels; ++c) {
        const int64_t window = unit * work.channels + c;
        const auto pixel = static_cast<int64_t>(offsets[window]);
        if (is_within(pixel, work.pixels)) {
          grad_input[unit * elements + pixel * work.channels + c] = grad_output[window];
        }
      }
    }
  }
}

template <typename E>
void avg_pool2d_global(const Pool2dGlobal& work, computed_t<E> size, const E* input, E* output, Span units) {
  using T = computed_t<E>;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const E* source = input + unit * work.pixels * work.channels;
    if (work.channels == 1) {
      output[unit] = rounded_one<E>(sum_of_plane(source, work.pixels) / size);
      continue;
    }
    for_each_pack<T>(work.channels, [&](auto count, auto blocks, int64_t c) D2L_INLINE_LAMBDA {
      constexpr int kCount = count.value, kBlocks = blocks.value, kTurns = kAccumulators / kBlocks;
      pack_t<T, kCount> sums[kTurns][kBlocks] = {};
      for_each_pixel<kTurns>(work.pixels, [&](int turn, int64_t i) D2L_INLINE_LAMBDA {
        const E* from = source + i * work.channels + c;
        for (int b = 0; b < kBlocks; ++b) sums[turn][b] += load_pack<kCount>(from + b * kCount);
      });
      for (int b = 0; b < kBlocks; ++b) {
        for (int turn = 1; turn < kTurns; ++turn) sums[0][b] += sums[turn][b];
        store_pack(output + unit * work.channels + c + b * kCount, sums[0][b] / size);
      }
    });
  }
}

template <typename E>
void avg_pool2d_input_grad_global(const Pool2dGlobal& work, computed_t<E> size, const E* grad_output, E* grad_input,
                                  Span units) {
  using T = computed_t<E>;
  for (int64_t unit = units.begin; unit < units.end; ++unit) {
    const E* gradients = grad_output + unit * work.channels;
    E* to = grad_input + unit * work.pixels * work.channels;
    if (work.channels == 1) {
      fill_run(to, work.pixels, read_one(gradients[0]) / size);
      continue;
    }
    for_each_pack<T>(work.channels, [&](auto count, auto blocks, int64_t c) D2L_INLINE_LAMBDA {
      constexpr int kCount = count.value, kBlocks = blocks.value;
      pack_t<T, kCount> shares[kBlocks];
      for (int b = 0; b < kBlocks; ++b) shares[b] = load_pack<kCount>(gradients + c + b * kCount) / size;
      for (int64_t i = 0; i < work.pixels; ++i) {
        for (int b = 0; b < kBlocks; ++b) store_pack(to + i * work.channels + c + b * kCount, shares[b]);
      }
    });
  }
}

#define D2L_INSTANTIATE(E, Offset)                                                   \
  template void max_pool2d_global(const Pool2dGlobal&, const E*, E*, Offset*, Span); \
  template void max_pool2d_input_grad_global(const Pool2dGlobal&, const E*, const Offset*, E*, Span);

D2L_INSTANTIATE(float, uint8_t)
D2L_INSTANTIATE(float, int32_t)
D2L_INSTANTIATE(double, uint8_t)
D2L_INSTANTIATE(double, int32_t)
D2L_INSTANTIATE(BFloat16, uint8_t)
D2L_INSTANTIATE(BFloat16, int32_t)
#undef D2L_INSTANTIATE

#define D2L_INSTANTIATE(E)                                                                 \
  template void avg_pool2d_global(const Pool2dGlobal&, computed_t<E>, const E*, E*, Span); \
  template void avg_pool2d_input_grad_global(const Pool2dGlobal&, computed_t<E>, const E*, E*, Span);

D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
