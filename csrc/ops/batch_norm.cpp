// Batch normalisation, alone or fused with a residual and an activation: allocation, kernels for CPU, CUDA and Meta.
// (Checks are in batch_norm.h, derivatives in batch_norm_autograd.cpp.)
//
// Backward keeps the input, the statistics and, where a residual was added before an activation, the output: without
// one the input tells what the activation was applied to, which is never kept.
#include "ops/batch_norm.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "common/allocate.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/reuse.h"
#include "kernels/cpu/batch_norm.h"
#include "kernels/cuda/batch_norm.h"
#include "ops/activation.h"

namespace d2l {
namespace {

using namespace batch_norm;
using at::Tensor;
using c10::SymInt;
using std::string_view;

constexpr const char* kTrainGradName = "batch_norm_train_grad";
constexpr const char* kAddTrainGradName = "batch_norm_add_train_grad";
constexpr const char* kWeightGradName = "batch_norm_weight_grad";

// ---- memory ----------------------------------------------------------------------------------------------------

BatchNormShape shape_of(const Tensor& input) {
  const int64_t N = input.size(0), C = input.size(1);
  int64_t pixels = 1;
  for (const int64_t size : input.sizes().slice(2)) {
    pixels *= size;
  }
  return {.N = N, .C = C, .pixels = pixels};
}

// Of maps of one pixel there is only one layout, and the other kernels need long planes.
Layout layout_of(const Tensor& input, const BatchNormShape& shape) {
  return format_of(input) != at::MemoryFormat::Contiguous || shape.pixels == 1 ? Layout::nhwc : Layout::nchw;
}

Tensor empty_map(const Tensor& input) {
  return new_tensor(input.sizes(), input.options().memory_format(format_of(input)));
}

Tensor empty_channels(const Tensor& input, at::ScalarType dtype) {
  return new_tensor({input.size(1)}, input.options().dtype(dtype));
}

// Laid out as the output for `input` is; undefined if there is none.
Tensor as_map(const OptionalTensor& map, const Tensor& input) {
  return map.has_value() ? map->contiguous(format_of(input)) : Tensor();
}

const void* data_of(const Tensor& map) { return map.defined() ? map.const_data_ptr() : nullptr; }
template <typename E>
const E* elements_of(const Tensor& map) {
  return map.defined() ? elements<E>(map) : nullptr;
}

// What there is one of per channel, in one dtype. Kept alive by the caller.
class Channels {
 public:
  Channels(const OptionalTensor& tensor, at::ScalarType dtype) {
    if (tensor.has_value()) {
      values_ = (tensor->scalar_type() == dtype ? *tensor : tensor->to(dtype)).contiguous();
    }
  }
  const void* get() const { return data_of(values_); }
  template <typename T>
  const T* get() const {
    return values_.defined() ? values_.const_data_ptr<T>() : nullptr;
  }

 private:
  Tensor values_;
};

OptionalTensor to_float(const OptionalTensor& tensor) {
  return tensor.has_value() ? OptionalTensor(tensor->to(at::kFloat)) : std::nullopt;
}

// `to` is float32 or float64.
void write_channels(const cpu::ChannelArray<double>& values, Tensor& to) {
  visit_cpu_dtype(to, [&](auto scalar) {
    using T = decltype(scalar);
    T* data = to.mutable_data_ptr<T>();
    for (int64_t c = 0; c < values.size(); ++c) {
      data[c] = static_cast<T>(values[c]);
    }
  });
}

Tensor workspace_for(const Tensor& input, const BatchNormShape& shape, Layout layout) {
  return at::empty({cuda::batch_norm_workspace(shape, layout, cuda_dtype(input))}, input.options().dtype(at::kByte));
}

// ---- running statistics ----------------------------------------------------------------------------------------

template <typename T, typename Statistic>
void move_statistic(const Tensor& running, const Tensor& value, double momentum, double factor) {
  T* to = running.mutable_data_ptr<T>();
  const Statistic* from = value.const_data_ptr<Statistic>();
  const int64_t stride = running.stride(0);
  for (int64_t c = 0; c < value.numel(); ++c, to += stride) {
    const double moved = (1 - momentum) * static_cast<double>(*to) + momentum * factor * static_cast<double>(from[c]);
    if constexpr (std::is_same_v<T, double>) {
      *to = moved;
    } else {
      *to = static_cast<T>(static_cast<float>(moved));
    }
  }
}

void move_statistic(const Tensor& running, const Tensor& value, double momentum, double factor) {
  const bool wide = value.scalar_type() == at::kDouble;
  switch (running.scalar_type()) {
    case at::kDouble:
      return move_statistic<double, double>(running, value, momentum, factor);
    case at::kBFloat16:
      return move_statistic<at::BFloat16, float>(running, value, momentum, factor);
    case at::kHalf:
      return move_statistic<at::Half, float>(running, value, momentum, factor);
    default:
      return wide ? move_statistic<float, double>(running, value, momentum, factor)
                  : move_statistic<float, float>(running, value, momentum, factor);
  }
}

// On the CPU. The running variance is the unbiased one.
void move_running(const Running& running, const BatchNormShape& shape, const Tensor& mean, const Tensor& var) {
  double momentum = running.momentum.value_or(0);
  if (running.batches.has_value()) {
    const int64_t batches = ++*running.batches->mutable_data_ptr<int64_t>();
    momentum = running.momentum.value_or(1 / static_cast<double>(batches));
  }
  const double values = static_cast<double>(shape.values());
  move_statistic(running.mean, mean, momentum, 1);
  move_statistic(running.var, var, momentum, values / (values - 1));
}

// ---- training --------------------------------------------------------------------------------------------------

using Trained = std::tuple<Tensor, Tensor, Tensor>;

// What is returned never shares memory with an argument.
Tensor statistics_copy(const Tensor& statistics, at::ScalarType dtype) {
  return at::empty({statistics.size(0)}, statistics.options().dtype(dtype)).copy_(statistics);
}

Trained train_on_cuda(const char* op, const Tensor& input, const OptionalTensor& residual, const Known& known,
                      const OptionalTensor& weight, const OptionalTensor& bias, double eps, Activation activation,
                      const Running* running) {
  const auto shape = shape_of(input);
  const auto layout = layout_of(input, shape);
  const auto dtype = statistics_dtype(input);
  const DeviceScope device(input);
  const Tensor x = as_map(input, input), more = as_map(residual, input);
  const Channels scale(weight, compute_dtype(x)), shift(bias, compute_dtype(x));
  const bool is_known = known.mean.has_value();
  Tensor output = empty_map(input);
  Tensor mean = is_known ? statistics_copy(*known.mean, dtype) : empty_channels(input, dtype);
  Tensor var = is_known ? statistics_copy(*known.var, dtype) : empty_channels(input, dtype);
  Tensor running_mean, running_var;  // contiguous
  cuda::RunningStatistics moved;
  if (running != nullptr) {
    running_mean = running->mean.contiguous(), running_var = running->var.contiguous();
    moved.mean = running_mean.mutable_data_ptr(), moved.var = running_var.mutable_data_ptr();
    moved.wide = running_mean.scalar_type() != x.scalar_type();
    moved.batches = running->batches.has_value() ? running->batches->mutable_data_ptr<int64_t>() : nullptr;
    moved.momentum = running->momentum.value_or(-1);
  }
  if (is_known) {
    check_launch(op, input,
                 cuda::batch_norm_move_running(shape, cuda_dtype(x), mean.const_data_ptr(), var.const_data_ptr(), moved,
                                               device.stream()));
  } else {
    const Tensor workspace = workspace_for(x, shape, layout);
    check_launch(
        op, input,
        cuda::batch_norm_moments(shape, layout, cuda_dtype(x), {x.const_data_ptr()}, mean.mutable_data_ptr(),
                                 var.mutable_data_ptr(), moved, workspace.mutable_data_ptr(), device.stream()));
  }
  const cuda::Normalization by{eps, mean.const_data_ptr(), var.const_data_ptr(), scale.get(), shift.get(), activation};
  check_launch(op, input,
               cuda::batch_norm_apply(shape, layout, cuda_dtype(x), by, {x.const_data_ptr()}, {data_of(more)},
                                      {output.mutable_data_ptr()}, device.stream()));
  if (running != nullptr && !running_mean.is_same(running->mean)) running->mean.copy_(running_mean);
  if (running != nullptr && !running_var.is_same(running->var)) running->var.copy_(running_var);
  return {output, mean, var};
}

// The statistics are float64.
Trained train_on_cpu(const Tensor& input, const OptionalTensor& residual, const Known& known,
                     const OptionalTensor& weight, const OptionalTensor& bias, double eps, Activation activation) {
  const auto shape = shape_of(input);
  const auto layout = layout_of(input, shape);
  const Tensor x = as_map(input, input), more = as_map(residual, input);
  const Channels scale(weight, compute_dtype(x)), shift(bias, compute_dtype(x));
  const bool is_known = known.mean.has_value();
  Tensor output = empty_map(input);
  Tensor mean = is_known ? statistics_copy(*known.mean, at::kDouble) : empty_channels(input, at::kDouble);
  Tensor var = is_known ? statistics_copy(*known.var, at::kDouble) : empty_channels(input, at::kDouble);
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    using T = cpu::computed_t<E>;
    cpu::Normalization<T> by{eps, nullptr, nullptr, scale.get<T>(), shift.get<T>(), activation};
    if (is_known) {
      by.mean = mean.const_data_ptr<double>(), by.var = var.const_data_ptr<double>();
      cpu::batch_norm_apply<E>(shape, layout, by, {elements<E>(x)}, {elements_of<E>(more)},
                               {mutable_elements<E>(output)});
      return;
    }
    cpu::batch_norm_train<E>(shape, layout, by, {elements<E>(x)}, {elements_of<E>(more)}, {mutable_elements<E>(output)},
                             mean.mutable_data_ptr<double>(), var.mutable_data_ptr<double>());
  });
  return {output, mean, var};
}

Trained train(const Tensor& input, const OptionalTensor& residual, const Known& known, const OptionalTensor& weight,
              const OptionalTensor& bias, double eps, string_view activation_name, const Running* running) {
  const auto activation = activation_of("batch_norm", activation_name);
  const char* op = name_of(activation, residual.has_value());
  check_train<int64_t>(op, input, residual, known, weight, bias);
  if (running != nullptr) {
    check_running<int64_t>(op, *running, input);
  }
  if (input.numel() == 0) {
    if (running != nullptr && running->batches.has_value()) {
      running->batches->add_(1);
    }
    Tensor mean = empty_channels(input, statistics_dtype(input)).zero_();
    return {empty_map(input), mean, mean.clone()};
  }
  D2L_ON_CUDA(op, input) { return train_on_cuda(op, input, residual, known, weight, bias, eps, activation, running); }
  const bool by_copies = !is_element_type(input);
  auto [output, mean, var] =
      by_copies ? train_on_cpu(input.to(at::kFloat), to_float(residual), known, weight, bias, eps, activation)
                : train_on_cpu(input, residual, known, weight, bias, eps, activation);
  if (by_copies) output = output.to(input.scalar_type());
  if (is_16_bit(input)) mean = mean.to(at::kFloat), var = var.to(at::kFloat);
  if (running != nullptr) {
    move_running(*running, shape_of(input), mean, var);
  }
  return {output, mean, var};
}

Trained batch_norm_train(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& mean,
                         const OptionalTensor& var, const OptionalTensor& weight, const OptionalTensor& bias,
                         double eps, string_view activation) {
  return train(input, residual, {mean, var}, weight, bias, eps, activation, nullptr);
}

Trained batch_norm_train_update(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& mean,
                                const OptionalTensor& var, const OptionalTensor& weight, const OptionalTensor& bias,
                                const Tensor& running_mean, const Tensor& running_var, const OptionalTensor& batches,
                                std::optional<double> momentum, double eps, string_view activation) {
  const Running running{running_mean, running_var, batches, momentum};
  return train(input, residual, {mean, var}, weight, bias, eps, activation, &running);
}

}  // namespace

ChannelMoments batch_norm::moments_of(const char* op, const Tensor& map) {
  const auto shape = shape_of(map);
  const auto layout = layout_of(map, shape);
  const auto dtype = statistics_dtype(map);
  Tensor mean = empty_channels(map, dtype), var = new_like(mean);
  if (map.numel() == 0) {
    return {mean.zero_(), var.zero_()};
  }
  D2L_ON_CUDA(op, map) {
    const DeviceScope device(map);
    const Tensor x = as_map(map, map), workspace = workspace_for(x, shape, layout);
    check_launch(op, map,
                 cuda::batch_norm_moments(shape, layout, cuda_dtype(x), {x.const_data_ptr()}, mean.mutable_data_ptr(),
                                          var.mutable_data_ptr(), {}, workspace.mutable_data_ptr(), device.stream()));
    return {mean, var};
  }
  if (!is_element_type(map)) {
    const ChannelMoments wide = moments_of(op, map.to(at::kFloat));
    return {wide.mean.to(dtype), wide.var.to(dtype)};
  }
  const Tensor x = as_map(map, map);
  cpu::ChannelArray<double> means(shape.C), vars(shape.C);
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    cpu::batch_norm_moments<E>(shape, layout, {elements<E>(x)}, means.data(), vars.data());
  });
  write_channels(means, mean);
  write_channels(vars, var);
  return {mean, var};
}

namespace {

// ---- inference -------------------------------------------------------------------------------------------------

Tensor batch_norm_infer(const Tensor& input, const OptionalTensor& residual, const Tensor& mean, const Tensor& var,
                        const OptionalTensor& weight, const OptionalTensor& bias, double eps,
                        string_view activation_name) {
  const auto activation = activation_of("batch_norm", activation_name);
  const char* op = name_of(activation, residual.has_value());
  check_infer<int64_t>(op, input, residual, mean, var, weight, bias);
  const auto shape = shape_of(input);
  const auto layout = layout_of(input, shape);
  if (input.numel() == 0) {
    return empty_map(input);
  }
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = as_map(input, input), more = as_map(residual, input);
    const bool wide = mean.scalar_type() == at::kDouble || var.scalar_type() == at::kDouble;
    const auto statistics = wide ? at::kDouble : at::kFloat;
    const Channels means(mean, statistics), vars(var, statistics);
    const Channels scale(weight, compute_dtype(x)), shift(bias, compute_dtype(x));
    Tensor output = empty_map(input);
    const cuda::Normalization by{eps, means.get(), vars.get(), scale.get(), shift.get(), activation, !wide};
    check_launch(op, input,
                 cuda::batch_norm_apply(shape, layout, cuda_dtype(x), by, {x.const_data_ptr()}, {data_of(more)},
                                        {output.mutable_data_ptr()}, device.stream()));
    return output;
  }
  if (!is_element_type(input)) {
    const Tensor wide = batch_norm_infer(input.to(at::kFloat), to_float(residual), mean.to(at::kFloat),
                                         var.to(at::kFloat), to_float(weight), to_float(bias), eps, activation_name);
    return wide.to(input.scalar_type());
  }
  const Tensor x = as_map(input, input), more = as_map(residual, input);
  const Channels means(mean, at::kDouble), vars(var, at::kDouble);
  const Channels scale(weight, compute_dtype(x)), shift(bias, compute_dtype(x));
  Tensor output = empty_map(input);
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    using T = cpu::computed_t<E>;
    const cpu::Normalization<T> by{eps,       means.get<double>(), vars.get<double>(), scale.get<T>(), shift.get<T>(),
                                   activation};
    cpu::batch_norm_apply<E>(shape, layout, by, {elements<E>(x)}, {elements_of<E>(more)},
                             {mutable_elements<E>(output)});
  });
  return output;
}

// ---- gradients -------------------------------------------------------------------------------------------------

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename Int>
Activation check_train_grad(const char* op, const Tensor& grad_output, const Tensor& input,
                            const OptionalTensor& output, const OptionalTensor& weight, const OptionalTensor& bias,
                            const Tensor& mean, const Tensor& var, string_view activation_name) {
  const auto activation = activation_of(op, activation_name);
  check_gradients<Int>(op, grad_output, input, output, weight, bias, mean, var);
  return activation;
}

// Of input, weight and bias, and, where the activation is differentiated by the output, of what it was applied to.
Gradients train_grad(const char* op, const Tensor& grad_output, const Tensor& input, const OptionalTensor& output,
                     const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean, const Tensor& var,
                     double eps, string_view activation_name, bool for_residual) {
  const auto activation =
      check_train_grad<int64_t>(op, grad_output, input, output, weight, bias, mean, var, activation_name);
  const auto shape = shape_of(input);
  const auto layout = layout_of(input, shape);
  const bool by_output = output.has_value() && activation != Activation::none;
  // A ReLU is asked for its sign again.
  const bool leaves_through = by_output || (activation != Activation::none && activation != Activation::relu);
  const Tensor through = taken_or_empty(grad_output, format_of(input));
  Tensor grad_input = for_residual ? taken_or_empty(input, format_of(input)) : through;
  Tensor grad_weight = empty_channels(input, compute_dtype(input)), grad_bias = new_like(grad_weight);
  if (input.numel() == 0) {
    return {grad_input, grad_weight.zero_(), grad_bias.zero_(), through};
  }
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = as_map(input, input), dy = as_map(grad_output, input);
    const Tensor y = by_output ? as_map(output, input) : Tensor(), workspace = workspace_for(x, shape, layout);
    const Channels means(mean, statistics_dtype(x)), vars(var, statistics_dtype(x));
    const Channels scale(weight, compute_dtype(x)), shift(bias, compute_dtype(x));
    cuda::Normalization by{eps, means.get(), vars.get(), scale.get(), shift.get(), activation};
    cuda::NormGradients gradients{{dy.const_data_ptr()}, {x.const_data_ptr()}};
    if (by_output) gradients.output = {y.const_data_ptr()};
    if (leaves_through) gradients.through = {through.mutable_data_ptr()};
    check_launch(
        op, input,
        cuda::batch_norm_grad_sums(shape, layout, cuda_dtype(x), by, gradients, grad_weight.mutable_data_ptr(),
                                   grad_bias.mutable_data_ptr(), workspace.mutable_data_ptr(), device.stream()));
    if (leaves_through) by.activation = Activation::none;
    check_launch(
        op, input,
        cuda::batch_norm_input_grad(shape, layout, cuda_dtype(x), by,
                                    {leaves_through ? through.const_data_ptr() : dy.const_data_ptr()},
                                    {x.const_data_ptr()}, grad_weight.const_data_ptr(), grad_bias.const_data_ptr(),
                                    false, {grad_input.mutable_data_ptr()}, device.stream()));
    return {grad_input, grad_weight, grad_bias, through};
  }
  // What the kernels leave and read again must not be rounded in between: of a ReLU it never is.
  const bool is_rounded_between = is_16_bit(input) && leaves_through && activation != Activation::relu;
  if (!is_element_type(input) || is_rounded_between) {
    const auto [wide_input, wide_weight, wide_bias, wide_through] =
        train_grad(op, grad_output.to(at::kFloat), input.to(at::kFloat), to_float(output), to_float(weight),
                   to_float(bias), mean, var, eps, activation_name, for_residual);
    return {wide_input.to(input.scalar_type()), wide_weight, wide_bias,
            for_residual ? wide_through.to(input.scalar_type()) : wide_through};
  }
  const Tensor x = as_map(input, input), dy = as_map(grad_output, input);
  const Tensor y = by_output ? as_map(output, input) : Tensor();
  const Channels means(mean, at::kDouble), vars(var, at::kDouble);
  const Channels scale(weight, compute_dtype(x)), shift(bias, compute_dtype(x));
  cpu::ChannelArray<double> dw(shape.C), db(shape.C);
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    using T = cpu::computed_t<E>;
    const cpu::Normalization<T> by{eps,       means.get<double>(), vars.get<double>(), scale.get<T>(), shift.get<T>(),
                                   activation};
    cpu::NormGradients<E> gradients{{elements<E>(dy)}, {elements<E>(x)}};
    if (by_output) gradients.output = {elements<E>(y)};
    if (leaves_through) gradients.through = {mutable_elements<E>(through)};
    cpu::batch_norm_train_grad<E>(shape, layout, by, gradients, {mutable_elements<E>(grad_input)}, dw.data(),
                                  db.data());
  });
  write_channels(dw, grad_weight);
  write_channels(db, grad_bias);
  return {grad_input, grad_weight, grad_bias, through};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_train_grad(const Tensor& grad_output, const Tensor& input,
                                                         const OptionalTensor& output, const OptionalTensor& weight,
                                                         const OptionalTensor& bias, const Tensor& mean,
                                                         const Tensor& var, double eps, string_view activation) {
  auto [grad_input, grad_weight, grad_bias, through] =
      train_grad(kTrainGradName, grad_output, input, output, weight, bias, mean, var, eps, activation, false);
  return {grad_input, grad_weight, grad_bias};
}

Gradients batch_norm_add_train_grad(const Tensor& grad_output, const Tensor& input, const Tensor& output,
                                    const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean,
                                    const Tensor& var, double eps, string_view activation) {
  TORCH_CHECK_VALUE(activation != "none", kAddTrainGradName,
                    "(): expected activation to be one of relu, sigmoid, tanh, but got 'none'");
  return train_grad(kAddTrainGradName, grad_output, input, output, weight, bias, mean, var, eps, activation, true);
}

std::tuple<Tensor, Tensor> batch_norm_weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& mean,
                                                  const Tensor& var, double eps) {
  const char* op = kWeightGradName;
  check_gradients<int64_t>(op, grad_output, input, std::nullopt, std::nullopt, std::nullopt, mean, var);
  const auto shape = shape_of(input);
  const auto layout = layout_of(input, shape);
  Tensor grad_weight = empty_channels(input, compute_dtype(input)), grad_bias = new_like(grad_weight);
  if (input.numel() == 0) {
    return {grad_weight.zero_(), grad_bias.zero_()};
  }
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = as_map(input, input), dy = as_map(grad_output, input);
    const Tensor workspace = workspace_for(x, shape, layout);
    const Channels means(mean, statistics_dtype(x)), vars(var, statistics_dtype(x));
    const cuda::Normalization by{eps, means.get(), vars.get(), nullptr, nullptr};
    check_launch(
        op, input,
        cuda::batch_norm_grad_sums(shape, layout, cuda_dtype(x), by, {{dy.const_data_ptr()}, {x.const_data_ptr()}},
                                   grad_weight.mutable_data_ptr(), grad_bias.mutable_data_ptr(),
                                   workspace.mutable_data_ptr(), device.stream()));
    return {grad_weight, grad_bias};
  }
  if (!is_element_type(input)) {
    return batch_norm_weight_grad(grad_output.to(at::kFloat), input.to(at::kFloat), mean.to(at::kFloat),
                                  var.to(at::kFloat), eps);
  }
  const Tensor x = as_map(input, input), dy = as_map(grad_output, input);
  const Channels means(mean, at::kDouble), vars(var, at::kDouble);
  cpu::ChannelArray<double> dw(shape.C), db(shape.C);
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    const cpu::Normalization<cpu::computed_t<E>> by{eps, means.get<double>(), vars.get<double>(), nullptr, nullptr};
    cpu::batch_norm_grad_sums<E>(shape, layout, by, {{elements<E>(dy)}, {elements<E>(x)}}, dw.data(), db.data());
  });
  write_channels(dw, grad_weight);
  write_channels(db, grad_bias);
  return {grad_weight, grad_bias};
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor map_meta(const Tensor& input) {
  return at::empty_symint(input.sym_sizes(), input.options().memory_format(format_of(input)));
}

Tensor channels_meta(const Tensor& input, at::ScalarType dtype) {
  return at::empty_symint({input.sym_size(1)}, input.options().dtype(dtype));
}

Trained train_meta(const Tensor& input, const OptionalTensor& residual, const Known& known,
                   const OptionalTensor& weight, const OptionalTensor& bias, string_view activation,
                   const Running* running) {
  const char* op = name_of(activation_of("batch_norm", activation), residual.has_value());
  check_train<SymInt>(op, input, residual, known, weight, bias);
  if (running != nullptr) {
    check_running<SymInt>(op, *running, input);
  }
  const auto dtype = statistics_dtype(input);
  return {map_meta(input), channels_meta(input, dtype), channels_meta(input, dtype)};
}

Trained batch_norm_train_meta(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& mean,
                              const OptionalTensor& var, const OptionalTensor& weight, const OptionalTensor& bias,
                              double, string_view activation) {
  return train_meta(input, residual, {mean, var}, weight, bias, activation, nullptr);
}

Trained batch_norm_train_update_meta(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& mean,
                                     const OptionalTensor& var, const OptionalTensor& weight,
                                     const OptionalTensor& bias, const Tensor& running_mean, const Tensor& running_var,
                                     const OptionalTensor& batches, std::optional<double> momentum, double,
                                     string_view activation) {
  const Running running{running_mean, running_var, batches, momentum};
  return train_meta(input, residual, {mean, var}, weight, bias, activation, &running);
}

Tensor batch_norm_infer_meta(const Tensor& input, const OptionalTensor& residual, const Tensor& mean, const Tensor& var,
                             const OptionalTensor& weight, const OptionalTensor& bias, double, string_view activation) {
  const char* op = name_of(activation_of("batch_norm", activation), residual.has_value());
  check_infer<SymInt>(op, input, residual, mean, var, weight, bias);
  return map_meta(input);
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_train_grad_meta(const Tensor& grad_output, const Tensor& input,
                                                              const OptionalTensor& output,
                                                              const OptionalTensor& weight, const OptionalTensor& bias,
                                                              const Tensor& mean, const Tensor& var, double,
                                                              string_view activation) {
  check_train_grad<SymInt>(kTrainGradName, grad_output, input, output, weight, bias, mean, var, activation);
  const auto dtype = compute_dtype(input);
  return {map_meta(input), channels_meta(input, dtype), channels_meta(input, dtype)};
}

Gradients batch_norm_add_train_grad_meta(const Tensor& grad_output, const Tensor& input, const Tensor& output,
                                         const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean,
                                         const Tensor& var, double, string_view activation) {
  check_train_grad<SymInt>(kAddTrainGradName, grad_output, input, output, weight, bias, mean, var, activation);
  const auto dtype = compute_dtype(input);
  return {map_meta(input), channels_meta(input, dtype), channels_meta(input, dtype), map_meta(input)};
}

std::tuple<Tensor, Tensor> batch_norm_weight_grad_meta(const Tensor& grad_output, const Tensor& input,
                                                       const Tensor& mean, const Tensor& var, double) {
  check_gradients<SymInt>(kWeightGradName, grad_output, input, std::nullopt, std::nullopt, std::nullopt, mean, var);
  const auto dtype = compute_dtype(input);
  return {channels_meta(input, dtype), channels_meta(input, dtype)};
}

}  // namespace
}  // namespace d2l

#define D2L_BATCH_NORM_KERNELS(suffix)                                         \
  m.impl("batch_norm_train", d2l::batch_norm_train##suffix);                   \
  m.impl("batch_norm_train_update", d2l::batch_norm_train_update##suffix);     \
  m.impl("batch_norm_infer", d2l::batch_norm_infer##suffix);                   \
  m.impl("batch_norm_train_grad", d2l::batch_norm_train_grad##suffix);         \
  m.impl("batch_norm_add_train_grad", d2l::batch_norm_add_train_grad##suffix); \
  m.impl("batch_norm_weight_grad", d2l::batch_norm_weight_grad##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_BATCH_NORM_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_BATCH_NORM_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_BATCH_NORM_KERNELS(_meta); }
