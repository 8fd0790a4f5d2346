// Maximum pooling, regular and adaptive: checks, allocation, kernels for CPU, CUDA and Meta, autograd.
//
// A forward pass that records its backward keeps the offsets of the maxima inside their windows, one byte each. The
// gradient scatters over them (computed as a gather: deterministic); its own derivative gathers over them, and that
// one's derivative scatters again, so double backward and forward-mode AD need no further kernel.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

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

void check_offsets(const char* op, const Tensor& offsets) {
  check_rank4(op, "offsets", offsets);
  TORCH_CHECK_TYPE(offsets.scalar_type() == at::kByte || offsets.scalar_type() == at::kInt, op,
                   "(): expected offsets to be uint8 or int32, but got ", offsets.scalar_type());
}

// As wide as `window` over an input of input_size says.
template <typename Int>
void check_offset_dtype(const char* op, const Tensor& offsets, c10::ArrayRef<Int> input_size,
                        const PoolWindow& window) {
  const auto sizes = sizes_of<Int>(offsets);
  const auto dtype = pool_offset_dtype<Int>(window, input_size[2], input_size[3], sizes[2], sizes[3]);
  TORCH_CHECK_TYPE(offsets.scalar_type() == dtype, op, "(): expected offsets to be ", dtype,
                   " for this window, but got ", offsets.scalar_type());
}

template <typename Int>
void check_offsets_fit(const char* op, const Tensor& offsets, c10::ArrayRef<Int> input_size, const PoolWindow& window) {
  check_offsets(op, offsets);
  check_pool_output<Int>(op, "offsets", offsets, input_size, window);
  check_offset_dtype<Int>(op, offsets, input_size, window);
}

template <typename Int>
void check_max_pool_input_grad(const Tensor& grad_output, const Tensor& offsets, c10::ArrayRef<Int> input_size,
                               const PoolWindow& window) {
  const char* op = "max_pool2d_input_grad";
  check_pool_input(op, "grad_output", grad_output);
  check_pool_output<Int>(op, "grad_output", grad_output, input_size, window);
  check_offsets(op, offsets);
  const auto sizes = sizes_of<Int>(grad_output);
  check_size<Int>(op, "offsets", offsets, {sizes[0], sizes[1], sizes[2], sizes[3]});
  check_offset_dtype<Int>(op, offsets, input_size, window);
  check_same_device(op, "offsets", offsets, "grad_output", grad_output);
}

template <typename Int>
void check_max_pool_gather(const Tensor& input, const Tensor& offsets, const PoolWindow& window) {
  const char* op = "max_pool2d_gather";
  check_pool_input(op, "input", input);
  check_offsets_fit<Int>(op, offsets, sizes_of<Int>(input), window);
  check_same_device(op, "offsets", offsets, "input", input);
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

template <typename Function>
void visit_offset_dtype(at::ScalarType dtype, Function&& function) {
  if (dtype == at::kByte) {
    function(uint8_t{});
  } else {
    function(int32_t{});
  }
}

// Output, and offsets where `with_offsets` (otherwise undefined).
std::tuple<Tensor, Tensor> max_pool(const char* op, const Tensor& input, const PoolWindow& window,
                                    IntArrayRef output_size, bool with_offsets) {
  const Pool2dShape shape = pool_shape(window, input.sizes(), output_size);
  const auto format = output_format(input);
  const auto options = input.options().memory_format(format);
  const auto offset_dtype = pool_offset_dtype<int64_t>(window, shape.H, shape.W, shape.P, shape.Q);
  const std::array<int64_t, 4> size{shape.N, shape.C, shape.P, shape.Q};
  Tensor output = new_tensor(size, options);
  const Tensor offsets = with_offsets ? new_tensor(size, options.dtype(offset_dtype)) : Tensor();
  if (output.numel() == 0) {
    return {output, offsets};
  }
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = input.contiguous(format);
    check_launch(op, input,
                 cuda::max_pool2d(shape, layout_of(format), cuda_dtype(x), x.const_data_ptr(),
                                  output.mutable_data_ptr(), with_offsets ? offsets.mutable_data_ptr() : nullptr,
                                  offset_dtype == at::kInt, device.stream()));
    return {output, offsets};
  }
  const Tensor x = (is_element_type(input) ? input : input.to(at::kFloat)).contiguous(format);
  Tensor y = is_element_type(input) ? output : new_tensor(size, x.options().memory_format(format));
  visit_cpu_element(x, [&](auto element) {
    visit_offset_dtype(offset_dtype, [&](auto offset) {
      using E = decltype(element);
      using Offset = decltype(offset);
      cpu::max_pool2d<E, Offset>(shape, layout_of(format), elements<E>(x), mutable_elements<E>(y),
                                 with_offsets ? offsets.mutable_data_ptr<Offset>() : nullptr);
    });
  });
  return {y.to(input.scalar_type()), offsets};
}

Tensor max_pool2d_input_grad(const Tensor& grad_output, const Tensor& offsets, SymIntArrayRef input_size,
                             IntArrayRef window_list) {
  const char* op = "max_pool2d_input_grad";
  const auto window = PoolWindow::from_list(op, window_list);
  const IntArrayRef size = C10_AS_INTARRAYREF_SLOW(input_size);
  check_max_pool_input_grad<int64_t>(grad_output, offsets, size, window);
  const Pool2dShape shape = pool_shape(window, size, grad_output.sizes().slice(2));
  const auto format = output_format(grad_output);
  Tensor grad_input = new_tensor(size, grad_output.options().memory_format(format));
  if (grad_input.numel() == 0) {
    return grad_input;
  }
  const Tensor places = offsets.contiguous(format);
  D2L_ON_CUDA(op, grad_output) {
    const DeviceScope device(grad_output);
    const Tensor dy = grad_output.contiguous(format);
    check_launch(op, grad_output,
                 cuda::max_pool2d_input_grad(shape, layout_of(format), cuda_dtype(dy), dy.const_data_ptr(),
                                             places.const_data_ptr(), places.scalar_type() == at::kInt,
                                             grad_input.mutable_data_ptr(), device.stream()));
    return grad_input;
  }
  if (!is_element_type(grad_output)) {
    return d2l::max_pool2d_input_grad(grad_output.to(at::kFloat), offsets, input_size, window_list)
        .to(grad_output.scalar_type());
  }
  const Tensor dy = grad_output.contiguous(format);
  visit_cpu_element(dy, [&](auto element) {
    visit_offset_dtype(places.scalar_type(), [&](auto offset) {
      using E = decltype(element);
      using Offset = decltype(offset);
      cpu::max_pool2d_input_grad<E, Offset>(shape, layout_of(format), elements<E>(dy), places.const_data_ptr<Offset>(),
                                            mutable_elements<E>(grad_input));
    });
  });
  return grad_input;
}

Tensor max_pool2d_gather(const Tensor& input, const Tensor& offsets, IntArrayRef window_list) {
  const char* op = "max_pool2d_gather";
  const auto window = PoolWindow::from_list(op, window_list);
  check_max_pool_gather<int64_t>(input, offsets, window);
  const Pool2dShape shape = pool_shape(window, input.sizes(), offsets.sizes().slice(2));
  const auto format = output_format(input);
  Tensor output = new_tensor(offsets.sizes(), input.options().memory_format(format));
  if (output.numel() == 0) {
    return output;
  }
  const Tensor places = offsets.contiguous(format);
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = input.contiguous(format);
    check_launch(
        op, input,
        cuda::max_pool2d_gather(shape, layout_of(format), cuda_dtype(x), x.const_data_ptr(), places.const_data_ptr(),
                                places.scalar_type() == at::kInt, output.mutable_data_ptr(), device.stream()));
    return output;
  }
  if (!is_element_type(input)) {
    return d2l::max_pool2d_gather(input.to(at::kFloat), offsets, window_list).to(input.scalar_type());
  }
  const Tensor x = input.contiguous(format);
  visit_cpu_element(x, [&](auto element) {
    visit_offset_dtype(places.scalar_type(), [&](auto offset) {
      using E = decltype(element);
      using Offset = decltype(offset);
      cpu::max_pool2d_gather<E, Offset>(shape, layout_of(format), elements<E>(x), places.const_data_ptr<Offset>(),
                                        mutable_elements<E>(output));
    });
  });
  return output;
}

Tensor max_pool2d_indices(const Tensor& offsets, SymIntArrayRef input_size, IntArrayRef window_list) {
  const char* op = "max_pool2d_indices";
  const auto window = PoolWindow::from_list(op, window_list);
  const IntArrayRef size = C10_AS_INTARRAYREF_SLOW(input_size);
  check_offsets_fit<int64_t>(op, offsets, size, window);
  const Pool2dShape shape = pool_shape(window, size, offsets.sizes().slice(2));
  const auto format = output_format(offsets);
  Tensor indices = at::empty(offsets.sizes(), offsets.options().dtype(at::kLong).memory_format(format));
  if (indices.numel() == 0) {
    return indices;
  }
  const Tensor places = offsets.contiguous(format);
  D2L_ON_CUDA(op, offsets) {
    const DeviceScope device(offsets);
    check_launch(
        op, offsets,
        cuda::max_pool2d_indices(shape, layout_of(format), places.const_data_ptr(), places.scalar_type() == at::kInt,
                                 indices.mutable_data_ptr<int64_t>(), device.stream()));
    return indices;
  }
  visit_offset_dtype(places.scalar_type(), [&](auto offset) {
    using Offset = decltype(offset);
    cpu::max_pool2d_indices<Offset>(shape, layout_of(format), places.const_data_ptr<Offset>(),
                                    indices.mutable_data_ptr<int64_t>());
  });
  return indices;
}

// ---- the four forward ops --------------------------------------------------------------------------------------

PoolWindow check_max_pool2d(const char* op, const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride,
                            IntArrayRef padding, IntArrayRef dilation) {
  const auto window = PoolWindow::regular(op, kernel_size, stride, padding, dilation);
  check_pool_input(op, "input", input);
  return window;
}

void check_adaptive_max_pool2d(const char* op, const Tensor& input, IntArrayRef output_size) {
  check_adaptive_output_size(op, output_size);
  check_pool_input(op, "input", input);
}

Tensor max_pool2d(const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride, IntArrayRef padding,
                  IntArrayRef dilation, bool ceil_mode) {
  const char* op = "max_pool2d";
  const auto window = check_max_pool2d(op, input, kernel_size, stride, padding, dilation);
  return std::get<0>(
      max_pool(op, input, window, pool_output_size<int64_t>(op, input.sizes(), window, ceil_mode), false));
}

std::tuple<Tensor, Tensor> max_pool2d_with_offsets(const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride,
                                                   IntArrayRef padding, IntArrayRef dilation, bool ceil_mode) {
  const char* op = "max_pool2d";
  const auto window = check_max_pool2d(op, input, kernel_size, stride, padding, dilation);
  return max_pool(op, input, window, pool_output_size<int64_t>(op, input.sizes(), window, ceil_mode), true);
}

Tensor adaptive_max_pool2d(const Tensor& input, IntArrayRef output_size) {
  const char* op = "adaptive_max_pool2d";
  check_adaptive_max_pool2d(op, input, output_size);
  return std::get<0>(max_pool(op, input, PoolWindow::adaptive_windows(), output_size, false));
}

std::tuple<Tensor, Tensor> adaptive_max_pool2d_with_offsets(const Tensor& input, IntArrayRef output_size) {
  const char* op = "adaptive_max_pool2d";
  check_adaptive_max_pool2d(op, input, output_size);
  return max_pool(op, input, PoolWindow::adaptive_windows(), output_size, true);
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

std::tuple<Tensor, Tensor> max_pool_meta(const Tensor& input, const PoolWindow& window,
                                         const std::array<SymInt, 2>& output_size) {
  const auto size = input.sym_sizes();
  const auto& [P, Q] = output_size;
  const auto options = input.options().memory_format(output_format(input));
  const std::array<SymInt, 4> output{size[0], size[1], P, Q};
  return {at::empty_symint(output, options),
          at::empty_symint(output, options.dtype(pool_offset_dtype<SymInt>(window, size[2], size[3], P, Q)))};
}

std::tuple<Tensor, Tensor> max_pool2d_with_offsets_meta(const Tensor& input, IntArrayRef kernel_size,
                                                        IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                                                        bool ceil_mode) {
  const char* op = "max_pool2d";
  const auto window = check_max_pool2d(op, input, kernel_size, stride, padding, dilation);
  return max_pool_meta(input, window, pool_output_size<SymInt>(op, input.sym_sizes(), window, ceil_mode));
}

Tensor max_pool2d_meta(const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride, IntArrayRef padding,
                       IntArrayRef dilation, bool ceil_mode) {
  return std::get<0>(max_pool2d_with_offsets_meta(input, kernel_size, stride, padding, dilation, ceil_mode));
}

std::tuple<Tensor, Tensor> adaptive_max_pool2d_with_offsets_meta(const Tensor& input, IntArrayRef output_size) {
  check_adaptive_max_pool2d("adaptive_max_pool2d", input, output_size);
  return max_pool_meta(input, PoolWindow::adaptive_windows(), {output_size[0], output_size[1]});
}

Tensor adaptive_max_pool2d_meta(const Tensor& input, IntArrayRef output_size) {
  return std::get<0>(adaptive_max_pool2d_with_offsets_meta(input, output_size));
}

Tensor max_pool2d_input_grad_meta(const Tensor& grad_output, const Tensor& offsets, SymIntArrayRef input_size,
                                  IntArrayRef window) {
  check_max_pool_input_grad<SymInt>(grad_output, offsets, input_size,
                                    PoolWindow::from_list("max_pool2d_input_grad", window));
  return at::empty_symint(input_size, grad_output.options().memory_format(output_format(grad_output)));
}

Tensor max_pool2d_gather_meta(const Tensor& input, const Tensor& offsets, IntArrayRef window) {
  check_max_pool_gather<SymInt>(input, offsets, PoolWindow::from_list("max_pool2d_gather", window));
  return at::empty_symint(offsets.sym_sizes(), input.options().memory_format(output_format(input)));
}

Tensor max_pool2d_indices_meta(const Tensor& offsets, SymIntArrayRef input_size, IntArrayRef window) {
  const char* op = "max_pool2d_indices";
  check_offsets_fit<SymInt>(op, offsets, input_size, PoolWindow::from_list(op, window));
  return at::empty_symint(offsets.sym_sizes(),
                          offsets.options().dtype(at::kLong).memory_format(output_format(offsets)));
}

// ---- calls through the dispatcher ------------------------------------------------------------------------------

Tensor call_input_grad(const Tensor& grad_output, const Tensor& offsets, SymIntArrayRef input_size,
                       IntArrayRef window) {
  static const auto op = find_op<decltype(max_pool2d_input_grad)>("d2lkernels::max_pool2d_input_grad");
  return op.call(grad_output, offsets, input_size, window);
}

Tensor call_gather(const Tensor& input, const Tensor& offsets, IntArrayRef window) {
  static const auto op = find_op<decltype(max_pool2d_gather)>("d2lkernels::max_pool2d_gather");
  return op.call(input, offsets, window);
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void save_pooling(AutogradContext* ctx, const Tensor& offsets, SymIntArrayRef input_size, IntArrayRef window) {
  ctx->save_for_backward({offsets});
  SavedPooling::save(ctx, input_size, window);
}

variable_list pooling_input_grad(AutogradContext* ctx, const Tensor& grad_output, size_t arguments) {
  variable_list result(arguments);
  if (grad_output.defined()) {
    const SavedPooling saved(ctx);
    result[0] = call_input_grad(grad_output, ctx->get_saved_variables()[0], saved.input_size, saved.numbers);
  }
  return result;
}

struct MaxPool2d : Function<MaxPool2d> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride,
                               IntArrayRef padding, IntArrayRef dilation, bool ceil_mode) {
    static const auto op = find_op<decltype(max_pool2d_with_offsets)>("d2lkernels::max_pool2d_with_offsets");
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, offsets] = op.call(input, kernel_size, stride, padding, dilation, ceil_mode);
    save_pooling(ctx, offsets, input.sym_sizes(),
                 PoolWindow::regular("max_pool2d", kernel_size, stride, padding, dilation).to_list());
    ctx->mark_non_differentiable({offsets});
    ctx->set_materialize_grads(false);
    return {output, offsets};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return pooling_input_grad(ctx, grads[0], 6);
  }
};

struct AdaptiveMaxPool2d : Function<AdaptiveMaxPool2d> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, IntArrayRef output_size) {
    static const auto op =
        find_op<decltype(adaptive_max_pool2d_with_offsets)>("d2lkernels::adaptive_max_pool2d_with_offsets");
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, offsets] = op.call(input, output_size);
    save_pooling(ctx, offsets, input.sym_sizes(), {});
    ctx->mark_non_differentiable({offsets});
    ctx->set_materialize_grads(false);
    return {output, offsets};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return pooling_input_grad(ctx, grads[0], 2);
  }
};

struct MaxPool2dInputGrad : Function<MaxPool2dInputGrad> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad_output, const Tensor& offsets,
                        SymIntArrayRef input_size, IntArrayRef window) {
    save_pooling(ctx, offsets, input_size, window);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_input_grad(grad_output, offsets, input_size, window);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(4);
    if (grads[0].defined()) {
      result[0] = call_gather(grads[0], ctx->get_saved_variables()[0], SavedPooling(ctx).numbers);
    }
    return result;
  }
};

struct MaxPool2dGather : Function<MaxPool2dGather> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& offsets, IntArrayRef window) {
    save_pooling(ctx, offsets, input.sym_sizes(), window);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_gather(input, offsets, window);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return pooling_input_grad(ctx, grads[0], 3);
  }
};

Tensor max_pool2d_autograd(const Tensor& input, IntArrayRef kernel_size, IntArrayRef stride, IntArrayRef padding,
                           IntArrayRef dilation, bool ceil_mode) {
  if (needs_autograd("max_pool2d", input)) {
    return MaxPool2d::apply(input, kernel_size, stride, padding, dilation, ceil_mode)[0];
  }
  static const auto op = find_op<decltype(max_pool2d)>("d2lkernels::max_pool2d");
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(input, kernel_size, stride, padding, dilation, ceil_mode);
}

std::tuple<Tensor, Tensor> max_pool2d_with_offsets_autograd(const Tensor& input, IntArrayRef kernel_size,
                                                            IntArrayRef stride, IntArrayRef padding,
                                                            IntArrayRef dilation, bool ceil_mode) {
  if (needs_autograd("max_pool2d_with_offsets", input)) {
    auto outputs = MaxPool2d::apply(input, kernel_size, stride, padding, dilation, ceil_mode);
    return {outputs[0], outputs[1]};
  }
  static const auto op = find_op<decltype(max_pool2d_with_offsets)>("d2lkernels::max_pool2d_with_offsets");
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(input, kernel_size, stride, padding, dilation, ceil_mode);
}

Tensor adaptive_max_pool2d_autograd(const Tensor& input, IntArrayRef output_size) {
  if (needs_autograd("adaptive_max_pool2d", input)) {
    return AdaptiveMaxPool2d::apply(input, output_size)[0];
  }
  static const auto op = find_op<decltype(adaptive_max_pool2d)>("d2lkernels::adaptive_max_pool2d");
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(input, output_size);
}

std::tuple<Tensor, Tensor> adaptive_max_pool2d_with_offsets_autograd(const Tensor& input, IntArrayRef output_size) {
  if (needs_autograd("adaptive_max_pool2d_with_offsets", input)) {
    auto outputs = AdaptiveMaxPool2d::apply(input, output_size);
    return {outputs[0], outputs[1]};
  }
  static const auto op =
      find_op<decltype(adaptive_max_pool2d_with_offsets)>("d2lkernels::adaptive_max_pool2d_with_offsets");
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(input, output_size);
}

Tensor max_pool2d_input_grad_autograd(const Tensor& grad_output, const Tensor& offsets, SymIntArrayRef input_size,
                                      IntArrayRef window) {
  if (needs_autograd("max_pool2d_input_grad", grad_output)) {
    return MaxPool2dInputGrad::apply(grad_output, offsets, input_size, window);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_input_grad(grad_output, offsets, input_size, window);
}

Tensor max_pool2d_gather_autograd(const Tensor& input, const Tensor& offsets, IntArrayRef window) {
  if (needs_autograd("max_pool2d_gather", input)) {
    return MaxPool2dGather::apply(input, offsets, window);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_gather(input, offsets, window);
}

}  // namespace
}  // namespace d2l

#define D2L_MAX_POOL2D_KERNELS(suffix)                                                       \
  m.impl("max_pool2d", d2l::max_pool2d##suffix);                                             \
  m.impl("max_pool2d_with_offsets", d2l::max_pool2d_with_offsets##suffix);                   \
  m.impl("adaptive_max_pool2d", d2l::adaptive_max_pool2d##suffix);                           \
  m.impl("adaptive_max_pool2d_with_offsets", d2l::adaptive_max_pool2d_with_offsets##suffix); \
  m.impl("max_pool2d_input_grad", d2l::max_pool2d_input_grad##suffix);                       \
  m.impl("max_pool2d_gather", d2l::max_pool2d_gather##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) {
  D2L_MAX_POOL2D_KERNELS();
  m.impl("max_pool2d_indices", d2l::max_pool2d_indices);
}

TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) {
  D2L_MAX_POOL2D_KERNELS();
  m.impl("max_pool2d_indices", d2l::max_pool2d_indices);
}

TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) {
  D2L_MAX_POOL2D_KERNELS(_meta);
  m.impl("max_pool2d_indices", d2l::max_pool2d_indices_meta);
}

TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_MAX_POOL2D_KERNELS(_autograd); }
