// linear, alone or with an activation: checks, allocation, kernels for CPU, CUDA and Meta, autograd, autocast.
//
// output = activation(input weight^T + bias), of matrices with any strides. linear is closed under differentiation: it
// is bilinear, and its derivatives are products of the same kind, of transposed views.
//   grad_input = linear(grad_output, weight^T),  grad_weight = linear(grad_output^T, input^T)
// An activation is applied where the sums are stored, and differentiated by its values: only these are kept.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "common/allocate.h"
#include "common/autocast.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "common/plain.h"
#include "common/reuse.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cuda/conv2d.h"
#include "ops/activation.h"
#include "ops/bfloat16_product.h"

namespace d2l {
namespace {

using at::Tensor;
using c10::SymInt;
using OptionalTensor = std::optional<Tensor>;

// ---- checks ----------------------------------------------------------------------------------------------------

template <typename Int>
struct LinearSizes {
  Int rows, in_features, out_features;
};

void check_matrix(const char* op, const char* argument, const Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.dim() == 2, op, "(): expected ", argument, " to be 2-D, but got a ", tensor.dim(),
                    "-D tensor of size ", tensor.sym_sizes());
}

template <typename Int>
LinearSizes<Int> check_linear(const char* op, const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  check_matrix(op, "input", input);
  check_matrix(op, "weight", weight);
  check_floating(op, "input", input);
  check_same_dtype(op, "weight", weight, "input", input);
  check_same_device(op, "weight", weight, "input", input);
  check_strided(op, "input", input);
  check_strided(op, "weight", weight);
  const auto input_size = sizes_of<Int>(input), weight_size = sizes_of<Int>(weight);
  TORCH_CHECK_VALUE(weight_size[1] == input_size[1], op, "(): expected weight to have ", input_size[1],
                    " columns (the features of input), but got weight of size ", weight_size);
  if (bias.has_value()) {
    TORCH_CHECK_VALUE(bias->dim() == 1 && sizes_of<Int>(*bias)[0] == weight_size[0], op,
                      "(): expected bias to have size [", weight_size[0], "] (the rows of weight), but got ",
                      sizes_of<Int>(*bias));
    check_same_dtype(op, "bias", *bias, "input", input);
    check_same_device(op, "bias", *bias, "input", input);
  }
  return {input_size[0], input_size[1], weight_size[0]};
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

// A matrix, copied unless the elements of its rows or of its columns are adjacent.
struct Matrix {
  Tensor tensor;
  int64_t row, column;  // element strides; one is 1

  explicit Matrix(const Tensor& given) : tensor(given), row(given.stride(0)), column(given.stride(1)) {
    if (column == 1 || row == 1) return;
    if (given.size(1) == 1) {
      column = 1;
    } else {
      tensor = given.contiguous();
      row = tensor.size(1);
      column = 1;
    }
  }
};

// An output of R x S = 1 x 1 pixels: the matrix product as a convolution.
Conv2dShape pointwise_shape(int64_t images, int64_t in_channels, int64_t out_channels) {
  return {images, in_channels, 1, 1, out_channels, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1};
}

bool is_transposed(const Tensor& matrix) { return !matrix.is_contiguous() && matrix.t().is_contiguous(); }

// The three passes of a 1x1 convolution are the products that have a kernel without transposed copies.
void linear_cuda(const char* op, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                 const Tensor& output, Activation activation) {
  const DeviceScope device(input);
  const int64_t rows = input.size(0), depth = input.size(1), columns = weight.size(0);
  const cuda::DType dtype = cuda_dtype(input);
  const auto precision = matmul_precision();
  void* result = output.mutable_data_ptr();
  if (bias.has_value() || activation != Activation::none || !is_transposed(weight)) {
    const Tensor x = input.contiguous(), w = weight.contiguous();
    const Tensor b = bias.has_value() ? bias->contiguous() : Tensor();
    check_launch(
        op, input,
        cuda::conv2d(pointwise_shape(rows, depth, columns), dtype, precision, x.const_data_ptr(), w.const_data_ptr(),
                     b.defined() ? b.const_data_ptr() : nullptr, result, device.stream(), activation));
    return;
  }
  const Tensor w = weight.t();
  if (!is_transposed(input)) {
    const Tensor dy = input.contiguous();
    check_launch(op, input,
                 cuda::conv2d_input_grad(pointwise_shape(rows, columns, depth), dtype, precision, dy.const_data_ptr(),
                                         w.const_data_ptr(), result, device.stream()));
    return;
  }
  const Tensor dy = input.t();
  const Conv2dShape shape = pointwise_shape(depth, columns, rows);
  const Tensor workspace =
      at::empty({cuda::conv2d_weight_grad_workspace(shape, dtype)}, input.options().dtype(at::kByte));
  check_launch(op, input,
               cuda::conv2d_weight_grad(shape, dtype, precision, dy.const_data_ptr(), w.const_data_ptr(), result,
                                        workspace.mutable_data_ptr(), device.stream()));
}

template <typename T>
void linear_cpu(const Matrix& input, const Matrix& weight, const T* bias, const Tensor& output, Activation activation) {
  cpu::Gemm<T> problem{};
  problem.rows = output.size(0);
  problem.columns = output.size(1);
  problem.depth = input.tensor.size(1);
  problem.a = input.tensor.const_data_ptr<T>();
  problem.a_row = input.row;
  problem.a_depth = input.column;
  problem.b = weight.tensor.const_data_ptr<T>();
  problem.b_depth = weight.column;
  problem.b_column = weight.row;
  problem.bias = bias;
  problem.c = output.mutable_data_ptr<T>();
  problem.c_row = problem.columns;
  problem.activation = activation;
  cpu::gemm(problem);
}

Tensor linear_activated(const char* op, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        Activation activation) {
  const auto sizes = check_linear<int64_t>(op, input, weight, bias);
  const Tensor output = taken_or_empty({sizes.rows, sizes.out_features}, input.options(), at::MemoryFormat::Contiguous);
  if (output.numel() == 0) {
    return output;
  }
  if (sizes.in_features == 0) {  // an empty sum
    return linear_activated(op, at::zeros({sizes.rows, 1}, input.options()),
                            at::zeros({sizes.out_features, 1}, weight.options()), bias, activation);
  }
  D2L_ON_CUDA(op, input) {
    linear_cuda(op, input, weight, bias, output, activation);
    return output;
  }
  if (has_bfloat16_product(input)) {
    bfloat16_product(input, weight, bias, output, activation);
    return output;
  }
  if (is_16_bit(input)) {
    const OptionalTensor bias32 = bias.has_value() ? OptionalTensor(bias->to(at::kFloat)) : std::nullopt;
    return linear_activated(op, input.to(at::kFloat), weight.to(at::kFloat), bias32, activation)
        .to(input.scalar_type());
  }
  const OptionalTensor dense_bias = bias.has_value() ? OptionalTensor(bias->contiguous()) : std::nullopt;
  visit_cpu_dtype(input, [&](auto scalar) {
    using T = decltype(scalar);
    linear_cpu<T>(Matrix(input), Matrix(weight), dense_bias.has_value() ? dense_bias->const_data_ptr<T>() : nullptr,
                  output, activation);
  });
  return output;
}

Tensor linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  return linear_activated("linear", input, weight, bias, Activation::none);
}

constexpr const char* kFusedName = "linear_activation";

Tensor linear_activation(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                         std::string_view activation) {
  return linear_activated(kFusedName, input, weight, bias, activation_of(kFusedName, activation));
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor linear_meta(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  const auto sizes = check_linear<SymInt>("linear", input, weight, bias);
  return at::empty_symint({sizes.rows, sizes.out_features}, input.options());
}

Tensor linear_activation_meta(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                              std::string_view activation) {
  activation_of(kFusedName, activation);
  const auto sizes = check_linear<SymInt>(kFusedName, input, weight, bias);
  return at::empty_symint({sizes.rows, sizes.out_features}, input.options());
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias = std::nullopt) {
  static const auto op = find_op<decltype(linear)>("d2lkernels::linear");
  return op.call(input, weight, bias);
}

Tensor call_linear_activation(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                              std::string_view activation) {
  static const auto op = find_op<decltype(linear_activation)>("d2lkernels::linear_activation");
  return op.call(input, weight, bias, activation);
}

// The derivative for one factor needs only the other.
void keep(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
          const Tensor& output, std::string_view activation) {
  ctx->save_for_backward({weight.requires_grad() ? input : Tensor(), input.requires_grad() ? weight : Tensor(),
                          activation == "none" ? Tensor() : output});
  ctx->saved_data["has_bias"] = bias.has_value();
  ctx->saved_data["activation"] = std::string(activation);
}

// The gradients of what was kept, those of the factors by weight_grad(grad, input) and input_grad(grad, weight).
template <typename WeightGrad, typename InputGrad>
variable_list gradients(AutogradContext* ctx, const variable_list& grads, WeightGrad&& weight_grad,
                        InputGrad&& input_grad) {
  variable_list result(4);
  if (!grads[0].defined()) {
    return result;
  }
  const auto saved = ctx->get_saved_variables();
  // needs_input_grad counts the tensors that were passed: an absent bias is not among them.
  const bool needs_bias_grad = ctx->saved_data["has_bias"].toBool() && ctx->needs_input_grad(2);
  const auto [grad, grad_bias] =
      activation_grads(ctx->saved_data["activation"].toStringRef(), needs_bias_grad, grads[0], saved[2]);
  if (needs_bias_grad) result[2] = grad_bias;
  if (ctx->needs_input_grad(1)) {
    result[1] = weight_grad(grad, saved[0]);
  }
  if (ctx->needs_input_grad(0)) {
    const OfferedInput offer(saved[0]);
    result[0] = input_grad(grad, saved[1]);
  }
  return result;
}

// Both ops: linear is called without an activation.
struct Linear : Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        std::optional<std::string_view> fused) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const Tensor output =
        fused.has_value() ? call_linear_activation(input, weight, bias, *fused) : call_linear(input, weight, bias);
    keep(ctx, input, weight, bias, output, fused.value_or("none"));
    return output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return gradients(
        ctx, grads, [](const Tensor& grad, const Tensor& input) { return call_linear(grad.t(), input.t()); },
        [](const Tensor& grad, const Tensor& weight) { return call_linear(grad, weight.t()); });
  }
};

Tensor linear_autograd(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  if (needs_autograd("linear", input, weight, tensor_or_undefined(bias))) {
    return Linear::apply(input, weight, bias, std::nullopt);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_linear(input, weight, bias);
}

Tensor linear_activation_autograd(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                  std::string_view activation) {
  if (needs_autograd(kFusedName, input, weight, tensor_or_undefined(bias))) {
    return Linear::apply(input, weight, bias, activation);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_linear_activation(input, weight, bias, activation);
}

// ---- autocast: like torch's linear, in the lower precision -----------------------------------------------------

// With a large weight of float32, which the products round where they read it, and whose gradient they do not round at
// all: the casts and the copies of such a weight take longer than the products. The bias is of float32 too.
struct LinearOfFloats : Function<LinearOfFloats> {
  static Tensor product(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, Activation activation) {
    const Tensor output = new_tensor({input.size(0), weight.size(0)}, input.options());
    bfloat16_product(input, weight, bias, output, activation);
    return output;
  }

  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        std::string_view activation) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const Tensor output = product(input, weight, bias, activation_of(kFusedName, activation));
    keep(ctx, input, weight, bias, output, activation);
    return output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result = gradients(ctx, grads, weight_grad, input_grad);
    if (result[2].defined()) result[2] = result[2].to(at::kFloat);
    return result;
  }

  static bool is_final(const Tensor& grad) { return !at::GradMode::is_enabled() && is_plain(grad) && !is_watched(); }

  static Tensor weight_grad(const Tensor& grad, const Tensor& input) {
    if (!is_final(grad)) return call_linear(grad.t(), input.t()).to(at::kFloat);
    Tensor result = new_tensor({grad.size(1), input.size(1)}, grad.options().dtype(at::kFloat));
    bfloat16_product(grad.t(), input.t(), std::nullopt, result, Activation::none);
    return result;
  }

  static Tensor input_grad(const Tensor& grad, const Tensor& weight) {
    if (!is_final(grad)) return call_linear(grad, weight.to(at::kBFloat16).t());
    Tensor result = taken_or_empty({grad.size(0), weight.size(1)}, grad.options(), at::MemoryFormat::Contiguous);
    bfloat16_product(grad, weight.t(), std::nullopt, result, Activation::none);
    return result;
  }
};

// Whether those arguments, the input lowered already, are LinearOfFloats's; else, wrong ones among them, they are the
// ordinary op's. Without gradients a weight is often used again, and autocast keeps its cast: for more than a few rows
// the product is what takes the time, and the cast is worth that.
constexpr int64_t kFewRows = 32;

bool suit_floats(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  const auto is_ordinary = [](const Tensor& tensor) { return is_plain(tensor) && !has_tangent(tensor); };
  if (!input.defined() || !weight.defined() || is_watched() || !is_ordinary(input) || !is_ordinary(weight) ||
      !can_be_floats(weight) || input.scalar_type() != at::kBFloat16 || input.dim() != 2 || input.size(0) == 0 ||
      input.size(1) != weight.size(1) || !input.device().is_cpu() || input.layout() != at::kStrided) {
    return false;
  }
  if (bias.has_value() && (!is_ordinary(*bias) || bias->scalar_type() != at::kFloat || !bias->device().is_cpu() ||
                           bias->dim() != 1 || bias->size(0) != weight.size(0))) {
    return false;
  }
  return at::GradMode::is_enabled() || input.size(0) <= kFewRows;
}

Tensor linear_of_floats(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        std::string_view activation) {
  if (needs_autograd(kFusedName, input, weight, tensor_or_undefined(bias))) {
    return LinearOfFloats::apply(input, weight, bias, activation);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return LinearOfFloats::product(input, weight, bias, activation_of(kFusedName, activation));
}

template <c10::DeviceType device, c10::DispatchKey key>
struct Autocast {
  static Tensor linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
    const c10::impl::ExcludeDispatchKeyGuard guard(key);
    const Tensor x = lower(input);
    if (suit_floats(x, weight, bias)) return linear_of_floats(x, weight, bias, "none");
    return call_linear(x, lower(weight), lower(bias));
  }

  static Tensor linear_activation(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                  std::string_view activation) {
    const c10::impl::ExcludeDispatchKeyGuard guard(key);
    const Tensor x = lower(input);
    if (suit_floats(x, weight, bias)) return linear_of_floats(x, weight, bias, activation);
    return call_linear_activation(x, lower(weight), lower(bias), activation);
  }

 private:
  template <typename T>
  static T lower(const T& tensor) {
    return autocast_to_lower_precision(tensor, device);
  }
};

using AutocastCPU = Autocast<c10::DeviceType::CPU, c10::DispatchKey::AutocastCPU>;
using AutocastCUDA = Autocast<c10::DeviceType::CUDA, c10::DispatchKey::AutocastCUDA>;

}  // namespace
}  // namespace d2l

#define D2L_LINEAR_KERNELS(suffix)       \
  m.impl("linear", d2l::linear##suffix); \
  m.impl("linear_activation", d2l::linear_activation##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_LINEAR_KERNELS(); }

TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_LINEAR_KERNELS(); }

TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_LINEAR_KERNELS(_meta); }

TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_LINEAR_KERNELS(_autograd); }

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCPU, m) {
  m.impl("linear", d2l::AutocastCPU::linear);
  m.impl("linear_activation", d2l::AutocastCPU::linear_activation);
}

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCUDA, m) {
  m.impl("linear", d2l::AutocastCUDA::linear);
  m.impl("linear_activation", d2l::AutocastCUDA::linear_activation);
}
