// Average pooling, regular and adaptive: checks, allocation, kernels for CPU, CUDA and Meta, autograd.
//
// Pooling A and its transpose, the input gradient T, are linear and each other's derivative, so double backward and
// forward-mode AD need no further kernel.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <array>

#include "common/allocate.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "common/memory_format.h"
#include "kernels/cpu/pool2d.h"
#include "kernels/cuda/pool2d.h"
#include "ops/pool2d.h"

namespace d2l {
namespace {

using at::IntArrayRef;
using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;

// ---- checks ----------------------------------------------------------------------------------------------------

struct AvgPoolOptions {
  IntArrayRef kernel_size, stride, padding;
  bool ceil_mode, count_include_pad;
  std::optional<int64_t> divisor_override;
};

PoolWindow check_options(const char* op, const AvgPoolOptions& options) {
  TORCH_CHECK_VALUE(!options.divisor_override.has_value() || *options.divisor_override != 0, op,
                    "(): expected divisor_override not to be zero, but got 0");
  return PoolWindow::regular(op, options.kernel_size, options.stride, options.padding, {1, 1});
}

PoolWindow check_avg_pool2d(const char* op, const Tensor& input, const AvgPoolOptions& options) {
  const auto window = check_options(op, options);
  check_pool_input(op, "input", input);
  return window;
}

template <typename Int>
PoolWindow check_avg_pool2d_input_grad(const char* op, const Tensor& grad_output, c10::ArrayRef<Int> input_size,
                                       const AvgPoolOptions& options) {
  const auto window = check_options(op, options);
  check_pool_input(op, "grad_output", grad_output);
  check_pool_output<Int>(op, "grad_output", grad_output, input_size, window);
  return window;
}

void check_adaptive_avg_pool2d(const char* op, const Tensor& input, IntArrayRef output_size) {
  check_adaptive_output_size(op, output_size);
  check_pool_input(op, "input", input);
}

template <typename Int>
void check_adaptive_avg_pool2d_input_grad(const char* op, const Tensor& grad_output, c10::ArrayRef<Int> input_size) {
  check_pool_input(op, "grad_output", grad_output);
  check_pool_output<Int>(op, "grad_output", grad_output, input_size, PoolWindow::adaptive_windows());
}

Pool2dShape avg_pool_shape(const PoolWindow& window, IntArrayRef input_size, IntArrayRef output_size,
                           bool count_include_pad, std::optional<int64_t> divisor_override) {
  Pool2dShape shape = pool_shape(window, input_size, output_size);
  shape.count_include_pad = count_include_pad;
  shape.divisor_override = divisor_override.value_or(0);
  return shape;
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

Tensor avg_pool(const char* op, const Tensor& input, const Pool2dShape& shape) {
  const auto format = output_format(input);
  Tensor output = new_tensor({shape.N, shape.C, shape.P, shape.Q}, input.options().memory_format(format));
  if (output.numel() == 0) {
    return output;
  }
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = input.contiguous(format);
    check_launch(op, input,
                 cuda::avg_pool2d(shape, layout_of(format), cuda_dtype(x), x.const_data_ptr(),
                                  output.mutable_data_ptr(), device.stream()));
    return output;
  }
  if (!is_element_type(input)) {
    return avg_pool(op, input.to(at::kFloat), shape).to(input.scalar_type());
  }
  const Tensor x = input.contiguous(format);
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    cpu::avg_pool2d<E>(shape, layout_of(format), elements<E>(x), mutable_elements<E>(output));
  });
  return output;
}

Tensor avg_pool_input_grad(const char* op, const Tensor& grad_output, const Pool2dShape& shape) {
  const auto format = output_format(grad_output);
  Tensor grad_input = new_tensor({shape.N, shape.C, shape.H, shape.W}, grad_output.options().memory_format(format));
  if (grad_input.numel() == 0) {
    return grad_input;
  }
  D2L_ON_CUDA(op, grad_output) {
    const DeviceScope device(grad_output);
    const Tensor dy = grad_output.contiguous(format);
    check_launch(op, grad_output,
                 cuda::avg_pool2d_input_grad(shape, layout_of(format), cuda_dtype(dy), dy.const_data_ptr(),
                                             grad_input.mutable_data_ptr(), device.stream()));
    return grad_input;
  }
  if (!is_element_type(grad_output)) {
    return avg_pool_input_grad(op, grad_output.to(at::kFloat), shape).to(grad_output.scalar_type());
  }
  const Tensor dy = grad_output.contiguous(format);
  visit_cpu_element(dy, [&](auto element) {
    using E = decltype(element);
    cpu::avg_pool2d_input_grad<E>(shape, layout_of(format), elements<E>(dy), mutable_elements<E>(grad_input));
  });
  return grad_input;
}

Tensor avg_pool2d(const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride, IntArrayRef padding, bool ceil_mode,
                  bool count_include_pad, std::optional<int64_t> divisor_override) {
  const char* op = "avg_pool2d";
  const auto window =
      check_avg_pool2d(op, input, {kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override});
  const auto output_size = pool_output_size<int64_t>(op, input.sizes(), window, ceil_mode);
  return avg_pool(op, input, avg_pool_shape(window, input.sizes(), output_size, count_include_pad, divisor_override));
}

Tensor avg_pool2d_input_grad(const Tensor& grad_output, SymIntArrayRef input_size, IntArrayRef kernel_size,
                             IntArrayRef stride, IntArrayRef padding, bool ceil_mode, bool count_include_pad,
                             std::optional<int64_t> divisor_override) {
  const char* op = "avg_pool2d_input_grad";
  const IntArrayRef size = C10_AS_INTARRAYREF_SLOW(input_size);
  const auto window = check_avg_pool2d_input_grad<int64_t>(
      op, grad_output, size, {kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override});
  return avg_pool_input_grad(
      op, grad_output, avg_pool_shape(window, size, grad_output.sizes().slice(2), count_include_pad, divisor_override));
}

Tensor adaptive_avg_pool2d(const Tensor& input, IntArrayRef output_size) {
  const char* op = "adaptive_avg_pool2d";
  check_adaptive_avg_pool2d(op, input, output_size);
  return avg_pool(op, input, pool_shape(PoolWindow::adaptive_windows(), input.sizes(), output_size));
}

Tensor adaptive_avg_pool2d_input_grad(const Tensor& grad_output, SymIntArrayRef input_size) {
  const char* op = "adaptive_avg_pool2d_input_grad";
  const IntArrayRef size = C10_AS_INTARRAYREF_SLOW(input_size);
  check_adaptive_avg_pool2d_input_grad<int64_t>(op, grad_output, size);
  return avg_pool_input_grad(op, grad_output,
                             pool_shape(PoolWindow::adaptive_windows(), size, grad_output.sizes().slice(2)));
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor avg_pool_meta(const Tensor& input, const SymInt& P, const SymInt& Q) {
  return at::empty_symint({input.sym_size(0), input.sym_size(1), P, Q},
                          input.options().memory_format(output_format(input)));
}

Tensor avg_pool2d_meta(const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride, IntArrayRef padding,
                       bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor_override) {
  const char* op = "avg_pool2d";
  const auto window =
      check_avg_pool2d(op, input, {kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override});
  const auto [P, Q] = pool_output_size<SymInt>(op, input.sym_sizes(), window, ceil_mode);
  return avg_pool_meta(input, P, Q);
}

Tensor avg_pool2d_input_grad_meta(const Tensor& grad_output, SymIntArrayRef input_size, IntArrayRef kernel_size,
                                  IntArrayRef stride, IntArrayRef padding, bool ceil_mode, bool count_include_pad,
                                  std::optional<int64_t> divisor_override) {
  check_avg_pool2d_input_grad<SymInt>("avg_pool2d_input_grad", grad_output, input_size,
                                      {kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override});
  return at::empty_symint(input_size, grad_output.options().memory_format(output_format(grad_output)));
}

Tensor adaptive_avg_pool2d_meta(const Tensor& input, IntArrayRef output_size) {
  check_adaptive_avg_pool2d("adaptive_avg_pool2d", input, output_size);
  return avg_pool_meta(input, output_size[0], output_size[1]);
}

Tensor adaptive_avg_pool2d_input_grad_meta(const Tensor& grad_output, SymIntArrayRef input_size) {
  check_adaptive_avg_pool2d_input_grad<SymInt>("adaptive_avg_pool2d_input_grad", grad_output, input_size);
  return at::empty_symint(input_size, grad_output.options().memory_format(output_format(grad_output)));
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A call of avg_pool2d or adaptive_avg_pool2d, or of its transpose: what both directions need to call each other.
struct AvgPooling {
  IntArrayRef kernel_size = {}, stride = {}, padding = {};  // empty for adaptive windows
  IntArrayRef output_size = {};                             // empty for regular ones
  bool ceil_mode = false, count_include_pad = true;
  std::optional<int64_t> divisor_override = std::nullopt;

  Tensor forward(const Tensor& input) const {
    if (kernel_size.empty()) {
      static const auto op = find_op<decltype(adaptive_avg_pool2d)>("d2lkernels::adaptive_avg_pool2d");
      return op.call(input, output_size);
    }
    static const auto op = find_op<decltype(avg_pool2d)>("d2lkernels::avg_pool2d");
    return op.call(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override);
  }

  Tensor transposed(const Tensor& grad_output, SymIntArrayRef input_size) const {
    if (kernel_size.empty()) {
      static const auto op =
          find_op<decltype(adaptive_avg_pool2d_input_grad)>("d2lkernels::adaptive_avg_pool2d_input_grad");
      return op.call(grad_output, input_size);
    }
    static const auto op = find_op<decltype(avg_pool2d_input_grad)>("d2lkernels::avg_pool2d_input_grad");
    return op.call(grad_output, input_size, kernel_size, stride, padding, ceil_mode, count_include_pad,
                   divisor_override);
  }

  void save(AutogradContext* ctx, SymIntArrayRef input_size, bool is_channels_last) const {
    c10::SmallVector<int64_t, 12> numbers{is_channels_last, ceil_mode, count_include_pad, divisor_override.has_value(),
                                          divisor_override.value_or(0)};
    for (const IntArrayRef list : {kernel_size, stride.empty() ? kernel_size : stride, padding, output_size}) {
      numbers.append(list.begin(), list.end());
    }
    SavedPooling::save(ctx, input_size, numbers);
  }

  // What was saved, in `numbers`.
  static AvgPooling load(IntArrayRef numbers) {
    AvgPooling pooling{.ceil_mode = numbers[1] != 0, .count_include_pad = numbers[2] != 0};
    if (numbers[3] != 0) pooling.divisor_override = numbers[4];
    const IntArrayRef sizes = numbers.slice(5);
    if (sizes.size() == 2) {
      pooling.output_size = sizes;
    } else {
      pooling.kernel_size = sizes.slice(0, 2), pooling.stride = sizes.slice(2, 2), pooling.padding = sizes.slice(4, 2);
    }
    return pooling;
  }
};

// The order of the map that is pooled, for its gradient: copying what is pooled is cheaper than copying that. What
// comes from Flatten has another order, and the only pixel of a map has any.
Tensor in_channels_last(const Tensor& grad) {
  const Tensor dense = grad.contiguous(at::MemoryFormat::ChannelsLast);
  if (output_format(dense) == at::MemoryFormat::ChannelsLast) return dense;
  const auto size = dense.sym_sizes();
  const std::array<SymInt, 4> strides{size[1] * size[2] * size[3], 1, size[1] * size[3], size[1]};
  return dense.as_strided_symint(size, strides);
}

struct AvgPool2d : Function<AvgPool2d> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const AvgPooling& pooling) {
    pooling.save(ctx, input.sym_sizes(), output_format(input) == at::MemoryFormat::ChannelsLast);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return pooling.forward(input);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(2);
    if (grads[0].defined()) {
      const SavedPooling saved(ctx);
      const Tensor grad = saved.numbers[0] != 0 ? in_channels_last(grads[0]) : grads[0];
      result[0] = AvgPooling::load(saved.numbers).transposed(grad, saved.input_size);
    }
    return result;
  }
};

struct AvgPool2dInputGrad : Function<AvgPool2dInputGrad> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad_output, SymIntArrayRef input_size,
                        const AvgPooling& pooling) {
    pooling.save(ctx, input_size, false);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return pooling.transposed(grad_output, input_size);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(3);
    if (grads[0].defined()) {
      const SavedPooling saved(ctx);
      result[0] = AvgPooling::load(saved.numbers).forward(grads[0]);
    }
    return result;
  }
};

Tensor pool_autograd(const char* op, const Tensor& input, const AvgPooling& pooling) {
  if (needs_autograd(op, input)) {
    return AvgPool2d::apply(input, pooling);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return pooling.forward(input);
}

Tensor pool_input_grad_autograd(const char* op, const Tensor& grad_output, SymIntArrayRef input_size,
                                const AvgPooling& pooling) {
  if (needs_autograd(op, grad_output)) {
    return AvgPool2dInputGrad::apply(grad_output, input_size, pooling);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return pooling.transposed(grad_output, input_size);
}

Tensor avg_pool2d_autograd(const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride, IntArrayRef padding,
                           bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor_override) {
  return pool_autograd("avg_pool2d", input,
                       {kernel_size, stride, padding, {}, ceil_mode, count_include_pad, divisor_override});
}

Tensor avg_pool2d_input_grad_autograd(const Tensor& grad_output, SymIntArrayRef input_size, IntArrayRef kernel_size,
                                      IntArrayRef stride, IntArrayRef padding, bool ceil_mode, bool count_include_pad,
                                      std::optional<int64_t> divisor_override) {
  return pool_input_grad_autograd("avg_pool2d_input_grad", grad_output, input_size,
                                  {kernel_size, stride, padding, {}, ceil_mode, count_include_pad, divisor_override});
}

Tensor adaptive_avg_pool2d_autograd(const Tensor& input, IntArrayRef output_size) {
  return pool_autograd("adaptive_avg_pool2d", input, {.output_size = output_size});
}

Tensor adaptive_avg_pool2d_input_grad_autograd(const Tensor& grad_output, SymIntArrayRef input_size) {
  const std::array<int64_t, 2> output_size{grad_output.sym_size(2).guard_int(__FILE__, __LINE__),
                                           grad_output.sym_size(3).guard_int(__FILE__, __LINE__)};
  return pool_input_grad_autograd("adaptive_avg_pool2d_input_grad", grad_output, input_size,
                                  {.output_size = output_size});
}

}  // namespace
}  // namespace d2l

#define D2L_AVG_POOL2D_KERNELS(suffix)                                 \
  m.impl("avg_pool2d", d2l::avg_pool2d##suffix);                       \
  m.impl("avg_pool2d_input_grad", d2l::avg_pool2d_input_grad##suffix); \
  m.impl("adaptive_avg_pool2d", d2l::adaptive_avg_pool2d##suffix);     \
  m.impl("adaptive_avg_pool2d_input_grad", d2l::adaptive_avg_pool2d_input_grad##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_AVG_POOL2D_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_AVG_POOL2D_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_AVG_POOL2D_KERNELS(_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_AVG_POOL2D_KERNELS(_autograd); }
