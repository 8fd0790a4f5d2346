// Derivatives of batch normalisation.
//
// The mean and var of batch_norm_train_grad are the statistics of `input`, and its derivatives go through them; those
// of batch_norm_weight_grad, which serves inference too, are constants. The first derivatives are kernels, and
// inference is linear up to its activation; the second derivatives of training are written in ops that are
// differentiable themselves.
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/square.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <vector>

#include "common/autograd.h"
#include "common/function.h"
#include "common/reuse.h"
#include "ops/activation.h"
#include "ops/batch_norm.h"

namespace d2l {
namespace {

using namespace batch_norm;
using at::Tensor;
using c10::SymInt;
using std::string_view;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Trained = std::tuple<Tensor, Tensor, Tensor>;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Trained call_train(const Tensor& input, const OptionalTensor& residual, const Known& known,
                   const OptionalTensor& weight, const OptionalTensor& bias, double eps, string_view activation,
                   const Running* running) {
  using Update = Trained(const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                         const OptionalTensor&, const OptionalTensor&, const Tensor&, const Tensor&,
                         const OptionalTensor&, std::optional<double>, double, string_view);
  using Train = Trained(const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                        const OptionalTensor&, const OptionalTensor&, double, string_view);
  static const auto train = find_op<Train>("d2lkernels::batch_norm_train");
  static const auto update = find_op<Update>("d2lkernels::batch_norm_train_update");
  if (running == nullptr) {
    return train.call(input, residual, known.mean, known.var, weight, bias, eps, activation);
  }
  return update.call(input, residual, known.mean, known.var, weight, bias, running->mean, running->var,
                     running->batches, running->momentum, eps, activation);
}

Tensor call_infer(const Tensor& input, const OptionalTensor& residual, const Tensor& mean, const Tensor& var,
                  const OptionalTensor& weight, const OptionalTensor& bias, double eps, string_view activation) {
  static const auto op = find_op<decltype(call_infer)>("d2lkernels::batch_norm_infer");
  return op.call(input, residual, mean, var, weight, bias, eps, activation);
}

Trained call_train_grad(const Tensor& grad_output, const Tensor& input, const OptionalTensor& output,
                        const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean, const Tensor& var,
                        double eps, string_view activation) {
  static const auto op = find_op<decltype(call_train_grad)>("d2lkernels::batch_norm_train_grad");
  return op.call(grad_output, input, output, weight, bias, mean, var, eps, activation);
}

Gradients call_add_train_grad(const Tensor& grad_output, const Tensor& input, const Tensor& output,
                              const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean,
                              const Tensor& var, double eps, string_view activation) {
  static const auto op = find_op<decltype(call_add_train_grad)>("d2lkernels::batch_norm_add_train_grad");
  return op.call(grad_output, input, output, weight, bias, mean, var, eps, activation);
}

std::tuple<Tensor, Tensor> call_weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& mean,
                                            const Tensor& var, double eps) {
  static const auto op = find_op<decltype(call_weight_grad)>("d2lkernels::batch_norm_weight_grad");
  return op.call(grad_output, input, mean, var, eps);
}

OptionalTensor optional(const Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; }

// Places of the gradients among the results of backward, and whether they are wanted. needs_input_grad counts the
// tensors that were passed.
struct Wanted {
  bool input, residual = false, weight = false, bias = false;

  Wanted(AutogradContext* ctx, int64_t passed, size_t statistics) : input(ctx->needs_input_grad(0)) {
    size_t place = 1;
    if ((passed & kResidual) != 0) residual = ctx->needs_input_grad(place++);
    place += statistics;
    if ((passed & kWeight) != 0) weight = ctx->needs_input_grad(place++);
    if ((passed & kBias) != 0) bias = ctx->needs_input_grad(place++);
  }

  static constexpr int64_t kResidual = 1, kWeight = 2, kBias = 4;
  static int64_t passed(const OptionalTensor& residual, const OptionalTensor& weight, const OptionalTensor& bias) {
    return (residual.has_value() ? kResidual : 0) | (weight.has_value() ? kWeight : 0) | (bias.has_value() ? kBias : 0);
  }
};

// An activation of no residual is differentiated by what the input is normalised to.
bool is_by_input(string_view activation, bool has_residual) { return activation != "none" && !has_residual; }

// ---- training --------------------------------------------------------------------------------------------------

struct BatchNormTrain : Function<BatchNormTrain> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, const OptionalTensor& residual,
                               const Known* known, const OptionalTensor& weight, const OptionalTensor& bias, double eps,
                               string_view activation, const Running* running) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, mean, var] = call_train(input, residual, *known, weight, bias, eps, activation, running);
    const bool by_input = is_by_input(activation, residual.has_value());
    const bool by_output = activation != "none" && !by_input;
    ctx->save_for_backward({input, by_output ? output : Tensor(), tensor_or_undefined(weight),
                            by_input ? tensor_or_undefined(bias) : Tensor(), mean, var});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["activation"] = std::string(activation);
    ctx->saved_data["passed"] = Wanted::passed(residual, weight, bias);
    ctx->mark_non_differentiable({mean, var});
    ctx->set_materialize_grads(false);
    return {output, mean, var};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(8);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const Tensor &input = saved[0], &output = saved[1], &mean = saved[4], &var = saved[5];
    const double eps = ctx->saved_data["eps"].toDouble();
    const std::string activation = ctx->saved_data["activation"].toStringRef();
    const Wanted wanted(ctx, ctx->saved_data["passed"].toInt(), 0);
    Tensor grad_input, grad_weight, grad_bias, grad_residual;
    if (wanted.residual && activation == "none") {
      grad_residual = grads[0];
    }
    const OfferedGradient offered_gradient(grads[0]);  // but for such a residual
    const OfferedInput offered_input(input);
    if (wanted.residual && activation != "none") {
      std::tie(grad_input, grad_weight, grad_bias, grad_residual) = call_add_train_grad(
          grads[0], input, output, optional(saved[2]), optional(saved[3]), mean, var, eps, activation);
    } else if (wanted.input || activation != "none") {
      std::tie(grad_input, grad_weight, grad_bias) = call_train_grad(
          grads[0], input, optional(output), optional(saved[2]), optional(saved[3]), mean, var, eps, activation);
    } else if (wanted.weight || wanted.bias) {
      std::tie(grad_weight, grad_bias) = call_weight_grad(grads[0], input, mean, var, eps);
    }
    if (wanted.input) result[0] = grad_input;
    if (wanted.residual) result[1] = grad_residual;
    if (wanted.weight) result[3] = grad_weight;  // the engine gives them the dtypes of the parameters
    if (wanted.bias) result[4] = grad_bias;
    return result;
  }
};

// The derivatives go through statistics that are known before as through all others: as functions of the input.
Trained train_autograd(const char* op, const Tensor& input, const OptionalTensor& residual, const Known& known,
                       const OptionalTensor& weight, const OptionalTensor& bias, double eps, string_view activation,
                       const Running* running) {
  if (needs_autograd(op, input, tensor_or_undefined(residual), tensor_or_undefined(weight),
                     tensor_or_undefined(bias))) {
    const auto outputs = BatchNormTrain::apply(input, residual, &known, weight, bias, eps, activation, running);
    return {outputs[0], outputs[1], outputs[2]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_train(input, residual, known, weight, bias, eps, activation, running);
}

Trained batch_norm_train_autograd(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& mean,
                                  const OptionalTensor& var, const OptionalTensor& weight, const OptionalTensor& bias,
                                  double eps, string_view activation) {
  return train_autograd("batch_norm_train", input, residual, {mean, var}, weight, bias, eps, activation, nullptr);
}

Trained batch_norm_train_update_autograd(const Tensor& input, const OptionalTensor& residual,
                                         const OptionalTensor& mean, const OptionalTensor& var,
                                         const OptionalTensor& weight, const OptionalTensor& bias,
                                         const Tensor& running_mean, const Tensor& running_var,
                                         const OptionalTensor& batches, std::optional<double> momentum, double eps,
                                         string_view activation) {
  const char* op = "batch_norm_train_update";
  const Running running{running_mean, running_var, batches, momentum};
  if (needs_autograd(op, running_mean, running_var)) {
    const char* name = name_of(activation_of("batch_norm", activation), residual.has_value());
    check_train<SymInt>(name, input, residual, {mean, var}, weight, bias);
    check_running<SymInt>(name, running, input);
    TORCH_CHECK_NOT_IMPLEMENTED(false, name,
                                "(): expected running_mean and running_var not to require grad, but got some that do");
  }
  auto result = train_autograd(op, input, residual, {mean, var}, weight, bias, eps, activation, &running);
  for (const Tensor& written : {running_mean, running_var, tensor_or_undefined(batches)}) {
    if (written.defined() && !written.is_inference()) {
      written.unsafeGetTensorImpl()->bump_version();
    }
  }
  return result;
}

// ---- inference -------------------------------------------------------------------------------------------------

struct BatchNormInfer : Function<BatchNormInfer> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const OptionalTensor& residual, const Tensor& mean,
                        const Tensor& var, const OptionalTensor& weight, const OptionalTensor& bias, double eps,
                        string_view activation) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    Tensor output = call_infer(input, residual, mean, var, weight, bias, eps, activation);
    ctx->save_for_backward({input, activation == "none" ? Tensor() : output, tensor_or_undefined(weight), mean, var});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["activation"] = std::string(activation);
    ctx->saved_data["passed"] = Wanted::passed(residual, weight, bias);
    return output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(8);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const Tensor &input = saved[0], &mean = saved[3], &var = saved[4];
    const double eps = ctx->saved_data["eps"].toDouble();
    const std::string activation = ctx->saved_data["activation"].toStringRef();
    const Wanted wanted(ctx, ctx->saved_data["passed"].toInt(), 2);
    const OfferedGradient offer(grads[0]);
    const Tensor gradient = activation_input_grad(activation_of("batch_norm", activation), grads[0], saved[1]);
    if (wanted.input) {
      result[0] = call_infer(gradient.contiguous(format_of(input)), std::nullopt, at::zeros_like(mean), var,
                             optional(saved[2]), std::nullopt, eps, "none");
    }
    if (wanted.residual) result[1] = gradient;
    if (wanted.weight || wanted.bias) {
      const auto [grad_weight, grad_bias] = call_weight_grad(gradient, input, mean, var, eps);
      if (wanted.weight) result[4] = grad_weight;
      if (wanted.bias) result[5] = grad_bias;
    }
    return result;
  }
};

Tensor batch_norm_infer_autograd(const Tensor& input, const OptionalTensor& residual, const Tensor& mean,
                                 const Tensor& var, const OptionalTensor& weight, const OptionalTensor& bias,
                                 double eps, string_view activation) {
  if (needs_autograd("batch_norm_infer", mean, var)) {
    const char* op = name_of(activation_of("batch_norm", activation), residual.has_value());
    check_infer<SymInt>(op, input, residual, mean, var, weight, bias);
    TORCH_CHECK_NOT_IMPLEMENTED(false, op,
                                "(): expected running_mean and running_var not to require grad, but got some that do");
  }
  if (needs_autograd("batch_norm_infer", input, tensor_or_undefined(residual), tensor_or_undefined(weight),
                     tensor_or_undefined(bias))) {
    return BatchNormInfer::apply(input, residual, mean, var, weight, bias, eps, activation);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_infer(input, residual, mean, var, weight, bias, eps, activation);
}

// ---- second derivatives: the first ones again, in ops that are differentiable ------------------------------------

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

// An output that is differentiated by leads on to what it was computed from: its own graph.
Gradients differentiable_train_grad(const Tensor& grad_output, const Tensor& input, const OptionalTensor& output,
                                    const OptionalTensor& weight, const OptionalTensor& bias, double eps,
                                    string_view activation_name) {
  const auto activation = activation_of("batch_norm", activation_name);
  const auto dtype = compute_dtype(input);
  const auto axes = axes_but_channels(input);
  const Tensor x = input.to(dtype), distance = at::sub(x, x.mean(axes, true));
  const Tensor inverse = at::rsqrt(at::square(distance).mean(axes, true).add(eps)), z = at::mul(distance, inverse);
  const Tensor scale = weight.has_value() ? along_channels(weight->to(dtype), input) : Tensor();
  Tensor through = grad_output;
  if (activation != Activation::none) {
    Tensor y = tensor_or_undefined(output);
    if (!y.defined()) {
      y = scale.defined() ? at::mul(z, scale) : z;
      if (bias.has_value()) y = at::add(y, along_channels(bias->to(dtype), input));
      y = activated(activation, y.to(input.scalar_type()));
    }
    through = activation_input_grad(activation, grad_output, y);
  }
  const Tensor dy = through.to(dtype), product = at::mul(dy, z);
  const Tensor grad_input = at::mul(at::sub(at::sub(dy, dy.mean(axes, true)), at::mul(z, product.mean(axes, true))),
                                    scale.defined() ? at::mul(inverse, scale) : inverse);
  return {grad_input.to(input.scalar_type()), product.sum(axes), dy.sum(axes), through};
}

Trained batch_norm_train_grad_autograd(const Tensor& grad_output, const Tensor& input, const OptionalTensor& output,
                                       const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean,
                                       const Tensor& var, double eps, string_view activation) {
  const char* op = "batch_norm_train_grad";
  if (!needs_autograd(op, grad_output, input, tensor_or_undefined(output), tensor_or_undefined(weight),
                      tensor_or_undefined(bias))) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_train_grad(grad_output, input, output, weight, bias, mean, var, eps, activation);
  }
  check_gradients<SymInt>(op, grad_output, input, output, weight, bias, mean, var);
  auto [grad_input, grad_weight, grad_bias, through] =
      differentiable_train_grad(grad_output, input, output, weight, bias, eps, activation);
  return {grad_input, grad_weight, grad_bias};
}

Gradients batch_norm_add_train_grad_autograd(const Tensor& grad_output, const Tensor& input, const Tensor& output,
                                             const OptionalTensor& weight, const OptionalTensor& bias,
                                             const Tensor& mean, const Tensor& var, double eps,
                                             string_view activation) {
  const char* op = "batch_norm_add_train_grad";
  if (!needs_autograd(op, grad_output, input, output, tensor_or_undefined(weight), tensor_or_undefined(bias))) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_add_train_grad(grad_output, input, output, weight, bias, mean, var, eps, activation);
  }
  check_gradients<SymInt>(op, grad_output, input, output, weight, bias, mean, var);
  return differentiable_train_grad(grad_output, input, output, weight, bias, eps, activation);
}

std::tuple<Tensor, Tensor> batch_norm_weight_grad_autograd(const Tensor& grad_output, const Tensor& input,
                                                           const Tensor& mean, const Tensor& var, double eps) {
  const char* op = "batch_norm_weight_grad";
  if (!needs_autograd(op, grad_output, input)) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_weight_grad(grad_output, input, mean, var, eps);
  }
  check_gradients<SymInt>(op, grad_output, input, std::nullopt, std::nullopt, std::nullopt, mean, var);
  const auto dtype = compute_dtype(input);
  const auto axes = axes_but_channels(input);
  const Tensor inverse = at::rsqrt(var.to(at::kDouble).add(eps)).to(dtype), dy = grad_output.to(dtype);
  const Tensor distance = at::sub(input.to(at::kDouble), along_channels(mean, input)).to(dtype);
  return {at::mul(at::mul(dy, distance).sum(axes), inverse), dy.sum(axes)};
}

}  // namespace
}  // namespace d2l

TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) {
  m.impl("batch_norm_train", d2l::batch_norm_train_autograd);
  m.impl("batch_norm_train_update", d2l::batch_norm_train_update_autograd);
  m.impl("batch_norm_infer", d2l::batch_norm_infer_autograd);
  m.impl("batch_norm_train_grad", d2l::batch_norm_train_grad_autograd);
  m.impl("batch_norm_add_train_grad", d2l::batch_norm_add_train_grad_autograd);
  m.impl("batch_norm_weight_grad", d2l::batch_norm_weight_grad_autograd);
}
