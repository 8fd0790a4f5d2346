// Cross-entropy of rows and its gradient, fused with softmax: the probabilities are never stored.
//
//   loss = a (lse - x_t) + s / C (W lse - sum_c w_c x_c),  a = (1 - s) w_t,  lse = log sum exp(x),  W = sum_c w_c
//   dx_c = dy ((a + s / C W) exp(x_c - lse) - a [c = t] - s / C w_c)
//
// Bytes: the input twice (forward: once from memory), the gradient once. Threads: see rows.cuh; one block then sums the
// losses and weights of the rows, as a tree, in float64. Computed in float32 (float64 for float64), rounded once.
#include "kernels/cuda/cross_entropy.h"

#include "kernels/cuda/rows.cuh"

namespace d2l::cuda {
namespace {

using namespace rows;

constexpr int kSumThreads = 512;

template <typename T>
__device__ __forceinline__ accumulate_t<T> weight_of(const T* weight, int64_t c) {
  return weight != nullptr ? widen(weight[c]) : accumulate_t<T>{1};
}

// The class of a row, or -1 if it does not count.
__device__ __forceinline__ int64_t class_of(const CrossEntropyShape& shape, const int64_t* target, int64_t row) {
  const int64_t t = target[row];
  return t != shape.ignore_index && t >= 0 && t < shape.C ? t : -1;
}

template <bool kContiguous, typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    cross_entropy_kernel(CrossEntropyShape shape, const T* __restrict__ input, const int64_t* __restrict__ target,
                         const T* __restrict__ weight, accumulate_t<T>* __restrict__ losses,
                         accumulate_t<T>* __restrict__ weights, accumulate_t<T>* __restrict__ statistics,
                         T* __restrict__ loss_of_each) {
  using Value = accumulate_t<T>;
  constexpr int kStep = kTeam<kContiguous>;
  const Value smoothing = static_cast<Value>(shape.label_smoothing),
              per_class = smoothing / static_cast<Value>(shape.C);
  for (Team<kContiguous> team; team.row < shape.rows(); team.row += team.step) {
    const T* const x = input + team.offset(shape.C, shape.pixels);
    Value max = minus_infinity<Value>(), sum = 0, smooth = 0, total = 0;
    for (int64_t c = team.lane; c < shape.C; c += kStep) {
      const Value value = widen(x[c * shape.pixels]);
      max = value > max ? value : max;
    }
    max = team.max(max);
    for (int64_t c = team.lane; c < shape.C; c += kStep) {
      const Value distance = widen(x[c * shape.pixels]) - max;
      sum += exp(distance);
      if (smoothing > 0) {
        const Value w = weight_of(weight, c);
        smooth += w * distance;
        total += w;
      }
    }
    const Value log_sum = log(team.sum(sum));
    if (smoothing > 0) smooth = team.sum(smooth), total = team.sum(total);
    if (team.lane == 0) {
      const int64_t t = class_of(shape, target, team.row);
      Value loss = 0, w = 0;
      if (t >= 0) {
        w = weight_of(weight, t);
        loss = (Value{1} - smoothing) * w * (log_sum - (widen(x[t * shape.pixels]) - max));
        if (smoothing > 0) loss += per_class * (total * log_sum - smooth);
      }
      losses[team.row] = loss;
      weights[team.row] = w;
      if (loss_of_each != nullptr) loss_of_each[team.row] = narrow<T>(loss);
      statistics[team.row] = max;
      statistics[shape.rows() + team.row] = log_sum;
    }
  }
}

__device__ __forceinline__ double sum_of_block(double* shared, double value) {
  shared[threadIdx.x] = value;
  for (int half = kSumThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  __syncthreads();
  const double result = shared[0];
  __syncthreads();
  return result;
}

template <typename T>
__global__ void __launch_bounds__(kSumThreads)
    cross_entropy_sums(int64_t rows, Reduction reduction, const accumulate_t<T>* __restrict__ losses,
                       const accumulate_t<T>* __restrict__ weights, T* __restrict__ loss,
                       accumulate_t<T>* __restrict__ total_weight) {
  D2L_SHARED(double, shared, [kSumThreads]);
  double sum = 0, weight = 0;
  for (int64_t row = threadIdx.x; row < rows; row += kSumThreads) {
    sum += static_cast<double>(losses[row]);
    weight += static_cast<double>(weights[row]);
  }
  sum = sum_of_block(shared, sum);
  weight = sum_of_block(shared, weight);
  if (threadIdx.x == 0) {
    *total_weight = static_cast<accumulate_t<T>>(weight);
    if (reduction == Reduction::mean) sum /= weight;
    if (reduction != Reduction::none) *loss = narrow<T>(static_cast<accumulate_t<T>>(sum));
  }
}

template <bool kContiguous, typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    cross_entropy_input_grad_kernel(CrossEntropyShape shape, Reduction reduction, const T* __restrict__ grad_output,
                                    const T* __restrict__ input, const int64_t* __restrict__ target,
                                    const T* __restrict__ weight, const accumulate_t<T>* __restrict__ statistics,
                                    const accumulate_t<T>* __restrict__ total_weight, T* __restrict__ grad_input) {
  using Value = accumulate_t<T>;
  constexpr int kStep = kTeam<kContiguous>;
  const Value smoothing = static_cast<Value>(shape.label_smoothing),
              per_class = smoothing / static_cast<Value>(shape.C);
  const Value scale = reduction == Reduction::mean ? Value{1} / *total_weight : Value{1};
  Value total = 0;
  if (smoothing > 0) {
    for (int64_t c = 0; c < shape.C; ++c) total += weight_of(weight, c);
  }
  for (Team<kContiguous> team; team.row < shape.rows(); team.row += team.step) {
    const int64_t offset = team.offset(shape.C, shape.pixels), t = class_of(shape, target, team.row);
    const Value gradient = widen(grad_output[reduction == Reduction::none ? team.row : 0]) * scale;
    const Value max = statistics[team.row], log_sum = statistics[shape.rows() + team.row];
    const Value at_target = t < 0 ? Value{0} : gradient * (Value{1} - smoothing) * weight_of(weight, t);
    const Value of_softmax = at_target + gradient * per_class * total;
    for (int64_t c = team.lane; c < shape.C; c += kStep) {
      const int64_t place = offset + c * shape.pixels;
      Value result = 0;
      if (t >= 0) {
        result = of_softmax * exp(widen(input[place]) - max - log_sum);
        if (smoothing > 0) result -= gradient * per_class * weight_of(weight, c);
        if (c == t) result -= at_target;
      }
      grad_input[place] = narrow<T>(result);
    }
  }
}

}  // namespace

LaunchStatus cross_entropy(const CrossEntropyShape& shape, Reduction reduction, DType dtype, const void* input,
                           const int64_t* target, const void* weight, void* losses, void* weights, void* statistics,
                           void* loss, void* total_weight, Stream stream) {
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Value = accumulate_t<T>;
    if (shape.rows() > 0) {
      const LaunchStatus status = choose_team(shape.pixels, [&](auto contiguous) {
        constexpr bool kContiguous = decltype(contiguous)::value;
        const dim3 grid = grid_for<kContiguous>(shape.rows()), block(kThreads);
        D2L_LAUNCH((cross_entropy_kernel<kContiguous, T>), grid, block, 0, stream, shape, static_cast<const T*>(input),
                   target, static_cast<const T*>(weight), static_cast<Value*>(losses), static_cast<Value*>(weights),
                   static_cast<Value*>(statistics), reduction == Reduction::none ? static_cast<T*>(loss) : nullptr);
        return launched(grid, block);
      });
      if (status.error != 0) return status;
    }
    const dim3 grid(1), block(kSumThreads);
    D2L_LAUNCH((cross_entropy_sums<T>), grid, block, 0, stream, shape.rows(), reduction,
               static_cast<const Value*>(losses), static_cast<const Value*>(weights), static_cast<T*>(loss),
               static_cast<Value*>(total_weight));
    return launched(grid, block);
  });
}

LaunchStatus cross_entropy_input_grad(const CrossEntropyShape& shape, Reduction reduction, DType dtype,
                                      const void* grad_output, const void* input, const int64_t* target,
                                      const void* weight, const void* statistics, const void* total_weight,
                                      void* grad_input, Stream stream) {
  if (shape.rows() == 0) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Value = accumulate_t<T>;
    return choose_team(shape.pixels, [&](auto contiguous) {
      constexpr bool kContiguous = decltype(contiguous)::value;
      const dim3 grid = grid_for<kContiguous>(shape.rows()), block(kThreads);
      D2L_LAUNCH((cross_entropy_input_grad_kernel<kContiguous, T>), grid, block, 0, stream, shape, reduction,
                 static_cast<const T*>(grad_output), static_cast<const T*>(input), target,
                 static_cast<const T*>(weight), static_cast<const Value*>(statistics),
                 static_cast<const Value*>(total_weight), static_cast<T*>(grad_input));
      return launched(grid, block);
    });
  });
}

}  // namespace d2l::cuda
