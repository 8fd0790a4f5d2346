// Batch normalisation: checks, allocation, kernels for CPU, CUDA and Meta, autograd.
//
// The mean and var of batch_norm_train_grad are the statistics of `input`, and its derivatives go through them; those
// of batch_norm_weight_grad, which serves inference too, are constants. The first derivatives are kernels, and
// inference is linear; the second derivatives of training are written in torch's own ops.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/square.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "kernels/cpu/batch_norm.h"
#include "kernels/cuda/batch_norm.h"

namespace d2l {
namespace {

using at::Tensor;
using c10::SymInt;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kName = "batch_norm";
constexpr const char* kTrainGradName = "batch_norm_train_grad";
constexpr const char* kWeightGradName = "batch_norm_weight_grad";

// ---- checks ----------------------------------------------------------------------------------------------------

void check_map(const char* op, const char* argument, const Tensor& map) {
  TORCH_CHECK_VALUE(map.dim() >= 2, op, "(): expected ", argument, " to be at least 2-D (N, C, ...), but got a ",
                    map.dim(), "-D tensor of size ", map.sym_sizes());
  check_floating(op, argument, map);
  check_strided(op, argument, map);
}

// Statistics are float64 unless maps are 16-bit: see kernels/cuda/batch_norm.h.
at::ScalarType statistics_dtype(const Tensor& input) { return is_16_bit(input) ? at::kFloat : at::kDouble; }
at::ScalarType compute_dtype(const Tensor& input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// One value per channel of `input`. 16-bit maps may have float32 parameters; statistics may be what training returns.
template <typename Int>
void check_channels(const char* op, const char* argument, const OptionalTensor& values, const Tensor& input,
                    bool are_statistics = false) {
  if (!values.has_value()) {
    return;
  }
  const Int& channels = sizes_of<Int>(input)[1];
  TORCH_CHECK_VALUE(values->dim() == 1 && sizes_of<Int>(*values)[0] == channels, op, "(): expected ", argument,
                    " to have size [", channels, "] (one value per channel of input), but got ",
                    sizes_of<Int>(*values));
  const auto dtype = values->scalar_type();
  TORCH_CHECK_TYPE(dtype == input.scalar_type() || (is_16_bit(input) && dtype == at::kFloat) ||
                       (are_statistics && dtype == statistics_dtype(input)),
                   op, "(): expected ", argument, " to have the dtype of input (", input.scalar_type(), ")",
                   is_16_bit(input) ? " or Float" : "", ", but got ", dtype);
  check_same_device(op, argument, *values, "input", input);
}

template <typename Int>
void check_train(const Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias) {
  check_map(kName, "input", input);
  Int values = sizes_of<Int>(input)[0];
  for (int64_t axis = 2; axis < input.dim(); ++axis) {
    values = values * sizes_of<Int>(input)[axis];
  }
  TORCH_CHECK_VALUE(values != 1, kName, "(): expected input to have more than one value per channel in training, ",
                    "but got a tensor of size ", sizes_of<Int>(input));
  check_channels<Int>(kName, "weight", weight, input);
  check_channels<Int>(kName, "bias", bias, input);
}

template <typename Int>
void check_infer(const Tensor& input, const Tensor& mean, const Tensor& var, const OptionalTensor& weight,
                 const OptionalTensor& bias) {
  check_map(kName, "input", input);
  check_channels<Int>(kName, "running_mean", mean, input, true);
  check_channels<Int>(kName, "running_var", var, input, true);
  check_channels<Int>(kName, "weight", weight, input);
  check_channels<Int>(kName, "bias", bias, input);
}

template <typename Int>
void check_gradients(const char* op, const Tensor& grad_output, const Tensor& input, const OptionalTensor& weight,
                     const Tensor& mean, const Tensor& var) {
  check_map(op, "input", input);
  TORCH_CHECK_VALUE(sizes_of<Int>(grad_output) == sizes_of<Int>(input), op, "(): expected grad_output to have size ",
                    sizes_of<Int>(input), ", but got ", sizes_of<Int>(grad_output));
  check_same_dtype(op, "grad_output", grad_output, "input", input);
  check_same_device(op, "grad_output", grad_output, "input", input);
  check_channels<Int>(op, "weight", weight, input);
  check_channels<Int>(op, "mean", mean, input, true);
  check_channels<Int>(op, "var", var, input, true);
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

BatchNormShape shape_of(const Tensor& input) {
  const int64_t N = input.size(0), C = input.size(1);
  int64_t pixels = 1;
  for (const int64_t size : input.sizes().slice(2)) {
    pixels *= size;
  }
  return {.N = N, .C = C, .pixels = pixels};
}

at::MemoryFormat format_of(const Tensor& input) { return input.suggest_memory_format(); }

// Of maps of one pixel there is only one layout, and the other kernels need long planes.
Layout layout_of(const Tensor& input, const BatchNormShape& shape) {
  return format_of(input) != at::MemoryFormat::Contiguous || shape.pixels == 1 ? Layout::nhwc : Layout::nchw;
}

Tensor empty_map(const Tensor& input) {
  return at::empty(input.sizes(), input.options().memory_format(format_of(input)));
}

Tensor empty_channels(const Tensor& input, at::ScalarType dtype) {
  return at::empty({input.size(1)}, input.options().dtype(dtype));
}

// Statistics as the CPU kernels take them.
class Doubles {
 public:
  explicit Doubles(const OptionalTensor& tensor) : given_(tensor.has_value()) {
    if (!given_) {
      return;
    }
    switch (tensor->scalar_type()) {
      case at::kDouble:
        read<double>(*tensor);
        break;
      case at::kBFloat16:
        read<at::BFloat16>(*tensor);
        break;
      case at::kHalf:
        read<at::Half>(*tensor);
        break;
      default:
        read<float>(*tensor);
    }
  }
  const double* get() const { return given_ ? values_.data() : nullptr; }

 private:
  template <typename T>
  void read(const Tensor& tensor) {
    const T* from = tensor.const_data_ptr<T>();
    const int64_t stride = tensor.stride(0);
    values_.resize(static_cast<size_t>(tensor.size(0)));
    for (size_t i = 0; i < values_.size(); ++i) {
      values_[i] = static_cast<double>(from[static_cast<int64_t>(i) * stride]);
    }
  }

  bool given_;
  std::vector<double> values_;
};

// What there is one of per channel, in one dtype. Kept alive by the caller.
class Channels {
 public:
  Channels(const OptionalTensor& tensor, at::ScalarType dtype) {
    if (tensor.has_value()) {
      values_ = tensor->to(dtype).contiguous();
    }
  }
  const void* get() const { return values_.defined() ? values_.const_data_ptr() : nullptr; }
  template <typename T>
  const T* get() const {
    return static_cast<const T*>(get());
  }

 private:
  Tensor values_;
};

OptionalTensor to_float(const OptionalTensor& tensor) {
  return tensor.has_value() ? OptionalTensor(tensor->to(at::kFloat)) : std::nullopt;
}

template <typename T>
void write_channels(const std::vector<double>& values, Tensor& to) {
  std::transform(values.begin(), values.end(), to.mutable_data_ptr<T>(),
                 [](double value) { return static_cast<T>(value); });
}

Tensor workspace_for(const Tensor& input, const BatchNormShape& shape, Layout layout) {
  return at::empty({cuda::batch_norm_workspace(shape, layout, cuda_dtype(input))}, input.options().dtype(at::kByte));
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_train(const Tensor& input, const OptionalTensor& weight,
                                                    const OptionalTensor& bias, double eps) {
  check_train<int64_t>(input, weight, bias);
  const auto shape = shape_of(input);
  const auto layout = layout_of(input, shape);
  Tensor mean = empty_channels(input, statistics_dtype(input)), var = at::empty_like(mean);
  if (input.numel() == 0) {
    return {empty_map(input), mean.zero_(), var.zero_()};
  }
  D2L_ON_CUDA(kName, input) {
    const DeviceScope device(input);
    const Tensor x = input.contiguous(format_of(input)), workspace = workspace_for(x, shape, layout);
    const Channels scale(weight, compute_dtype(x)), shift(bias, compute_dtype(x));
    Tensor output = empty_map(input);
    check_launch(kName, input,
                 cuda::batch_norm_train(shape, layout, cuda_dtype(x), eps, x.const_data_ptr(), scale.get(), shift.get(),
                                        output.mutable_data_ptr(), mean.mutable_data_ptr(), var.mutable_data_ptr(),
                                        workspace.mutable_data_ptr(), device.stream()));
    return {output, mean, var};
  }
  if (is_16_bit(input)) {
    const auto [output, wide_mean, wide_var] =
        batch_norm_train(input.to(at::kFloat), to_float(weight), to_float(bias), eps);
    return {output.to(input.scalar_type()), wide_mean.to(at::kFloat), wide_var.to(at::kFloat)};
  }
  const Tensor x = input.contiguous(format_of(input));
  const Channels scale(weight, x.scalar_type()), shift(bias, x.scalar_type());
  Tensor output = empty_map(input);
  visit_cpu_dtype(x, [&](auto scalar) {
    using T = decltype(scalar);
    const cpu::Normalization<T> by{eps, nullptr, nullptr, scale.get<T>(), shift.get<T>()};
    cpu::batch_norm_train<T>(shape, layout, by, {x.const_data_ptr<T>()}, {}, {output.mutable_data_ptr<T>()},
                             mean.mutable_data_ptr<double>(), var.mutable_data_ptr<double>());
  });
  return {output, mean, var};
}

Tensor batch_norm_infer(const Tensor& input, const Tensor& mean, const Tensor& var, const OptionalTensor& weight,
                        const OptionalTensor& bias, double eps) {
  check_infer<int64_t>(input, mean, var, weight, bias);
  const auto shape = shape_of(input);
  const auto layout = layout_of(input, shape);
  if (input.numel() == 0) {
    return empty_map(input);
  }
  D2L_ON_CUDA(kName, input) {
    const DeviceScope device(input);
    const Tensor x = input.contiguous(format_of(input));
    const bool wide = mean.scalar_type() == at::kDouble || var.scalar_type() == at::kDouble;
    const auto statistics = wide ? at::kDouble : at::kFloat;
    const Channels means(mean, statistics), vars(var, statistics);
    const Channels scale(weight, compute_dtype(x)), shift(bias, compute_dtype(x));
    Tensor output = empty_map(input);
    check_launch(kName, input,
                 cuda::batch_norm_infer(shape, layout, cuda_dtype(x), eps, x.const_data_ptr(), means.get(), vars.get(),
                                        wide, scale.get(), shift.get(), output.mutable_data_ptr(), device.stream()));
    return output;
  }
  if (is_16_bit(input)) {
    const Tensor wide = batch_norm_infer(input.to(at::kFloat), mean.to(at::kFloat), var.to(at::kFloat),
                                         to_float(weight), to_float(bias), eps);
    return wide.to(input.scalar_type());
  }
  const Tensor x = input.contiguous(format_of(input));
  const Doubles means(mean), vars(var);
  const Channels scale(weight, x.scalar_type()), shift(bias, x.scalar_type());
  Tensor output = empty_map(input);
  visit_cpu_dtype(x, [&](auto scalar) {
    using T = decltype(scalar);
    const cpu::Normalization<T> by{eps, means.get(), vars.get(), scale.get<T>(), shift.get<T>()};
    cpu::batch_norm_apply<T>(shape, layout, by, {x.const_data_ptr<T>()}, {}, {output.mutable_data_ptr<T>()});
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_train_grad(const Tensor& grad_output, const Tensor& input,
                                                         const OptionalTensor& weight, const Tensor& mean,
                                                         const Tensor& var, double eps) {
  const char* op = kTrainGradName;
  check_gradients<int64_t>(op, grad_output, input, weight, mean, var);
  const auto shape = shape_of(input);
  const auto layout = layout_of(input, shape);
  Tensor grad_weight = empty_channels(input, compute_dtype(input)), grad_bias = at::empty_like(grad_weight);
  if (input.numel() == 0) {
    return {empty_map(input), grad_weight.zero_(), grad_bias.zero_()};
  }
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = input.contiguous(format_of(input)), dy = grad_output.contiguous(format_of(input));
    const Tensor workspace = workspace_for(x, shape, layout);
    const Channels means(mean, statistics_dtype(x)), vars(var, statistics_dtype(x)), scale(weight, compute_dtype(x));
    Tensor grad_input = empty_map(input);
    check_launch(op, input,
                 cuda::batch_norm_train_grad(shape, layout, cuda_dtype(x), eps, dy.const_data_ptr(), x.const_data_ptr(),
                                             scale.get(), means.get(), vars.get(), grad_input.mutable_data_ptr(),
                                             grad_weight.mutable_data_ptr(), grad_bias.mutable_data_ptr(),
                                             workspace.mutable_data_ptr(), device.stream()));
    return {grad_input, grad_weight, grad_bias};
  }
  if (is_16_bit(input)) {
    auto [grad_input, wide_weight, wide_bias] =
        batch_norm_train_grad(grad_output.to(at::kFloat), input.to(at::kFloat), to_float(weight), mean, var, eps);
    return {grad_input.to(input.scalar_type()), wide_weight, wide_bias};
  }
  const Tensor x = input.contiguous(format_of(input)), dy = grad_output.contiguous(format_of(input));
  const Doubles means(mean), vars(var);
  const Channels scale(weight, x.scalar_type());
  Tensor grad_input = empty_map(input);
  visit_cpu_dtype(x, [&](auto scalar) {
    using T = decltype(scalar);
    std::vector<double> dw(static_cast<size_t>(shape.C)), db(dw.size());
    const cpu::Normalization<T> by{eps, means.get(), vars.get(), scale.get<T>(), nullptr};
    cpu::batch_norm_train_grad<T>(shape, layout, by, {{dy.const_data_ptr<T>()}, {x.const_data_ptr<T>()}},
                                  {grad_input.mutable_data_ptr<T>()}, dw.data(), db.data());
    write_channels<T>(dw, grad_weight);
    write_channels<T>(db, grad_bias);
  });
  return {grad_input, grad_weight, grad_bias};
}

std::tuple<Tensor, Tensor> batch_norm_weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& mean,
                                                  const Tensor& var, double eps) {
  const char* op = kWeightGradName;
  check_gradients<int64_t>(op, grad_output, input, std::nullopt, mean, var);
  const auto shape = shape_of(input);
  const auto layout = layout_of(input, shape);
  Tensor grad_weight = empty_channels(input, compute_dtype(input)), grad_bias = at::empty_like(grad_weight);
  if (input.numel() == 0) {
    return {grad_weight.zero_(), grad_bias.zero_()};
  }
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = input.contiguous(format_of(input)), dy = grad_output.contiguous(format_of(input));
    const Tensor workspace = workspace_for(x, shape, layout);
    const Channels means(mean, statistics_dtype(x)), vars(var, statistics_dtype(x));
    check_launch(
        op, input,
        cuda::batch_norm_weight_grad(shape, layout, cuda_dtype(x), eps, dy.const_data_ptr(), x.const_data_ptr(),
                                     means.get(), vars.get(), grad_weight.mutable_data_ptr(),
                                     grad_bias.mutable_data_ptr(), workspace.mutable_data_ptr(), device.stream()));
    return {grad_weight, grad_bias};
  }
  if (is_16_bit(input)) {
    return batch_norm_weight_grad(grad_output.to(at::kFloat), input.to(at::kFloat), mean.to(at::kFloat),
                                  var.to(at::kFloat), eps);
  }
  const Tensor x = input.contiguous(format_of(input)), dy = grad_output.contiguous(format_of(input));
  const Doubles means(mean), vars(var);
  visit_cpu_dtype(x, [&](auto scalar) {
    using T = decltype(scalar);
    std::vector<double> dw(static_cast<size_t>(shape.C)), db(dw.size());
    const cpu::Normalization<T> by{eps, means.get(), vars.get(), nullptr, nullptr};
    cpu::batch_norm_grad_sums<T>(shape, layout, by, {{dy.const_data_ptr<T>()}, {x.const_data_ptr<T>()}}, dw.data(),
                                 db.data());
    write_channels<T>(dw, grad_weight);
    write_channels<T>(db, grad_bias);
  });
  return {grad_weight, grad_bias};
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor map_meta(const Tensor& input) {
  return at::empty_symint(input.sym_sizes(), input.options().memory_format(format_of(input)));
}

Tensor channels_meta(const Tensor& input, at::ScalarType dtype) {
  return at::empty_symint({input.sym_size(1)}, input.options().dtype(dtype));
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_train_meta(const Tensor& input, const OptionalTensor& weight,
                                                         const OptionalTensor& bias, double) {
  check_train<SymInt>(input, weight, bias);
  const auto dtype = statistics_dtype(input);
  return {map_meta(input), channels_meta(input, dtype), channels_meta(input, dtype)};
}

Tensor batch_norm_infer_meta(const Tensor& input, const Tensor& mean, const Tensor& var, const OptionalTensor& weight,
                             const OptionalTensor& bias, double) {
  check_infer<SymInt>(input, mean, var, weight, bias);
  return map_meta(input);
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_train_grad_meta(const Tensor& grad_output, const Tensor& input,
                                                              const OptionalTensor& weight, const Tensor& mean,
                                                              const Tensor& var, double) {
  check_gradients<SymInt>(kTrainGradName, grad_output, input, weight, mean, var);
  const auto dtype = compute_dtype(input);
  return {map_meta(input), channels_meta(input, dtype), channels_meta(input, dtype)};
}

std::tuple<Tensor, Tensor> batch_norm_weight_grad_meta(const Tensor& grad_output, const Tensor& input,
                                                       const Tensor& mean, const Tensor& var, double) {
  check_gradients<SymInt>(kWeightGradName, grad_output, input, std::nullopt, mean, var);
  const auto dtype = compute_dtype(input);
  return {channels_meta(input, dtype), channels_meta(input, dtype)};
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

auto call_train(const Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias, double eps) {
  static const auto op = find_op<decltype(batch_norm_train)>("d2lkernels::batch_norm_train");
  return op.call(input, weight, bias, eps);
}

Tensor call_infer(const Tensor& input, const Tensor& mean, const Tensor& var, const OptionalTensor& weight,
                  const OptionalTensor& bias, double eps) {
  static const auto op = find_op<decltype(batch_norm_infer)>("d2lkernels::batch_norm_infer");
  return op.call(input, mean, var, weight, bias, eps);
}

auto call_train_grad(const Tensor& grad_output, const Tensor& input, const OptionalTensor& weight, const Tensor& mean,
                     const Tensor& var, double eps) {
  static const auto op = find_op<decltype(batch_norm_train_grad)>("d2lkernels::batch_norm_train_grad");
  return op.call(grad_output, input, weight, mean, var, eps);
}

auto call_weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& mean, const Tensor& var,
                      double eps) {
  static const auto op = find_op<decltype(batch_norm_weight_grad)>("d2lkernels::batch_norm_weight_grad");
  return op.call(grad_output, input, mean, var, eps);
}

OptionalTensor optional(const Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; }

// Weight and bias: whether they were passed, whether they need a gradient, and that in their dtype. needs_input_grad
// counts the tensors that were passed.
struct Parameters {
  bool has_weight, has_bias;
  size_t place_of_weight;

  static Parameters load(AutogradContext* ctx, size_t place_of_weight) {
    return {ctx->saved_data["has_weight"].toBool(), ctx->saved_data["has_bias"].toBool(), place_of_weight};
  }
  static void save(AutogradContext* ctx, const OptionalTensor& weight, const OptionalTensor& bias) {
    ctx->saved_data["has_weight"] = weight.has_value();
    ctx->saved_data["has_bias"] = bias.has_value();
    if (weight.has_value()) ctx->saved_data["weight_dtype"] = weight->scalar_type();
    if (bias.has_value()) ctx->saved_data["bias_dtype"] = bias->scalar_type();
  }
  bool weight_needs_grad(AutogradContext* ctx) const { return has_weight && ctx->needs_input_grad(place_of_weight); }
  bool bias_needs_grad(AutogradContext* ctx) const {
    return has_bias && ctx->needs_input_grad(place_of_weight + (has_weight ? 1 : 0));
  }
  void set(AutogradContext* ctx, const Tensor& grad_weight, const Tensor& grad_bias, Tensor& weight_result,
           Tensor& bias_result) const {
    if (weight_needs_grad(ctx)) weight_result = grad_weight.to(ctx->saved_data["weight_dtype"].toScalarType());
    if (bias_needs_grad(ctx)) bias_result = grad_bias.to(ctx->saved_data["bias_dtype"].toScalarType());
  }
};

struct BatchNormTrain : torch::autograd::Function<BatchNormTrain> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, const OptionalTensor& weight,
                               const OptionalTensor& bias, double eps) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, mean, var] = call_train(input, weight, bias, eps);
    ctx->save_for_backward({input, tensor_or_undefined(weight), mean, var});
    ctx->saved_data["eps"] = eps;
    Parameters::save(ctx, weight, bias);
    ctx->mark_non_differentiable({mean, var});
    return {output, mean, var};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(4);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const double eps = ctx->saved_data["eps"].toDouble();
    const auto parameters = Parameters::load(ctx, 1);
    if (ctx->needs_input_grad(0)) {
      auto [grad_input, grad_weight, grad_bias] =
          call_train_grad(grads[0], saved[0], optional(saved[1]), saved[2], saved[3], eps);
      result[0] = grad_input;
      parameters.set(ctx, grad_weight, grad_bias, result[1], result[2]);
    } else {
      auto [grad_weight, grad_bias] = call_weight_grad(grads[0], saved[0], saved[2], saved[3], eps);
      parameters.set(ctx, grad_weight, grad_bias, result[1], result[2]);
    }
    return result;
  }
};

struct BatchNormInfer : torch::autograd::Function<BatchNormInfer> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& mean, const Tensor& var,
                        const OptionalTensor& weight, const OptionalTensor& bias, double eps) {
    ctx->save_for_backward({input, tensor_or_undefined(weight), mean, var});
    ctx->saved_data["eps"] = eps;
    Parameters::save(ctx, weight, bias);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_infer(input, mean, var, weight, bias, eps);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(6);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const double eps = ctx->saved_data["eps"].toDouble();
    const auto parameters = Parameters::load(ctx, 3);
    if (ctx->needs_input_grad(0)) {
      const Tensor grad_output = grads[0].contiguous(format_of(saved[0]));
      result[0] = call_infer(grad_output, at::zeros_like(saved[2]), saved[3], optional(saved[1]), std::nullopt, eps);
    }
    if (parameters.weight_needs_grad(ctx) || parameters.bias_needs_grad(ctx)) {
      auto [grad_weight, grad_bias] = call_weight_grad(grads[0], saved[0], saved[2], saved[3], eps);
      parameters.set(ctx, grad_weight, grad_bias, result[3], result[4]);
    }
    return result;
  }
};

std::tuple<Tensor, Tensor, Tensor> batch_norm_train_autograd(const Tensor& input, const OptionalTensor& weight,
                                                             const OptionalTensor& bias, double eps) {
  if (needs_autograd("batch_norm_train", input, tensor_or_undefined(weight), tensor_or_undefined(bias))) {
    const auto outputs = BatchNormTrain::apply(input, weight, bias, eps);
    return {outputs[0], outputs[1], outputs[2]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_train(input, weight, bias, eps);
}

Tensor batch_norm_infer_autograd(const Tensor& input, const Tensor& mean, const Tensor& var,
                                 const OptionalTensor& weight, const OptionalTensor& bias, double eps) {
  if (needs_autograd("batch_norm_infer", mean, var)) {
    check_infer<SymInt>(input, mean, var, weight, bias);
    TORCH_CHECK_NOT_IMPLEMENTED(false, kName,
                                "(): expected running_mean and running_var not to require grad, but got some that do");
  }
  if (needs_autograd("batch_norm_infer", input, tensor_or_undefined(weight), tensor_or_undefined(bias))) {
    return BatchNormInfer::apply(input, mean, var, weight, bias, eps);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_infer(input, mean, var, weight, bias, eps);
}

// ---- second derivatives: the first ones again, in ops that torch differentiates ---------------------------------

std::vector<int64_t> axes_but_channels(const Tensor& input) {
  std::vector<int64_t> axes{0};
  for (int64_t axis = 2; axis < input.dim(); ++axis) {
    axes.push_back(axis);
  }
  return axes;
}

// [C] as [C, 1, ..., 1].
Tensor along_channels(const Tensor& values, const Tensor& input) {
  std::vector<SymInt> size(static_cast<size_t>(input.dim() - 1), 1);
  size[0] = values.sym_size(0);
  return values.view_symint(size);
}

Tensor optional_product(const Tensor& value, const Tensor& weight) {
  return weight.defined() ? at::mul(value, weight) : value;
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_train_grad_autograd(const Tensor& grad_output, const Tensor& input,
                                                                  const OptionalTensor& weight, const Tensor& mean,
                                                                  const Tensor& var, double eps) {
  const Tensor scale = tensor_or_undefined(weight);
  if (!needs_autograd(kTrainGradName, grad_output, input, scale)) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_train_grad(grad_output, input, weight, mean, var, eps);
  }
  check_gradients<SymInt>(kTrainGradName, grad_output, input, weight, mean, var);
  const auto dtype = compute_dtype(input);
  const auto axes = axes_but_channels(input);
  const Tensor x = input.to(dtype), dy = grad_output.to(dtype);
  const Tensor distance = at::sub(x, x.mean(axes, true));
  const Tensor inverse = at::rsqrt(at::square(distance).mean(axes, true).add(eps)), z = at::mul(distance, inverse);
  const Tensor product = at::mul(dy, z);
  const Tensor grad_input =
      at::mul(at::sub(at::sub(dy, dy.mean(axes, true)), at::mul(z, product.mean(axes, true))),
              optional_product(inverse, scale.defined() ? along_channels(scale.to(dtype), input) : scale));
  return {grad_input.to(input.scalar_type()), product.sum(axes), dy.sum(axes)};
}

std::tuple<Tensor, Tensor> batch_norm_weight_grad_autograd(const Tensor& grad_output, const Tensor& input,
                                                           const Tensor& mean, const Tensor& var, double eps) {
  if (!needs_autograd(kWeightGradName, grad_output, input)) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_weight_grad(grad_output, input, mean, var, eps);
  }
  check_gradients<SymInt>(kWeightGradName, grad_output, input, std::nullopt, mean, var);
  const auto dtype = compute_dtype(input);
  const auto axes = axes_but_channels(input);
  const Tensor inverse = at::rsqrt(var.to(at::kDouble).add(eps)).to(dtype), dy = grad_output.to(dtype);
  const Tensor distance = at::sub(input.to(at::kDouble), along_channels(mean, input)).to(dtype);
  return {at::mul(at::mul(dy, distance).sum(axes), inverse), dy.sum(axes)};
}

}  // namespace
}  // namespace d2l

#define D2L_BATCH_NORM_KERNELS(suffix)                                 \
  m.impl("batch_norm_train", d2l::batch_norm_train##suffix);           \
  m.impl("batch_norm_infer", d2l::batch_norm_infer##suffix);           \
  m.impl("batch_norm_train_grad", d2l::batch_norm_train_grad##suffix); \
  m.impl("batch_norm_weight_grad", d2l::batch_norm_weight_grad##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_BATCH_NORM_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_BATCH_NORM_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_BATCH_NORM_KERNELS(_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_BATCH_NORM_KERNELS(_autograd); }
