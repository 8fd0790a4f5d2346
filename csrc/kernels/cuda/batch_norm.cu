// Batch normalisation: statistics, normalisation, and the gradients of both.
//
//   mean[c] = sum(x) / n, var[c] = sum((x - mean)^2) / n          over the n values of channel c
//   y = (x - mean) / sqrt(var + eps) * weight + bias
//   grad_bias = sum(dy), grad_weight = sum(dy * z)                  with z = (x - mean) / sqrt(var + eps)
//   dx = weight / sqrt(var + eps) * (dy - grad_bias / n - z * grad_weight / n)
//
// Two kernels make the sums (slices of channels, then the slices of each channel), one applies them.
// Bytes: sums read their tensors once, so does what applies them; FLOPs: 3 to 6 an element, memory-bound. Threads: see
// batch_norm.cuh. A thread sums distances from the first value it reads, in float32 (float64 for float64), so that
// nothing is lost where the mean is much larger than the deviation; threads and slices are joined in the type of the
// statistics, as trees and in order of the slices: deterministic.
#include "kernels/cuda/batch_norm.h"

#include "kernels/cuda/batch_norm.cuh"

namespace d2l::cuda {
namespace {

using namespace batch_norm;

constexpr int kJoinColumns = 32;
constexpr int kJoinRows = 8;

// Mean and sum of squared deviations of `count` values.
template <typename Stat>
struct Moments {
  Stat count, mean, squares;

  // Chan, Golub and LeVeque, 1979.
  __device__ __forceinline__ void join(const Moments& more) {
    const Stat total = count + more.count;
    if (more.count == 0) return;
    const Stat distance = more.mean - mean, weight = more.count / total;
    mean += distance * weight;
    squares += more.squares + distance * distance * weight * count;
    count = total;
  }
};

template <typename Stat>
struct GradSums {
  Stat sum, product;

  __device__ __forceinline__ void join(const GradSums& more) {
    sum += more.sum;
    product += more.product;
  }
};

// Joins the parts of all rows of threads into those of row 0.
template <int kLanes, typename Part>
__device__ __forceinline__ void join_rows(Part* shared, Part (&parts)[kLanes]) {
  Part* const own = shared + (threadIdx.y * blockDim.x + threadIdx.x) * kLanes;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    if (threadIdx.y >= half && threadIdx.y < 2 * half) {
      for (int v = 0; v < kLanes; ++v) own[v] = parts[v];
    }
    __syncthreads();
    if (threadIdx.y < half) {
      for (int v = 0; v < kLanes; ++v) parts[v].join(own[half * blockDim.x * kLanes + v]);
    }
  }
}

template <bool kNhwc, int kPack>
__device__ __forceinline__ int64_t first_channel() {
  return kNhwc ? (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kPack : blockIdx.x;
}

// partials[slice][c]
template <typename T, bool kNhwc, int kPack>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    batch_norm_moments(Work work, const T* __restrict__ input, Moments<statistic_t<T>>* __restrict__ partials) {
  using Value = accumulate_t<T>;
  using Stat = statistic_t<T>;
  constexpr int kLanes = kNhwc ? kPack : 1;
  D2L_SHARED(Moments<Stat>, shared, [kThreads * kLanes]);
  const int64_t c = first_channel<kNhwc, kPack>();
  Walk<kNhwc, kPack> walk(work, c);
  Value first[kLanes] = {}, sums[kLanes] = {}, squares[kLanes] = {};
  if (walk.inside()) {
    const Pack<T, kPack> values = load_from<kPack>(input + walk.offset, work.aligned);
    for (int v = 0; v < kLanes; ++v) first[v] = widen(values[v]);
  }
  int rows = 0;
#pragma unroll 4
  for (; walk.inside(); walk.next(work), ++rows) {
    const Pack<T, kPack> values = load_from<kPack>(input + walk.offset, work.aligned);
    for (int v = 0; v < kPack; ++v) {
      const int lane = kNhwc ? v : 0;
      const Value distance = widen(values[v]) - first[lane];
      sums[lane] += distance;
      squares[lane] += distance * distance;
    }
  }
  Moments<Stat> parts[kLanes];
  const Stat count = static_cast<Stat>(rows) * (kPack / kLanes);
  for (int v = 0; v < kLanes; ++v) {
    const Stat sum = static_cast<Stat>(sums[v]), shift = rows > 0 ? sum / count : 0;
    parts[v] = {count, static_cast<Stat>(first[v]) + shift, static_cast<Stat>(squares[v]) - sum * shift};
  }
  join_rows<kLanes>(shared, parts);
  if (threadIdx.y == 0 && c < work.C) {
    for (int v = 0; v < kLanes; ++v) partials[blockIdx.y * work.C + c + v] = parts[v];
  }
}

// partials[slice][c]
template <typename T, bool kNhwc, int kPack>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    batch_norm_grad_sums(Work work, const T* __restrict__ grad_output, const T* __restrict__ input,
                         const statistic_t<T>* __restrict__ mean, GradSums<statistic_t<T>>* __restrict__ partials) {
  using Value = accumulate_t<T>;
  using Stat = statistic_t<T>;
  constexpr int kLanes = kNhwc ? kPack : 1;
  D2L_SHARED(GradSums<Stat>, shared, [kThreads * kLanes]);
  const int64_t c = first_channel<kNhwc, kPack>();
  Value near[kLanes] = {}, sums[kLanes] = {}, products[kLanes] = {};
  if (c < work.C) {
    for (int v = 0; v < kLanes; ++v) near[v] = Center<Value, Stat>(mean[c + v]).near;
  }
#pragma unroll 4
  for (Walk<kNhwc, kPack> walk(work, c); walk.inside(); walk.next(work)) {
    const Pack<T, kPack> gradients = load_from<kPack>(grad_output + walk.offset, work.aligned);
    const Pack<T, kPack> values = load_from<kPack>(input + walk.offset, work.aligned);
    for (int v = 0; v < kPack; ++v) {
      const int lane = kNhwc ? v : 0;
      const Value gradient = widen(gradients[v]);
      sums[lane] += gradient;
      products[lane] += gradient * (widen(values[v]) - near[lane]);
    }
  }
  GradSums<Stat> parts[kLanes];
  for (int v = 0; v < kLanes; ++v) parts[v] = {static_cast<Stat>(sums[v]), static_cast<Stat>(products[v])};
  join_rows<kLanes>(shared, parts);
  if (threadIdx.y == 0 && c < work.C) {
    for (int v = 0; v < kLanes; ++v) partials[blockIdx.y * work.C + c + v] = parts[v];
  }
}

// The parts of one channel in all slices, joined in row 0 of the threads.
template <typename Part>
__device__ __forceinline__ void join_slices(const Part* partials, int64_t channels, int64_t c, int slices, Part* shared,
                                            Part (&part)[1]) {
  part[0] = {};
  if (c < channels) {
#pragma unroll 4
    for (int slice = threadIdx.y; slice < slices; slice += kJoinRows) part[0].join(partials[slice * channels + c]);
  }
  join_rows<1>(shared, part);
}

template <typename Stat>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    batch_norm_join_moments(int64_t channels, int slices, const Moments<Stat>* __restrict__ partials,
                            Stat* __restrict__ mean, Stat* __restrict__ var) {
  D2L_SHARED(Moments<Stat>, shared, [kJoinColumns * kJoinRows]);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  Moments<Stat> part[1];
  join_slices(partials, channels, c, slices, shared, part);
  if (threadIdx.y == 0 && c < channels) {
    mean[c] = part[0].mean;
    var[c] = part[0].squares / part[0].count;
  }
}

template <typename Value, typename Stat>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    batch_norm_join_gradients(int64_t channels, int slices, double eps, const GradSums<Stat>* __restrict__ partials,
                              const Stat* __restrict__ mean, const Stat* __restrict__ var,
                              Value* __restrict__ grad_weight, Value* __restrict__ grad_bias) {
  D2L_SHARED(GradSums<Stat>, shared, [kJoinColumns * kJoinRows]);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  GradSums<Stat> part[1];
  join_slices(partials, channels, c, slices, shared, part);
  if (threadIdx.y == 0 && c < channels) {
    const Stat rest = Center<Value, Stat>(mean[c]).rest;
    grad_bias[c] = static_cast<Value>(part[0].sum);
    grad_weight[c] = static_cast<Value>((part[0].product - rest * part[0].sum) * inverse_deviation<Stat>(var[c], eps));
  }
}

template <typename T, typename Stat, bool kNhwc, int kPack>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    batch_norm_normalize(Work work, const T* __restrict__ input, const Stat* __restrict__ mean,
                         const Stat* __restrict__ var, const accumulate_t<T>* __restrict__ weight,
                         const accumulate_t<T>* __restrict__ bias, T* __restrict__ output) {
  using Value = accumulate_t<T>;
  constexpr int kLanes = kNhwc ? kPack : 1;
  const int64_t c = first_channel<kNhwc, kPack>();
  if (c >= work.C) return;
  Value near[kLanes], scale[kLanes], shift[kLanes];
  for (int v = 0; v < kLanes; ++v) {
    const Center<Value, Stat> center(mean[c + v]);
    near[v] = center.near;
    scale[v] = inverse_deviation<Value>(var[c + v], work.eps) * (weight ? weight[c + v] : Value{1});
    shift[v] = (bias ? bias[c + v] : Value{0}) - center.rest * scale[v];
  }
#pragma unroll 4
  for (Walk<kNhwc, kPack> walk(work, c); walk.inside(); walk.next(work)) {
    const Pack<T, kPack> values = load_from<kPack>(input + walk.offset, work.aligned);
    Pack<T, kPack> result;
    for (int v = 0; v < kPack; ++v) {
      const int lane = kNhwc ? v : 0;
      result[v] = narrow<T>((widen(values[v]) - near[lane]) * scale[lane] + shift[lane]);
    }
    store_to<kPack>(output + walk.offset, result, work.aligned);
  }
}

template <typename T, bool kNhwc, int kPack>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    batch_norm_input_grad(Work work, const T* __restrict__ grad_output, const T* __restrict__ input,
                          const accumulate_t<T>* __restrict__ weight, const statistic_t<T>* __restrict__ mean,
                          const statistic_t<T>* __restrict__ var, const accumulate_t<T>* __restrict__ grad_weight,
                          const accumulate_t<T>* __restrict__ grad_bias, T* __restrict__ grad_input) {
  using Value = accumulate_t<T>;
  constexpr int kLanes = kNhwc ? kPack : 1;
  const int64_t c = first_channel<kNhwc, kPack>();
  if (c >= work.C) return;
  Value near[kLanes], scale[kLanes], slope[kLanes], shift[kLanes];
  const Value values_per_channel = static_cast<Value>(work.values);
  for (int v = 0; v < kLanes; ++v) {
    const Center<Value, statistic_t<T>> center(mean[c + v]);
    const Value inverse = inverse_deviation<Value>(var[c + v], work.eps);
    near[v] = center.near;
    scale[v] = inverse * (weight ? weight[c + v] : Value{1});
    slope[v] = scale[v] * inverse * (grad_weight[c + v] / values_per_channel);
    shift[v] = scale[v] * (grad_bias[c + v] / values_per_channel) - center.rest * slope[v];
  }
#pragma unroll 2
  for (Walk<kNhwc, kPack> walk(work, c); walk.inside(); walk.next(work)) {
    const Pack<T, kPack> gradients = load_from<kPack>(grad_output + walk.offset, work.aligned);
    const Pack<T, kPack> values = load_from<kPack>(input + walk.offset, work.aligned);
    Pack<T, kPack> result;
    for (int v = 0; v < kPack; ++v) {
      const int lane = kNhwc ? v : 0;
      result[v] =
          narrow<T>(widen(gradients[v]) * scale[lane] - ((widen(values[v]) - near[lane]) * slope[lane] + shift[lane]));
    }
    store_to<kPack>(grad_input + walk.offset, result, work.aligned);
  }
}

dim3 join_grid(int64_t channels) { return dim3(static_cast<unsigned>(ceil_div(channels, int64_t{kJoinColumns}))); }
dim3 join_block() { return dim3(kJoinColumns, kJoinRows); }

template <typename T, typename Stat>
LaunchStatus normalize(const BatchNormShape& shape, Layout layout, double eps, const void* input, const void* mean,
                       const void* var, const void* weight, const void* bias, void* output, Stream stream) {
  using Value = accumulate_t<T>;
  const bool aligned = is_aligned(input, kPackBytes) && is_aligned(output, kPackBytes);
  return choose_instance<T>(shape, layout, [&](auto nhwc, auto pack) {
    constexpr bool kNhwc = decltype(nhwc)::value;
    constexpr int kPack = decltype(pack)::value;
    const Work work = work_of<kNhwc, kPack>(shape, eps, aligned);
    const Grid grid = grid_of<kNhwc, kPack>(work);
    D2L_LAUNCH((batch_norm_normalize<T, Stat, kNhwc, kPack>), grid.grid, grid.block, 0, stream, work,
               static_cast<const T*>(input), static_cast<const Stat*>(mean), static_cast<const Stat*>(var),
               static_cast<const Value*>(weight), static_cast<const Value*>(bias), static_cast<T*>(output));
    return launched(grid.grid, grid.block);
  });
}

// grad_weight and grad_bias.
template <typename T>
LaunchStatus sum_gradients(const BatchNormShape& shape, Layout layout, double eps, const void* grad_output,
                           const void* input, const void* mean, const void* var, void* grad_weight, void* grad_bias,
                           void* workspace, Stream stream) {
  using Value = accumulate_t<T>;
  using Stat = statistic_t<T>;
  const bool aligned = is_aligned(grad_output, kPackBytes) && is_aligned(input, kPackBytes);
  auto* const partials = static_cast<GradSums<Stat>*>(workspace);
  return choose_instance<T>(shape, layout, [&](auto nhwc, auto pack) {
    constexpr bool kNhwc = decltype(nhwc)::value;
    constexpr int kPack = decltype(pack)::value;
    const Work work = work_of<kNhwc, kPack>(shape, eps, aligned);
    const Grid grid = grid_of<kNhwc, kPack>(work);
    D2L_LAUNCH((batch_norm_grad_sums<T, kNhwc, kPack>), grid.grid, grid.block, 0, stream, work,
               static_cast<const T*>(grad_output), static_cast<const T*>(input), static_cast<const Stat*>(mean),
               partials);
    const LaunchStatus status = launched(grid.grid, grid.block);
    if (status.error != 0) return status;
    D2L_LAUNCH((batch_norm_join_gradients<Value, Stat>), join_grid(shape.C), join_block(), 0, stream, shape.C,
               static_cast<int>(grid.slices), eps, partials, static_cast<const Stat*>(mean),
               static_cast<const Stat*>(var), static_cast<Value*>(grad_weight), static_cast<Value*>(grad_bias));
    return launched(join_grid(shape.C), join_block());
  });
}

bool is_empty(const BatchNormShape& shape) { return shape.values() == 0 || shape.C == 0; }

}  // namespace

int64_t batch_norm_workspace(const BatchNormShape& shape, Layout layout, DType dtype) {
  if (is_empty(shape)) return 0;
  const bool wide = dtype == DType::float32 || dtype == DType::float64;
  const size_t bytes = wide ? sizeof(Moments<double>) : sizeof(Moments<float>);
  return max_slices(shape, layout) * shape.C * static_cast<int64_t>(bytes);
}

LaunchStatus batch_norm_train(const BatchNormShape& shape, Layout layout, DType dtype, double eps, const void* input,
                              const void* weight, const void* bias, void* output, void* mean, void* var,
                              void* workspace, Stream stream) {
  if (is_empty(shape)) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Stat = statistic_t<T>;
    auto* const partials = static_cast<Moments<Stat>*>(workspace);
    const bool aligned = is_aligned(input, kPackBytes);
    const LaunchStatus status = choose_instance<T>(shape, layout, [&](auto nhwc, auto pack) {
      constexpr bool kNhwc = decltype(nhwc)::value;
      constexpr int kPack = decltype(pack)::value;
      const Work work = work_of<kNhwc, kPack>(shape, eps, aligned);
      const Grid grid = grid_of<kNhwc, kPack>(work);
      D2L_LAUNCH((batch_norm_moments<T, kNhwc, kPack>), grid.grid, grid.block, 0, stream, work,
                 static_cast<const T*>(input), partials);
      const LaunchStatus sums = launched(grid.grid, grid.block);
      if (sums.error != 0) return sums;
      D2L_LAUNCH((batch_norm_join_moments<Stat>), join_grid(shape.C), join_block(), 0, stream, shape.C,
                 static_cast<int>(grid.slices), partials, static_cast<Stat*>(mean), static_cast<Stat*>(var));
      return launched(join_grid(shape.C), join_block());
    });
    if (status.error != 0) return status;
    return normalize<T, Stat>(shape, layout, eps, input, mean, var, weight, bias, output, stream);
  });
}

LaunchStatus batch_norm_infer(const BatchNormShape& shape, Layout layout, DType dtype, double eps, const void* input,
                              const void* mean, const void* var, bool wide_statistics, const void* weight,
                              const void* bias, void* output, Stream stream) {
  if (is_empty(shape)) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (std::is_same_v<T, float>) {
      if (!wide_statistics) {
        return normalize<T, float>(shape, layout, eps, input, mean, var, weight, bias, output, stream);
      }
    }
    return normalize<T, statistic_t<T>>(shape, layout, eps, input, mean, var, weight, bias, output, stream);
  });
}

LaunchStatus batch_norm_train_grad(const BatchNormShape& shape, Layout layout, DType dtype, double eps,
                                   const void* grad_output, const void* input, const void* weight, const void* mean,
                                   const void* var, void* grad_input, void* grad_weight, void* grad_bias,
                                   void* workspace, Stream stream) {
  if (is_empty(shape)) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Value = accumulate_t<T>;
    using Stat = statistic_t<T>;
    const LaunchStatus status =
        sum_gradients<T>(shape, layout, eps, grad_output, input, mean, var, grad_weight, grad_bias, workspace, stream);
    if (status.error != 0) return status;
    const bool aligned =
        is_aligned(grad_output, kPackBytes) && is_aligned(input, kPackBytes) && is_aligned(grad_input, kPackBytes);
    return choose_instance<T>(shape, layout, [&](auto nhwc, auto pack) {
      constexpr bool kNhwc = decltype(nhwc)::value;
      constexpr int kPack = decltype(pack)::value;
      const Work work = work_of<kNhwc, kPack>(shape, eps, aligned);
      const Grid grid = grid_of<kNhwc, kPack>(work);
      D2L_LAUNCH((batch_norm_input_grad<T, kNhwc, kPack>), grid.grid, grid.block, 0, stream, work,
                 static_cast<const T*>(grad_output), static_cast<const T*>(input), static_cast<const Value*>(weight),
                 static_cast<const Stat*>(mean), static_cast<const Stat*>(var), static_cast<const Value*>(grad_weight),
                 static_cast<const Value*>(grad_bias), static_cast<T*>(grad_input));
      return launched(grid.grid, grid.block);
    });
  });
}

LaunchStatus batch_norm_weight_grad(const BatchNormShape& shape, Layout layout, DType dtype, double eps,
                                    const void* grad_output, const void* input, const void* mean, const void* var,
                                    void* grad_weight, void* grad_bias, void* workspace, Stream stream) {
  if (is_empty(shape)) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return sum_gradients<T>(shape, layout, eps, grad_output, input, mean, var, grad_weight, grad_bias, workspace,
                            stream);
  });
}

}  // namespace d2l::cuda
