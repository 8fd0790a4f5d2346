// cross_entropy of class indices: checks, allocation, kernels for CPU, CUDA and Meta, autograd, autocast.
//
// Forward keeps two numbers a row (maximum and logarithm of the sum) for the backward pass, which computes the
// probabilities again. The second derivatives are written in torch's ops.
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "common/allocate.h"
#include "common/autocast.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "common/reduction.h"
#include "kernels/cpu/cross_entropy.h"
#include "kernels/cuda/cross_entropy.h"

namespace d2l {
namespace {

using at::Tensor;
using c10::SymInt;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kName = "cross_entropy";
constexpr const char* kGradName = "cross_entropy_input_grad";

// The arguments that are no tensors.
struct Options {
  Reduction reduction;
  int64_t ignore_index;
  double label_smoothing;
};

// ---- checks ----------------------------------------------------------------------------------------------------

template <typename Int>
Options check_cross_entropy(const char* op, const Tensor& input, const Tensor& target, const OptionalTensor& weight,
                            std::string_view reduction, int64_t ignore_index, double label_smoothing) {
  const Options options{reduction_of(op, reduction), ignore_index, label_smoothing};
  TORCH_CHECK_VALUE(label_smoothing >= 0 && label_smoothing <= 1, op,
                    "(): expected label_smoothing to be between 0 and 1, but got ", label_smoothing);
  TORCH_CHECK_VALUE(input.dim() >= 1, op,
                    "(): expected input to be (C), (N, C) or (N, C, d1, ...), but got a 0-D tensor");
  check_floating(op, "input", input);
  check_strided(op, "input", input);
  TORCH_CHECK_TYPE(target.scalar_type() == at::kLong, op, "(): expected target to be int64 (class indices) or to have ",
                   "the dtype and size of input (probabilities), but got ", target.scalar_type(), " of size ",
                   target.sym_sizes());
  check_strided(op, "target", target);
  check_same_device(op, "target", target, "input", input);
  std::vector<Int> expected = sizes_of<Int>(input).vec();
  expected.erase(expected.begin() + (input.dim() == 1 ? 0 : 1));
  TORCH_CHECK_VALUE(sizes_of<Int>(target) == c10::ArrayRef<Int>(expected), op, "(): expected target to have size ",
                    c10::ArrayRef<Int>(expected), " (input without its axis of classes), but got ",
                    sizes_of<Int>(target));
  if (weight.has_value()) {
    const Int& classes = sizes_of<Int>(input)[input.dim() == 1 ? 0 : 1];
    TORCH_CHECK_VALUE(weight->dim() == 1 && sizes_of<Int>(*weight)[0] == classes, op,
                      "(): expected weight to have size [", classes, "] (one value per class), but got ",
                      sizes_of<Int>(*weight));
    check_same_dtype(op, "weight", *weight, "input", input);
    check_same_device(op, "weight", *weight, "input", input);
  }
  return options;
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

at::ScalarType compute_dtype(const Tensor& input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

CrossEntropyShape shape_of(const Tensor& input, const Options& options) {
  CrossEntropyShape shape{1, input.size(0), 1, options.ignore_index, options.label_smoothing};
  if (input.dim() > 1) {
    shape.N = input.size(0);
    shape.C = input.size(1);
    for (int64_t axis = 2; axis < input.dim(); ++axis) {
      shape.pixels *= input.size(axis);
    }
  }
  return shape;
}

// [2, N, d1, ...]: the size of the target, twice.
template <typename Int>
std::vector<Int> statistics_size(const Tensor& target) {
  std::vector<Int> size = sizes_of<Int>(target).vec();
  size.insert(size.begin(), Int(2));
  return size;
}

Tensor contiguous_weight(const OptionalTensor& weight, at::ScalarType dtype) {
  return weight.has_value() ? weight->to(dtype).contiguous() : Tensor();
}

OptionalTensor in_dtype(const OptionalTensor& weight, at::ScalarType dtype) {
  return weight.has_value() ? OptionalTensor(weight->to(dtype)) : std::nullopt;
}

const void* data_or_null(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

template <typename T>
const T* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<T>() : nullptr;
}

std::tuple<Tensor, Tensor, Tensor> cross_entropy(const Tensor& input, const Tensor& target,
                                                 const OptionalTensor& weight, std::string_view reduction,
                                                 int64_t ignore_index, double label_smoothing) {
  const auto options =
      check_cross_entropy<int64_t>(kName, input, target, weight, reduction, ignore_index, label_smoothing);
  const auto shape = shape_of(input, options);
  TORCH_CHECK_VALUE(shape.C > 0, kName, "(): expected input to have at least one class, but got a tensor of size ",
                    input.sizes());
  const auto compute = input.options().dtype(compute_dtype(input));
  const bool is_none = options.reduction == Reduction::none;
  Tensor statistics = new_tensor(statistics_size<int64_t>(target), compute), total_weight = new_tensor({}, compute);
  D2L_ON_CUDA(kName, input) {
    const DeviceScope device(input);
    const Tensor x = input.contiguous(), t = target.contiguous(), w = contiguous_weight(weight, x.scalar_type());
    const Tensor sums = at::empty({2, shape.rows()}, compute);
    Tensor loss = is_none ? at::empty(target.sizes(), input.options()) : at::empty({}, input.options());
    auto* const losses = static_cast<char*>(sums.mutable_data_ptr());
    check_launch(
        kName, input,
        cuda::cross_entropy(shape, options.reduction, cuda_dtype(x), x.const_data_ptr(), t.const_data_ptr<int64_t>(),
                            data_or_null(w), losses, losses + shape.rows() * static_cast<int64_t>(sums.element_size()),
                            statistics.mutable_data_ptr(), loss.mutable_data_ptr(), total_weight.mutable_data_ptr(),
                            device.stream()));
    return {loss, statistics, total_weight};
  }
  if (!is_element_type(input)) {
    auto [loss, found, total] = cross_entropy(input.to(at::kFloat), target, in_dtype(weight, at::kFloat), reduction,
                                              ignore_index, label_smoothing);
    return {loss.to(input.scalar_type()), found, total};
  }
  const Tensor x = input.contiguous(), t = target.contiguous(), w = contiguous_weight(weight, compute_dtype(x));
  Tensor loss = is_none ? new_tensor(target.sizes(), input.options()) : new_tensor({}, input.options());
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    using T = cpu::computed_t<E>;
    const auto sums =
        cpu::cross_entropy(shape, elements<E>(x), t.const_data_ptr<int64_t>(), data_or_null<T>(w),
                           is_none ? mutable_elements<E>(loss) : nullptr, statistics.mutable_data_ptr<T>());
    TORCH_CHECK_INDEX(sums.row_out_of_range < 0, kName, "(): expected target to be between 0 and ", shape.C - 1,
                      " or ignore_index (", ignore_index, "), but got ",
                      t.const_data_ptr<int64_t>()[sums.row_out_of_range]);
    *total_weight.mutable_data_ptr<T>() = static_cast<T>(sums.weight);
    if (!is_none) {
      const double total = options.reduction == Reduction::mean ? sums.loss / sums.weight : sums.loss;
      *mutable_elements<E>(loss) = cpu::rounded_one<E>(static_cast<T>(total));
    }
  });
  return {loss, statistics, total_weight};
}

template <typename Int>
Options check_gradient(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                       const OptionalTensor& weight, const Tensor& statistics, const Tensor& total_weight,
                       std::string_view reduction, int64_t ignore_index, double label_smoothing) {
  const auto options =
      check_cross_entropy<Int>(kGradName, input, target, weight, reduction, ignore_index, label_smoothing);
  check_same_dtype(kGradName, "grad_output", grad_output, "input", input);
  check_same_device(kGradName, "grad_output", grad_output, "input", input);
  const auto expected = options.reduction == Reduction::none ? sizes_of<Int>(target) : c10::ArrayRef<Int>();
  TORCH_CHECK_VALUE(sizes_of<Int>(grad_output) == expected, kGradName, "(): expected grad_output to have size ",
                    expected, ", but got ", sizes_of<Int>(grad_output));
  const auto size = statistics_size<Int>(target);
  TORCH_CHECK_VALUE(sizes_of<Int>(statistics) == c10::ArrayRef<Int>(size) && total_weight.dim() == 0 &&
                        statistics.scalar_type() == compute_dtype(input) &&
                        total_weight.scalar_type() == compute_dtype(input),
                    kGradName, "(): expected statistics and total_weight to be those that cross_entropy returned, ",
                    "but got tensors of sizes ", statistics.sym_sizes(), " and ", total_weight.sym_sizes());
  return options;
}

Tensor cross_entropy_input_grad(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                                const OptionalTensor& weight, const Tensor& statistics, const Tensor& total_weight,
                                std::string_view reduction, int64_t ignore_index, double label_smoothing) {
  const auto options = check_gradient<int64_t>(grad_output, input, target, weight, statistics, total_weight, reduction,
                                               ignore_index, label_smoothing);
  const auto shape = shape_of(input, options);
  if (input.numel() == 0) {
    return at::empty(input.sizes(), input.options());
  }
  D2L_ON_CUDA(kGradName, input) {
    const DeviceScope device(input);
    Tensor grad_input = at::empty(input.sizes(), input.options());
    const Tensor x = input.contiguous(), t = target.contiguous(), w = contiguous_weight(weight, x.scalar_type());
    const Tensor dy = grad_output.contiguous(), found = statistics.contiguous();
    check_launch(
        kGradName, input,
        cuda::cross_entropy_input_grad(shape, options.reduction, cuda_dtype(x), dy.const_data_ptr(), x.const_data_ptr(),
                                       t.const_data_ptr<int64_t>(), data_or_null(w), found.const_data_ptr(),
                                       total_weight.const_data_ptr(), grad_input.mutable_data_ptr(), device.stream()));
    return grad_input;
  }
  if (!is_element_type(input)) {
    return cross_entropy_input_grad(grad_output.to(at::kFloat), input.to(at::kFloat), target,
                                    in_dtype(weight, at::kFloat), statistics, total_weight, reduction, ignore_index,
                                    label_smoothing)
        .to(input.scalar_type());
  }
  Tensor grad_input = new_tensor(input.sizes(), input.options());
  const Tensor x = input.contiguous(), t = target.contiguous(), w = contiguous_weight(weight, compute_dtype(x));
  const Tensor dy = grad_output.contiguous(), found = statistics.contiguous();
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    using T = cpu::computed_t<E>;
    const T scale = options.reduction == Reduction::mean ? T(1) / *total_weight.const_data_ptr<T>() : T(1);
    cpu::cross_entropy_input_grad(shape, elements<E>(dy), options.reduction == Reduction::none ? 1 : 0, scale,
                                  elements<E>(x), t.const_data_ptr<int64_t>(), data_or_null<T>(w),
                                  found.const_data_ptr<T>(), mutable_elements<E>(grad_input));
  });
  return grad_input;
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

std::tuple<Tensor, Tensor, Tensor> cross_entropy_meta(const Tensor& input, const Tensor& target,
                                                      const OptionalTensor& weight, std::string_view reduction,
                                                      int64_t ignore_index, double label_smoothing) {
  const auto options =
      check_cross_entropy<SymInt>(kName, input, target, weight, reduction, ignore_index, label_smoothing);
  const auto compute = input.options().dtype(compute_dtype(input));
  return {options.reduction == Reduction::none ? at::empty_symint(target.sym_sizes(), input.options())
                                               : at::empty({}, input.options()),
          at::empty_symint(statistics_size<SymInt>(target), compute), at::empty({}, compute)};
}

Tensor cross_entropy_input_grad_meta(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                                     const OptionalTensor& weight, const Tensor& statistics, const Tensor& total_weight,
                                     std::string_view reduction, int64_t ignore_index, double label_smoothing) {
  check_gradient<SymInt>(grad_output, input, target, weight, statistics, total_weight, reduction, ignore_index,
                         label_smoothing);
  return at::empty_symint(input.sym_sizes(), input.options());
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

auto call_forward(const Tensor& input, const Tensor& target, const OptionalTensor& weight, std::string_view reduction,
                  int64_t ignore_index, double label_smoothing) {
  static const auto op = find_op<decltype(cross_entropy)>("d2lkernels::cross_entropy");
  return op.call(input, target, weight, reduction, ignore_index, label_smoothing);
}

Tensor call_input_grad(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                       const OptionalTensor& weight, const Tensor& statistics, const Tensor& total_weight,
                       std::string_view reduction, int64_t ignore_index, double label_smoothing) {
  static const auto op = find_op<decltype(cross_entropy_input_grad)>("d2lkernels::cross_entropy_input_grad");
  return op.call(grad_output, input, target, weight, statistics, total_weight, reduction, ignore_index,
                 label_smoothing);
}

struct CrossEntropy : Function<CrossEntropy> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, const Tensor& target,
                               const OptionalTensor& weight, std::string_view reduction, int64_t ignore_index,
                               double label_smoothing) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, statistics, total_weight] =
        call_forward(input, target, weight, reduction, ignore_index, label_smoothing);
    ctx->save_for_backward({input, target, tensor_or_undefined(weight), statistics, total_weight});
    ctx->saved_data["reduction"] = std::string(reduction);
    ctx->saved_data["ignore_index"] = ignore_index;
    ctx->saved_data["label_smoothing"] = label_smoothing;
    ctx->mark_non_differentiable({statistics, total_weight});
    ctx->set_materialize_grads(false);
    return {loss, statistics, total_weight};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(6);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const OptionalTensor weight = saved[2].defined() ? OptionalTensor(saved[2]) : std::nullopt;
    result[0] = call_input_grad(grads[0], saved[0], saved[1], weight, saved[3], saved[4],
                                ctx->saved_data["reduction"].toStringView(), ctx->saved_data["ignore_index"].toInt(),
                                ctx->saved_data["label_smoothing"].toDouble());
    return result;
  }
};

std::tuple<Tensor, Tensor, Tensor> cross_entropy_autograd(const Tensor& input, const Tensor& target,
                                                          const OptionalTensor& weight, std::string_view reduction,
                                                          int64_t ignore_index, double label_smoothing) {
  TORCH_CHECK_NOT_IMPLEMENTED(!needs_autograd(kName, tensor_or_undefined(weight)), kName,
                              "(): expected weight not to require grad, but got one that does");
  if (needs_autograd(kName, input)) {
    const auto outputs = CrossEntropy::apply(input, target, weight, reduction, ignore_index, label_smoothing);
    return {outputs[0], outputs[1], outputs[2]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_forward(input, target, weight, reduction, ignore_index, label_smoothing);
}

// The gradient once more in ops that torch differentiates: dy ((a + b W) p - a [c = t] - b w), where a and b are 0 for
// what is ignored.
Tensor differentiable_input_grad(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                                 const OptionalTensor& weight, const Tensor& total_weight, const Options& options) {
  const auto dtype = compute_dtype(input);
  const int64_t axis = input.dim() == 1 ? 0 : 1;
  const SymInt classes = input.sym_size(axis);
  const Tensor counts = target.ne(options.ignore_index).unsqueeze(axis);
  const Tensor t = target.unsqueeze(axis).clamp_min(0);
  const Tensor w = weight.has_value() ? weight->to(dtype) : at::ones_symint({classes}, input.options().dtype(dtype));
  const Tensor dy = grad_output.to(dtype), each = options.reduction == Reduction::none ? dy.unsqueeze(axis) : dy;
  const Tensor scaled = options.reduction == Reduction::mean ? at::div(each, total_weight) : each;
  const Tensor gradient = at::mul(scaled, counts.to(dtype));
  const Tensor a = at::mul(gradient, w.take(t).mul(1 - options.label_smoothing));
  const Tensor p = at::softmax(input.to(dtype), axis);
  const Tensor hot = at::zeros_like(p).scatter(axis, t, 1);
  Tensor result = at::mul(a, at::sub(p, hot));
  if (options.label_smoothing > 0) {
    std::vector<SymInt> along(static_cast<size_t>(input.dim()), 1);
    along[static_cast<size_t>(axis)] = classes;
    const Tensor smooth = at::sub(at::mul(p, w.sum()), w.view_symint(along));
    const Tensor per_class = at::mul(gradient, options.label_smoothing).div(at::Scalar(classes));
    result = at::add(result, at::mul(per_class, smooth));
  }
  return result.to(input.scalar_type());
}

Tensor cross_entropy_input_grad_autograd(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                                         const OptionalTensor& weight, const Tensor& statistics,
                                         const Tensor& total_weight, std::string_view reduction, int64_t ignore_index,
                                         double label_smoothing) {
  if (needs_autograd(kGradName, grad_output, input)) {
    const auto options = check_gradient<SymInt>(grad_output, input, target, weight, statistics, total_weight, reduction,
                                                ignore_index, label_smoothing);
    return differentiable_input_grad(grad_output, input, target, weight, total_weight, options);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_input_grad(grad_output, input, target, weight, statistics, total_weight, reduction, ignore_index,
                         label_smoothing);
}

// ---- autocast: like torch's, in float32 ----------------------------------------------------------------------------

template <c10::DeviceType device, c10::DispatchKey key>
std::tuple<Tensor, Tensor, Tensor> cross_entropy_autocast(const Tensor& input, const Tensor& target,
                                                          const OptionalTensor& weight, std::string_view reduction,
                                                          int64_t ignore_index, double label_smoothing) {
  const c10::impl::ExcludeDispatchKeyGuard guard(key);
  return call_forward(autocast_to_float32(input, device), target, autocast_to_float32(weight, device), reduction,
                      ignore_index, label_smoothing);
}

}  // namespace
}  // namespace d2l

#define D2L_CROSS_ENTROPY_KERNELS(suffix)              \
  m.impl("cross_entropy", d2l::cross_entropy##suffix); \
  m.impl("cross_entropy_input_grad", d2l::cross_entropy_input_grad##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_CROSS_ENTROPY_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_CROSS_ENTROPY_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_CROSS_ENTROPY_KERNELS(_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_CROSS_ENTROPY_KERNELS(_autograd); }

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCPU, m) {
  m.impl("cross_entropy", d2l::cross_entropy_autocast<c10::DeviceType::CPU, c10::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCUDA, m) {
  m.impl("cross_entropy", d2l::cross_entropy_autocast<c10::DeviceType::CUDA, c10::DispatchKey::AutocastCUDA>);
}
