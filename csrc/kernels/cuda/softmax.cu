// Softmax and its logarithm over rows, and their gradients.
//
//   y_c = exp(x_c - max) / sum_k exp(x_k - max)          dx_c = y_c (dy_c - sum_k dy_k y_k)
//   y_c = x_c - max - log sum_k exp(x_k - max)           dx_c = dy_c - exp(y_c) sum_k dy_k
//
// Bytes: the input once from memory (again from the caches), the output once. Threads: see rows.cuh. Computed in
// float32 (float64 for float64), rounded once; sums in an order that the shape decides.
#include "kernels/cuda/softmax.h"

#include "kernels/cuda/rows.cuh"

namespace d2l::cuda {
namespace {

using namespace rows;

template <bool kIsLog, bool kContiguous, typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    softmax_kernel(SoftmaxShape shape, const T* __restrict__ input, T* __restrict__ output) {
  using Value = accumulate_t<T>;
  constexpr int kStep = kTeam<kContiguous>;
  for (Team<kContiguous> team; team.row < shape.rows(); team.row += team.step) {
    const int64_t offset = team.offset(shape.C, shape.inner);
    const T* const x = input + offset;
    Value max = minus_infinity<Value>(), sum = 0;
    for (int64_t c = team.lane; c < shape.C; c += kStep) {
      const Value value = widen(x[c * shape.inner]);
      max = value > max ? value : max;
    }
    max = team.max(max);
    for (int64_t c = team.lane; c < shape.C; c += kStep) sum += exp(widen(x[c * shape.inner]) - max);
    sum = team.sum(sum);
    const Value scale = kIsLog ? log(sum) : Value{1} / sum;
    for (int64_t c = team.lane; c < shape.C; c += kStep) {
      const Value distance = widen(x[c * shape.inner]) - max;
      output[offset + c * shape.inner] = narrow<T>(kIsLog ? distance - scale : exp(distance) * scale);
    }
  }
}

template <bool kIsLog, bool kContiguous, typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    softmax_input_grad_kernel(SoftmaxShape shape, const T* __restrict__ grad_output, const T* __restrict__ output,
                              T* __restrict__ grad_input) {
  using Value = accumulate_t<T>;
  constexpr int kStep = kTeam<kContiguous>;
  for (Team<kContiguous> team; team.row < shape.rows(); team.row += team.step) {
    const int64_t offset = team.offset(shape.C, shape.inner);
    const T *const dy = grad_output + offset, *const y = output + offset;
    Value sum = 0;
    for (int64_t c = team.lane; c < shape.C; c += kStep) {
      const Value gradient = widen(dy[c * shape.inner]);
      sum += kIsLog ? gradient : gradient * widen(y[c * shape.inner]);
    }
    sum = team.sum(sum);
    for (int64_t c = team.lane; c < shape.C; c += kStep) {
      const Value gradient = widen(dy[c * shape.inner]), value = widen(y[c * shape.inner]);
      const Value result = kIsLog ? gradient - exp(value) * sum : value * (gradient - sum);
      grad_input[offset + c * shape.inner] = narrow<T>(result);
    }
  }
}

template <typename Function>
LaunchStatus choose(bool is_log, int64_t inner, Function&& function) {
  return choose_team(inner, [&](auto contiguous) {
    return is_log ? function(std::true_type{}, contiguous) : function(std::false_type{}, contiguous);
  });
}

}  // namespace

LaunchStatus softmax(const SoftmaxShape& shape, bool is_log, DType dtype, const void* input, void* output,
                     Stream stream) {
  if (shape.rows() == 0 || shape.C == 0) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return choose(is_log, shape.inner, [&](auto log, auto contiguous) {
      const dim3 grid = grid_for<decltype(contiguous)::value>(shape.rows()), block(kThreads);
      D2L_LAUNCH((softmax_kernel<decltype(log)::value, decltype(contiguous)::value, T>), grid, block, 0, stream, shape,
                 static_cast<const T*>(input), static_cast<T*>(output));
      return launched(grid, block);
    });
  });
}

LaunchStatus softmax_input_grad(const SoftmaxShape& shape, bool is_log, DType dtype, const void* grad_output,
                                const void* output, void* grad_input, Stream stream) {
  if (shape.rows() == 0 || shape.C == 0) return {};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return choose(is_log, shape.inner, [&](auto log, auto contiguous) {
      const dim3 grid = grid_for<decltype(contiguous)::value>(shape.rows()), block(kThreads);
      D2L_LAUNCH((softmax_input_grad_kernel<decltype(log)::value, decltype(contiguous)::value, T>), grid, block, 0,
                 stream, shape, static_cast<const T*>(grad_output), static_cast<const T*>(output),
                 static_cast<T*>(grad_input));
      return launched(grid, block);
    });
  });
}

}  // namespace d2l::cuda
