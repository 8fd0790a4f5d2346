// Batch normalisation: what applies the sums of batch_norm_sums.cu.
//
//   y = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)
//   dx = weight / sqrt(var + eps) * (dy - grad_bias / n - z * grad_weight / n)   with z = (x - mean) / sqrt(var + eps)
//
// Bytes: each tensor once; FLOPs: 3 to 8 an element, memory-bound. Threads: see batch_norm.cuh. Computed in float32
// (float64 for float64) from the nearest value to the mean and what that leaves: nothing is lost where the mean is much
// larger than the deviation.
#include "kernels/cuda/batch_norm.cuh"

namespace d2l::cuda {
namespace {

using namespace batch_norm;

template <typename T, typename Stat, bool kNhwc, int kPack>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    batch_norm_normalize(Work work, Activation activation, Parameters<accumulate_t<T>, Stat> by, Maps<const T> input,
                         Maps<const T> residual, Maps<T> output) {
  using Value = accumulate_t<T>;
  constexpr int kLanes = kNhwc ? kPack : 1;
  const int64_t c = first_channel<kNhwc, kPack>();
  if (c >= work.C) return;
  Coefficients<Value> channel[kLanes];
  for (int v = 0; v < kLanes; ++v) channel[v] = by.of(c + v, work.eps);
#pragma unroll 4
  for (Walk<kNhwc, kPack> walk(work, c); walk.inside(); walk.next(work)) {
    const Pack<T, kPack> values = load_from<kPack>(walk.in(input), work.aligned);
    Value results[kPack];
    for (int v = 0; v < kPack; ++v) results[v] = channel[kNhwc ? v : 0](widen(values[v]));
    if (residual.data != nullptr) {
      const Pack<T, kPack> more = load_from<kPack>(walk.in(residual), work.aligned);
      for (int v = 0; v < kPack; ++v) results[v] += widen(more[v]);
    }
    Pack<T, kPack> result;
    for (int v = 0; v < kPack; ++v) result[v] = narrow<T>(activated(results[v], activation));
    store_to<kPack>(walk.in(output), result, work.aligned);
  }
}

// kMasked: grad_output is that of a ReLU, whose sign x tells.
template <typename T, bool kNhwc, int kPack, bool kMasked>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    batch_norm_input_grad(Work work, Parameters<accumulate_t<T>, statistic_t<T>> by, Maps<const T> grad_output,
                          Maps<const T> input, const accumulate_t<T>* __restrict__ grad_weight,
                          const accumulate_t<T>* __restrict__ grad_bias, bool accumulate, Maps<T> grad_input) {
  using Value = accumulate_t<T>;
  constexpr int kLanes = kNhwc ? kPack : 1;
  const int64_t c = first_channel<kNhwc, kPack>();
  if (c >= work.C) return;
  Coefficients<Value> channel[kLanes];
  Value slope[kLanes], shift[kLanes];
  const Value values_per_channel = static_cast<Value>(work.values);
  for (int v = 0; v < kLanes; ++v) {
    channel[v] = by.of(c + v, work.eps);
    const Value inverse = inverse_deviation<Value>(by.var[c + v], work.eps);
    slope[v] = channel[v].scale * inverse * (grad_weight[c + v] / values_per_channel);
    shift[v] = channel[v].scale * (grad_bias[c + v] / values_per_channel) -
               Center<Value, statistic_t<T>>(by.mean[c + v]).rest * slope[v];
  }
#pragma unroll 2
  for (Walk<kNhwc, kPack> walk(work, c); walk.inside(); walk.next(work)) {
    const Pack<T, kPack> gradients = load_from<kPack>(walk.in(grad_output), work.aligned);
    const Pack<T, kPack> values = load_from<kPack>(walk.in(input), work.aligned);
    Value results[kPack];
    for (int v = 0; v < kPack; ++v) {
      const int lane = kNhwc ? v : 0;
      const Value value = widen(values[v]);
      Value gradient = widen(gradients[v]);
      if constexpr (kMasked) gradient = gradient_before(Activation::relu, gradient, channel[lane](value));
      results[v] = gradient * channel[lane].scale - ((value - channel[lane].near) * slope[lane] + shift[lane]);
    }
    if (accumulate) {
      const Pack<T, kPack> before = load_from<kPack>(walk.in(grad_input), work.aligned);
      for (int v = 0; v < kPack; ++v) results[v] += widen(before[v]);
    }
    Pack<T, kPack> result;
    for (int v = 0; v < kPack; ++v) result[v] = narrow<T>(results[v]);
    store_to<kPack>(walk.in(grad_input), result, work.aligned);
  }
}

template <typename T, typename Stat>
LaunchStatus normalize(const BatchNormShape& shape, Layout layout, const Normalization& by, NormInput input,
                       NormInput residual, NormOutput output, Stream stream) {
  return choose_instance<T>(shape, layout, [&](auto nhwc, auto pack) {
    constexpr bool kNhwc = decltype(nhwc)::value;
    constexpr int kPack = decltype(pack)::value;
    const auto from = maps_of<kNhwc, T>(input, shape), more = maps_of<kNhwc, T>(residual, shape);
    const auto to = maps_of<kNhwc, T>(output, shape);
    const bool aligned = are_aligned<T>(from, to) && (more.data == nullptr || are_aligned<T>(more));
    const Work work = work_of<kNhwc, kPack>(shape, by.eps, aligned);
    const Grid grid = grid_of<kNhwc, kPack>(work);
    D2L_LAUNCH((batch_norm_normalize<T, Stat, kNhwc, kPack>), grid.grid, grid.block, 0, stream, work, by.activation,
               Parameters<accumulate_t<T>, Stat>(by), from, more, to);
    return launched(grid.grid, grid.block);
  });
}

}  // namespace

LaunchStatus batch_norm_apply(const BatchNormShape& shape, Layout layout, DType dtype, const Normalization& by,
                              NormInput input, NormInput residual, NormOutput output, Stream stream) {
  if (is_empty(shape)) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (std::is_same_v<T, float>) {
      if (by.narrow_statistics) return normalize<T, float>(shape, layout, by, input, residual, output, stream);
    }
    return normalize<T, statistic_t<T>>(shape, layout, by, input, residual, output, stream);
  });
}

LaunchStatus batch_norm_input_grad(const BatchNormShape& shape, Layout layout, DType dtype, const Normalization& by,
                                   NormInput grad_output, NormInput input, const void* grad_weight,
                                   const void* grad_bias, bool accumulate, NormOutput grad_input, Stream stream) {
  if (is_empty(shape)) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Value = accumulate_t<T>;
    const Parameters<Value, statistic_t<T>> parameters(by);
    return choose_instance<T>(shape, layout, [&](auto nhwc, auto pack) {
      constexpr bool kNhwc = decltype(nhwc)::value;
      constexpr int kPack = decltype(pack)::value;
      const auto dy = maps_of<kNhwc, T>(grad_output, shape), x = maps_of<kNhwc, T>(input, shape);
      const auto dx = maps_of<kNhwc, T>(grad_input, shape);
      const Work work = work_of<kNhwc, kPack>(shape, by.eps, are_aligned<T>(dy, x, dx));
      const Grid grid = grid_of<kNhwc, kPack>(work);
      const auto launch = [&](auto masked) {
        D2L_LAUNCH((batch_norm_input_grad<T, kNhwc, kPack, decltype(masked)::value>), grid.grid, grid.block, 0, stream,
                   work, parameters, dy, x, static_cast<const Value*>(grad_weight),
                   static_cast<const Value*>(grad_bias), accumulate, dx);
        return launched(grid.grid, grid.block);
      };
      return by.activation == Activation::none ? launch(std::false_type{}) : launch(std::true_type{});
    });
  });
}

}  // namespace d2l::cuda
