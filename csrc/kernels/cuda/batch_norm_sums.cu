// Sums of batch normalisation: the statistics of each channel, and the gradients of weight and bias.
//
//   mean[c] = sum(x) / n, var[c] = sum((x - mean)^2) / n          over the n values of channel c
//   grad_bias = sum(dy), grad_weight = sum(dy * z)                  with z = (x - mean) / sqrt(var + eps)
//
// Fused: dy is first taken through the activation, by its output or what x is normalised to, and the result is written;
// not for a ReLU of no residual, which batch_norm_input_grad tells by x again. The running statistics are moved where
// the sums are joined.
//
// Two kernels: slices of channels, then the slices of each channel. Bytes: each tensor once; FLOPs: 3 to 6 an element,
// memory-bound. Threads: see batch_norm.cuh. A thread sums distances from the first value it reads, in float32 (float64
// for float64), so that nothing is lost where the mean is much larger than the deviation; threads and slices are joined
// in the type of the statistics, as trees and in order of the slices: deterministic.
#include "kernels/cuda/batch_norm.cuh"

namespace d2l::cuda {
namespace {

using namespace batch_norm;

constexpr int kJoinColumns = 32;
constexpr int kJoinRows = 8;

template <typename Stat>
struct GradSums {
  Stat sum, product;

  __device__ __forceinline__ void join(const GradSums& more) {
    sum += more.sum;
    product += more.product;
  }
};

// RunningStatistics as a kernel takes them.
template <typename T>
struct Running {
  T* mean;
  T* var;
  const int64_t* batches;
  double momentum;
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

// partials[slice][c]
template <typename T, bool kNhwc, int kPack>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    batch_norm_moments(Work work, Maps<const T> input, int64_t* __restrict__ batches,
                       Moments<statistic_t<T>>* __restrict__ partials) {
  using Value = accumulate_t<T>;
  using Stat = statistic_t<T>;
  constexpr int kLanes = kNhwc ? kPack : 1;
  D2L_SHARED(Moments<Stat>, shared, [kThreads * kLanes]);
  if (batches != nullptr && blockIdx.x + blockIdx.y + threadIdx.x + threadIdx.y == 0) ++*batches;
  const int64_t c = first_channel<kNhwc, kPack>();
  Walk<kNhwc, kPack> walk(work, c);
  Value first[kLanes] = {}, sums[kLanes] = {}, squares[kLanes] = {};
  if (walk.inside()) {
    const Pack<T, kPack> values = load_from<kPack>(walk.in(input), work.aligned);
    for (int v = 0; v < kLanes; ++v) first[v] = widen(values[v]);
  }
  int rows = 0;
#pragma unroll 4
  for (; walk.inside(); walk.next(work), ++rows) {
    const Pack<T, kPack> values = load_from<kPack>(walk.in(input), work.aligned);
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
    parts[v] = moments_around(first[v], count, sums[v], squares[v]);
  }
  join_rows<kLanes>(shared, parts);
  if (threadIdx.y == 0 && c < work.C) {
    for (int v = 0; v < kLanes; ++v) partials[blockIdx.y * work.C + c + v] = parts[v];
  }
}

// partials[slice][c]. kFused: with an activation; `output` without data where x tells what it gave, and `through` where
// that is only a sign (ReLU).
template <typename T, bool kNhwc, int kPack, bool kFused>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    batch_norm_grad_sums(Work work, Activation activation, Parameters<accumulate_t<T>, statistic_t<T>> by,
                         Maps<const T> grad_output, Maps<const T> input, Maps<const T> output, Maps<T> through,
                         GradSums<statistic_t<T>>* __restrict__ partials) {
  using Value = accumulate_t<T>;
  using Stat = statistic_t<T>;
  constexpr int kLanes = kNhwc ? kPack : 1;
  D2L_SHARED(GradSums<Stat>, shared, [kThreads * kLanes]);
  const int64_t c = first_channel<kNhwc, kPack>();
  Coefficients<Value> channel[kLanes] = {};
  Value sums[kLanes] = {}, products[kLanes] = {};
  if (c < work.C) {
    for (int v = 0; v < kLanes; ++v) {
      if constexpr (kFused) {
        channel[v] = by.of(c + v, work.eps);
      } else {
        channel[v].near = Center<Value, Stat>(by.mean[c + v]).near;
      }
    }
  }
#pragma unroll 4
  for (Walk<kNhwc, kPack> walk(work, c); walk.inside(); walk.next(work)) {
    const Pack<T, kPack> given = load_from<kPack>(walk.in(grad_output), work.aligned);
    const Pack<T, kPack> values = load_from<kPack>(walk.in(input), work.aligned);
    Value gradients[kPack];
    for (int v = 0; v < kPack; ++v) gradients[v] = widen(given[v]);
    if (kFused && output.data != nullptr) {
      const Pack<T, kPack> outputs = load_from<kPack>(walk.in(output), work.aligned);
      for (int v = 0; v < kPack; ++v) gradients[v] = gradient_before(activation, gradients[v], widen(outputs[v]));
    } else if (kFused) {
      for (int v = 0; v < kPack; ++v) {
        const Value result = activated(channel[kNhwc ? v : 0](widen(values[v])), activation);
        gradients[v] = gradient_before(activation, gradients[v], result);
      }
    }
    if (kFused && through.data != nullptr) {
      Pack<T, kPack> rounded;  // the sums are of what is not
      for (int v = 0; v < kPack; ++v) rounded[v] = narrow<T>(gradients[v]);
      store_to<kPack>(walk.in(through), rounded, work.aligned);
    }
    for (int v = 0; v < kPack; ++v) {
      const int lane = kNhwc ? v : 0;
      sums[lane] += gradients[v];
      products[lane] += gradients[v] * (widen(values[v]) - channel[lane].near);
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

template <typename T, typename Stat>
__device__ __forceinline__ void move(T& running, Stat momentum, Stat value) {
  const Stat moved = (1 - momentum) * static_cast<Stat>(widen(running)) + momentum * value;
  running = narrow<T>(static_cast<accumulate_t<T>>(moved));
}

// The running variance is the unbiased one.
template <typename Stat, typename T>
__device__ __forceinline__ void move_running(const Running<T>& running, int64_t c, Stat mean, Stat unbiased_var) {
  if (running.mean == nullptr) return;
  const Stat momentum =
      running.momentum < 0 ? Stat{1} / static_cast<Stat>(*running.batches) : static_cast<Stat>(running.momentum);
  move(running.mean[c], momentum, mean);
  move(running.var[c], momentum, unbiased_var);
}

template <typename Stat, typename T>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    batch_norm_join_moments(int64_t channels, int slices, const Moments<Stat>* __restrict__ partials,
                            Stat* __restrict__ mean, Stat* __restrict__ var, Running<T> running) {
  D2L_SHARED(Moments<Stat>, shared, [kJoinColumns * kJoinRows]);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  Moments<Stat> part[1];
  join_slices(partials, channels, c, slices, shared, part);
  if (threadIdx.y == 0 && c < channels) {
    mean[c] = part[0].mean;
    var[c] = part[0].squares / part[0].count;
    move_running(running, c, part[0].mean, part[0].squares / (part[0].count - 1));
  }
}

// joined[blockIdx.y][c]: of some neighbouring slices.
template <typename Stat>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    batch_norm_join_slices(int64_t channels, int slices, int slices_per_block,
                           const Moments<Stat>* __restrict__ partials, Moments<Stat>* __restrict__ joined) {
  D2L_SHARED(Moments<Stat>, shared, [kJoinColumns * kJoinRows]);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  const int begin = blockIdx.y * slices_per_block, left = slices - begin;
  Moments<Stat> part[1];
  join_slices(partials + begin * channels, channels, c, left < slices_per_block ? left : slices_per_block, shared,
              part);
  if (threadIdx.y == 0 && c < channels) joined[blockIdx.y * channels + c] = part[0];
}

// One block: every thread sees the count of batches.
template <typename Stat, typename T>
__global__ void __launch_bounds__(kThreads)
    batch_norm_move_running(int64_t channels, Stat values, const Stat* __restrict__ mean, const Stat* __restrict__ var,
                            int64_t* batches, Running<T> running) {
  if (batches != nullptr && threadIdx.x == 0) ++*batches;
  __syncthreads();
  for (int64_t c = threadIdx.x; c < channels; c += kThreads) {
    move_running(running, c, mean[c], var[c] * (values / (values - 1)));
  }
}

template <typename Value, typename Stat>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    batch_norm_join_gradients(int64_t channels, int slices, double eps, const GradSums<Stat>* __restrict__ partials,
                              Parameters<Value, Stat> by, Value* __restrict__ grad_weight,
                              Value* __restrict__ grad_bias) {
  D2L_SHARED(GradSums<Stat>, shared, [kJoinColumns * kJoinRows]);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  GradSums<Stat> part[1];
  join_slices(partials, channels, c, slices, shared, part);
  if (threadIdx.y == 0 && c < channels) {
    const Stat rest = Center<Value, Stat>(by.mean[c]).rest;
    grad_bias[c] = static_cast<Value>(part[0].sum);
    grad_weight[c] =
        static_cast<Value>((part[0].product - rest * part[0].sum) * inverse_deviation<Stat>(by.var[c], eps));
  }
}

dim3 join_grid(int64_t channels) { return dim3(static_cast<unsigned>(ceil_div(channels, int64_t{kJoinColumns}))); }
dim3 join_block() { return dim3(kJoinColumns, kJoinRows); }

}  // namespace

LaunchStatus join_moments(int64_t channels, int64_t slices, DType dtype, void* partials, void* mean, void* var,
                          Stream stream) {
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Stat = statistic_t<T>;
    const auto* from = static_cast<const Moments<Stat>*>(partials);
    int64_t count = slices;
    if (slices > kJoinedSlices) {
      const int64_t per_block = ceil_div(slices, kJoinedSlices);
      auto* const joined = static_cast<Moments<Stat>*>(partials) + slices * channels;
      count = ceil_div(slices, per_block);
      const dim3 grid(join_grid(channels).x, static_cast<unsigned>(count));
      D2L_LAUNCH((batch_norm_join_slices<Stat>), grid, join_block(), 0, stream, channels, static_cast<int>(slices),
                 static_cast<int>(per_block), from, joined);
      const LaunchStatus status = launched(grid, join_block());
      if (status.error != 0) return status;
      from = joined;
    }
    D2L_LAUNCH((batch_norm_join_moments<Stat, T>), join_grid(channels), join_block(), 0, stream, channels,
               static_cast<int>(count), from, static_cast<Stat*>(mean), static_cast<Stat*>(var), Running<T>{});
    return launched(join_grid(channels), join_block());
  });
}

int64_t batch_norm_workspace(const BatchNormShape& shape, Layout layout, DType dtype) {
  if (is_empty(shape)) return 0;
  const bool wide = dtype == DType::float32 || dtype == DType::float64;
  const size_t bytes = wide ? sizeof(Moments<double>) : sizeof(Moments<float>);
  return max_slices(shape, layout) * shape.C * static_cast<int64_t>(bytes);
}

LaunchStatus batch_norm_moments(const BatchNormShape& shape, Layout layout, DType dtype, NormInput input, void* mean,
                                void* var, const RunningStatistics& running, void* workspace, Stream stream) {
  if (is_empty(shape)) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Stat = statistic_t<T>;
    auto* const partials = static_cast<Moments<Stat>*>(workspace);
    return choose_instance<T>(shape, layout, [&](auto nhwc, auto pack) {
      constexpr bool kNhwc = decltype(nhwc)::value;
      constexpr int kPack = decltype(pack)::value;
      const auto maps = maps_of<kNhwc, T>(input, shape);
      const Work work = work_of<kNhwc, kPack>(shape, 0, are_aligned<T>(maps));
      const Grid grid = grid_of<kNhwc, kPack>(work);
      D2L_LAUNCH((batch_norm_moments<T, kNhwc, kPack>), grid.grid, grid.block, 0, stream, work, maps, running.batches,
                 partials);
      const LaunchStatus sums = launched(grid.grid, grid.block);
      if (sums.error != 0) return sums;
      const auto join = [&](auto running_type) {
        using R = typename decltype(running_type)::type;
        const Running<R> moved{static_cast<R*>(running.mean), static_cast<R*>(running.var), running.batches,
                               running.momentum};
        D2L_LAUNCH((batch_norm_join_moments<Stat, R>), join_grid(shape.C), join_block(), 0, stream, shape.C,
                   static_cast<int>(grid.slices), partials, static_cast<Stat*>(mean), static_cast<Stat*>(var), moved);
        return launched(join_grid(shape.C), join_block());
      };
      return running.wide ? join(TypeTag<float>{}) : join(TypeTag<T>{});
    });
  });
}

LaunchStatus batch_norm_move_running(const BatchNormShape& shape, DType dtype, const void* mean, const void* var,
                                     const RunningStatistics& running, Stream stream) {
  if (is_empty(shape) || running.mean == nullptr) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Stat = statistic_t<T>;
    const auto launch = [&](auto running_type) {
      using R = typename decltype(running_type)::type;
      const Running<R> moved{static_cast<R*>(running.mean), static_cast<R*>(running.var), running.batches,
                             running.momentum};
      D2L_LAUNCH((batch_norm_move_running<Stat, R>), dim3(1), dim3(kThreads), 0, stream, shape.C,
                 static_cast<Stat>(shape.values()), static_cast<const Stat*>(mean), static_cast<const Stat*>(var),
                 running.batches, moved);
      return launched(dim3(1), dim3(kThreads));
    };
    return running.wide ? launch(TypeTag<float>{}) : launch(TypeTag<T>{});
  });
}

LaunchStatus batch_norm_grad_sums(const BatchNormShape& shape, Layout layout, DType dtype, const Normalization& by,
                                  const NormGradients& gradients, void* grad_weight, void* grad_bias, void* workspace,
                                  Stream stream) {
  if (is_empty(shape)) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Value = accumulate_t<T>;
    using Stat = statistic_t<T>;
    auto* const partials = static_cast<GradSums<Stat>*>(workspace);
    const Parameters<Value, Stat> parameters(by);
    return choose_instance<T>(shape, layout, [&](auto nhwc, auto pack) {
      constexpr bool kNhwc = decltype(nhwc)::value;
      constexpr int kPack = decltype(pack)::value;
      const auto grad_output = maps_of<kNhwc, T>(gradients.grad_output, shape);
      const auto input = maps_of<kNhwc, T>(gradients.input, shape), output = maps_of<kNhwc, T>(gradients.output, shape);
      const auto through = maps_of<kNhwc, T>(gradients.through, shape);
      const bool aligned = are_aligned<T>(grad_output, input) && (output.data == nullptr || are_aligned<T>(output)) &&
                           (through.data == nullptr || are_aligned<T>(through));
      const Work work = work_of<kNhwc, kPack>(shape, by.eps, aligned);
      const Grid grid = grid_of<kNhwc, kPack>(work);
      if (by.activation == Activation::none) {
        D2L_LAUNCH((batch_norm_grad_sums<T, kNhwc, kPack, false>), grid.grid, grid.block, 0, stream, work,
                   by.activation, parameters, grad_output, input, output, through, partials);
      } else {
        D2L_LAUNCH((batch_norm_grad_sums<T, kNhwc, kPack, true>), grid.grid, grid.block, 0, stream, work, by.activation,
                   parameters, grad_output, input, output, through, partials);
      }
      const LaunchStatus status = launched(grid.grid, grid.block);
      if (status.error != 0) return status;
      D2L_LAUNCH((batch_norm_join_gradients<Value, Stat>), join_grid(shape.C), join_block(), 0, stream, shape.C,
                 static_cast<int>(grid.slices), by.eps, partials, parameters, static_cast<Value*>(grad_weight),
                 static_cast<Value*>(grad_bias));
      return launched(join_grid(shape.C), join_block());
    });
  });
}

}  // namespace d2l::cuda
