// The short way from Python to an op. torch.ops parses arguments by the schema and boxes them, which for a tiny tensor
// costs more than the rest of the call; here they are read as they are, and the op is called through the dispatcher as
// everywhere else, so that autograd, autocast and every mode that works below Python see it.
//
// A function returns None for whatever it does not know: subclasses of Tensor, modes and transforms of torch.func, a
// level of forward-mode AD, tracing, unusual arguments. The wrappers in d2lkernels.ops then go the general way, which
// also words the errors.
#include "calls.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <pybind11/gil.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/utils/wrap_outputs.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "common/autograd.h"
#include "ops/activation.h"
#include "ops/batch_norm.h"
#include "ops/conv2d.h"

namespace d2l {
namespace {

using at::IntArrayRef;
using at::Tensor;

bool is_plain_context() {
  const auto included = c10::impl::tls_local_dispatch_key_set().included_;
  return !at::impl::torch_function_mode_enabled() && !torch::jit::tracer::isTracing() &&
         !included.has(c10::DispatchKey::FuncTorchDynamicLayerFrontMode) &&
         !included.has(c10::DispatchKey::FuncTorchDynamicLayerBackMode) &&
         torch::autograd::ForwardADLevel::try_get_by_idx(0) == nullptr;
}

bool is_plain(PyObject* object) { return THPVariable_CheckTypeExact(Py_TYPE(object)); }

bool read(PyObject* object, int64_t& value) {
  if (!PyLong_CheckExact(object)) return false;
  int overflow = 0;
  value = PyLong_AsLongLongAndOverflow(object, &overflow);
  return overflow == 0;
}

// Of text that Python keeps as long as the argument.
bool read(PyObject* object, std::string_view& text) {
  if (!PyUnicode_CheckExact(object)) return false;
  Py_ssize_t size;
  const char* const data = PyUnicode_AsUTF8AndSize(object, &size);
  if (data == nullptr) throw python_error();
  text = {data, static_cast<size_t>(size)};
  return true;
}

// One int for both axes, or a tuple of two.
bool read(PyObject* object, std::array<int64_t, 2>& pair) {
  if (PyTuple_CheckExact(object)) {
    return PyTuple_GET_SIZE(object) == 2 && read(PyTuple_GET_ITEM(object, 0), pair[0]) &&
           read(PyTuple_GET_ITEM(object, 1), pair[1]);
  }
  if (!read(object, pair[0])) return false;
  pair[1] = pair[0];
  return true;
}

bool is_sequence(PyObject* object) { return PyList_CheckExact(object) || PyTuple_CheckExact(object); }

// A list or tuple of tensors.
bool read(PyObject* object, std::vector<Tensor>& tensors) {
  if (!is_sequence(object)) return false;
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(object);
  tensors.reserve(count);
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const item = PySequence_Fast_GET_ITEM(object, i);
    if (!is_plain(item)) return false;
    tensors.push_back(THPVariable_Unpack(item));
  }
  return true;
}

// None, or a tensor.
bool read(PyObject* object, std::optional<Tensor>& tensor) {
  if (object == Py_None) return true;
  if (!is_plain(object)) return false;
  tensor = THPVariable_Unpack(object);
  return true;
}

// None, or a float.
bool read(PyObject* object, std::optional<double>& value) {
  if (object == Py_None) return true;
  if (!PyFloat_CheckExact(object)) return false;
  value = PyFloat_AS_DOUBLE(object);
  return true;
}

// One int for all, or a list or tuple with a value for each.
template <typename Value>
bool read_each(PyObject* object, std::vector<Value>& values) {
  const bool for_all = PyLong_CheckExact(object);
  const auto count = static_cast<Py_ssize_t>(values.size());
  if (!for_all && !(is_sequence(object) && PySequence_Fast_GET_SIZE(object) == count)) return false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!read(for_all ? object : PySequence_Fast_GET_ITEM(object, i), values[i])) return false;
  }
  return true;
}

// The numbers one after the other.
template <size_t size>
IntArrayRef flat(const std::vector<std::array<int64_t, size>>& values) {
  return {values.front().data(), size * values.size()};
}

// Runs the call without the interpreter's lock.
template <typename Call>
PyObject* result_of(Call&& call) {
  decltype(call()) output;
  {
    const pybind11::gil_scoped_release no_lock;
    output = call();
  }
  return torch::autograd::utils::wrap(std::move(output));
}

using Optional = std::optional<Tensor>;
using Unary = c10::TypedOperatorHandle<Tensor(const Tensor&)>;

PyObject* call_unary(const Unary& op, PyObject* input) {
  HANDLE_TH_ERRORS
  if (!is_plain_context() || !is_plain(input)) Py_RETURN_NONE;
  const Tensor& x = THPVariable_Unpack(input);
  return result_of([&] { return op.call(x); });
  END_HANDLE_TH_ERRORS
}

PyObject* relu(PyObject*, PyObject* input) {
  static const Unary op = find_op<Tensor(const Tensor&)>("d2lkernels::relu");
  return call_unary(op, input);
}

PyObject* sigmoid(PyObject*, PyObject* input) {
  static const Unary op = find_op<Tensor(const Tensor&)>("d2lkernels::sigmoid");
  return call_unary(op, input);
}

PyObject* tanh(PyObject*, PyObject* input) {
  static const Unary op = find_op<Tensor(const Tensor&)>("d2lkernels::tanh");
  return call_unary(op, input);
}

// input, dim
using AlongAxis = c10::TypedOperatorHandle<Tensor(const Tensor&, int64_t)>;

PyObject* call_along_axis(const AlongAxis& op, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  int64_t dim;
  if (count != 2 || !is_plain_context() || !is_plain(arguments[0]) || !read(arguments[1], dim)) Py_RETURN_NONE;
  const Tensor& x = THPVariable_Unpack(arguments[0]);
  return result_of([&] { return op.call(x, dim); });
  END_HANDLE_TH_ERRORS
}

PyObject* softmax(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  static const AlongAxis op = find_op<Tensor(const Tensor&, int64_t)>("d2lkernels::softmax");
  return call_along_axis(op, arguments, count);
}

PyObject* log_softmax(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  static const AlongAxis op = find_op<Tensor(const Tensor&, int64_t)>("d2lkernels::log_softmax");
  return call_along_axis(op, arguments, count);
}

// input, target, weight, reduction, ignore_index, label_smoothing; class indices only
PyObject* cross_entropy(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto op =
      find_op<std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const std::optional<Tensor>&,
                                                 std::string_view, int64_t, double)>("d2lkernels::cross_entropy");
  std::string_view reduction;
  int64_t ignore_index;
  Optional weight;
  if (count != 6 || !is_plain_context() || !is_plain(arguments[0]) || !is_plain(arguments[1]) ||
      !read(arguments[2], weight) || !read(arguments[3], reduction) || !read(arguments[4], ignore_index) ||
      !PyFloat_CheckExact(arguments[5])) {
    Py_RETURN_NONE;
  }
  const Tensor &input = THPVariable_Unpack(arguments[0]), &target = THPVariable_Unpack(arguments[1]);
  if (target.scalar_type() != at::kLong) Py_RETURN_NONE;
  const double label_smoothing = PyFloat_AS_DOUBLE(arguments[5]);
  return result_of(
      [&] { return std::get<0>(op.call(input, target, weight, reduction, ignore_index, label_smoothing)); });
  END_HANDLE_TH_ERRORS
}

// input, target, reduction
PyObject* mse_loss(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, std::string_view)>("d2lkernels::mse_loss");
  std::string_view reduction;
  if (count != 3 || !is_plain_context() || !is_plain(arguments[0]) || !is_plain(arguments[1]) ||
      !read(arguments[2], reduction)) {
    Py_RETURN_NONE;
  }
  const Tensor &input = THPVariable_Unpack(arguments[0]), &target = THPVariable_Unpack(arguments[1]);
  if (!input.sizes().equals(target.sizes())) Py_RETURN_NONE;
  return result_of([&] { return op.call(input, target, reduction); });
  END_HANDLE_TH_ERRORS
}

// input, weight, bias, stride, padding, dilation, groups
PyObject* conv2d(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, IntArrayRef,
                                        IntArrayRef, IntArrayRef, int64_t)>("d2lkernels::conv2d");
  std::array<int64_t, 2> stride, padding, dilation;
  int64_t groups;
  Optional bias;
  if (count != 7 || !is_plain_context() || !is_plain(arguments[0]) || !is_plain(arguments[1]) ||
      !read(arguments[2], bias) || !read(arguments[3], stride) || !read(arguments[4], padding) ||
      !read(arguments[5], dilation) || !read(arguments[6], groups)) {
    Py_RETURN_NONE;
  }
  const Tensor &input = THPVariable_Unpack(arguments[0]), &weight = THPVariable_Unpack(arguments[1]);
  if (input.dim() != 4) Py_RETURN_NONE;
  const std::array<int64_t, 4> pads{padding[0], padding[0], padding[1], padding[1]};
  return result_of([&] { return op.call(input, weight, bias, stride, pads, dilation, groups); });
  END_HANDLE_TH_ERRORS
}

// input, weight, bias, stride, padding, dilation, groups, activation, and for a pool: its name (max or avg), size,
// stride or None, padding, ceil_mode, count_include_pad
PyObject* conv2d_fused(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  using Sizes = IntArrayRef;
  static const auto alone = find_op<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, Sizes, Sizes,
                                           Sizes, int64_t, std::string_view)>("d2lkernels::conv2d_activation");
  static const auto max_pool =
      find_op<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const std::optional<Tensor>&, Sizes, Sizes,
                                         Sizes, int64_t, std::string_view, Sizes, Sizes, Sizes, bool, bool)>(
          "d2lkernels::conv2d_max_pool2d");
  static const auto avg_pool =
      find_op<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const std::optional<Tensor>&, Sizes, Sizes,
                                         Sizes, int64_t, std::string_view, Sizes, Sizes, Sizes, bool, bool, bool)>(
          "d2lkernels::conv2d_avg_pool2d");
  std::array<int64_t, 2> stride, padding, dilation, size, step, pad;
  int64_t groups;
  std::string_view activation, pool;
  Optional bias;
  if ((count != 8 && count != 14) || !is_plain_context() || !is_plain(arguments[0]) || !is_plain(arguments[1]) ||
      !read(arguments[2], bias) || !read(arguments[3], stride) || !read(arguments[4], padding) ||
      !read(arguments[5], dilation) || !read(arguments[6], groups) || !read(arguments[7], activation)) {
    Py_RETURN_NONE;
  }
  if (count == 14 && (!read(arguments[8], pool) || !read(arguments[9], size) ||
                      !read(arguments[10] == Py_None ? arguments[9] : arguments[10], step) ||
                      !read(arguments[11], pad) || !PyBool_Check(arguments[12]) || !PyBool_Check(arguments[13]))) {
    Py_RETURN_NONE;
  }
  const Tensor &input = THPVariable_Unpack(arguments[0]), &weight = THPVariable_Unpack(arguments[1]);
  if (input.dim() != 4) Py_RETURN_NONE;
  const std::array<int64_t, 4> pads{padding[0], padding[0], padding[1], padding[1]};
  const bool ceil_mode = count == 14 && arguments[12] == Py_True, counts_pad = count == 14 && arguments[13] == Py_True;
  return result_of([&] {
    if (count == 8) return alone.call(input, weight, bias, stride, pads, dilation, groups, activation);
    return std::get<0>(pool == "max" ? max_pool.call(input, weight, bias, stride, pads, dilation, groups, activation,
                                                     size, step, pad, ceil_mode, false)
                                     : avg_pool.call(input, weight, bias, stride, pads, dilation, groups, activation,
                                                     size, step, pad, ceil_mode, counts_pad, false));
  });
  END_HANDLE_TH_ERRORS
}

using Results = std::tuple<Tensor, Tensor, Tensor>;
using BatchNormTrain = Results(const Tensor&, const Optional&, const Optional&, const Optional&, const Optional&,
                               const Optional&, double, std::string_view);
using BatchNormUpdate = Results(const Tensor&, const Optional&, const Optional&, const Optional&, const Optional&,
                                const Optional&, const Tensor&, const Tensor&, const Optional&, std::optional<double>,
                                double, std::string_view);

// input, weight, bias, stride, padding, dilation, groups; running_mean, running_var, weight and bias of the
// normalisation, training (True), momentum, eps, activation, residual, num_batches_tracked
PyObject* conv2d_batch_norm(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto convolution =
      find_op<Results(const Tensor&, const Tensor&, const Optional&, IntArrayRef, IntArrayRef, IntArrayRef, int64_t)>(
          "d2lkernels::conv2d_moments");
  static const auto train = find_op<BatchNormTrain>("d2lkernels::batch_norm_train");
  static const auto update = find_op<BatchNormUpdate>("d2lkernels::batch_norm_train_update");
  std::array<int64_t, 2> stride, padding, dilation;
  int64_t groups;
  std::string_view activation;
  Optional bias, running_mean, running_var, norm_weight, norm_bias, residual, batches;
  std::optional<double> momentum;
  if (count != 17 || !is_plain_context() || !is_plain(arguments[0]) || !is_plain(arguments[1]) ||
      !read(arguments[3], stride) || !read(arguments[4], padding) || !read(arguments[5], dilation) ||
      !read(arguments[6], groups) || !read(arguments[2], bias) || !read(arguments[7], running_mean) ||
      !read(arguments[8], running_var) || !read(arguments[9], norm_weight) || !read(arguments[10], norm_bias) ||
      arguments[11] != Py_True || !read(arguments[12], momentum) || !PyFloat_CheckExact(arguments[13]) ||
      !read(arguments[14], activation) || !read(arguments[15], residual) || !read(arguments[16], batches)) {
    Py_RETURN_NONE;
  }
  const bool is_running = running_mean.has_value();
  const Tensor &input = THPVariable_Unpack(arguments[0]), &weight = THPVariable_Unpack(arguments[1]);
  if (input.dim() != 4 || running_var.has_value() != is_running || !(momentum.has_value() || batches.has_value()) ||
      !(input.is_cpu() || input.is_cuda()) || at::autocast::is_autocast_enabled(input.device().type())) {
    Py_RETURN_NONE;
  }
  const std::array<int64_t, 4> pads{padding[0], padding[0], padding[1], padding[1]};
  const double eps = PyFloat_AS_DOUBLE(arguments[13]);
  return result_of([&] {
    const Tensor like = conv2d_result_like(input, weight, bias, {stride, pads, dilation, groups});
    const char* const op = batch_norm::name_of(activation_of("batch_norm", activation), residual.has_value());
    batch_norm::check_train<int64_t>(op, like, residual, {std::nullopt, std::nullopt}, norm_weight, norm_bias);
    if (is_running) {
      batch_norm::check_running<int64_t>(op, {*running_mean, *running_var, batches, momentum}, like);
    }
    const auto [map, mean, var] = convolution.call(input, weight, bias, stride, pads, dilation, groups);
    if (!is_running) {
      return std::get<0>(train.call(map, residual, mean, var, norm_weight, norm_bias, eps, activation));
    }
    return std::get<0>(update.call(map, residual, mean, var, norm_weight, norm_bias, *running_mean, *running_var,
                                   batches, momentum, eps, activation));
  });
  END_HANDLE_TH_ERRORS
}

// input, running_mean, running_var, weight, bias, training, momentum, eps, activation, residual, num_batches_tracked
PyObject* normalize(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto infer =
      find_op<Tensor(const Tensor&, const Optional&, const Tensor&, const Tensor&, const Optional&, const Optional&,
                     double, std::string_view)>("d2lkernels::batch_norm_infer");
  static const auto train = find_op<BatchNormTrain>("d2lkernels::batch_norm_train");
  static const auto update = find_op<BatchNormUpdate>("d2lkernels::batch_norm_train_update");
  Optional running_mean, running_var, weight, bias, residual, batches;
  std::optional<double> momentum;
  std::string_view activation;
  if (count != 11 || !is_plain_context() || !is_plain(arguments[0]) || !read(arguments[1], running_mean) ||
      !read(arguments[2], running_var) || !read(arguments[3], weight) || !read(arguments[4], bias) ||
      !PyBool_Check(arguments[5]) || !read(arguments[6], momentum) || !PyFloat_CheckExact(arguments[7]) ||
      !read(arguments[8], activation) || !read(arguments[9], residual) || !read(arguments[10], batches)) {
    Py_RETURN_NONE;
  }
  const bool training = arguments[5] == Py_True, is_running = running_mean.has_value();
  if (running_var.has_value() != is_running || !(training || is_running) ||
      (training && !(momentum.has_value() || batches.has_value()))) {
    Py_RETURN_NONE;
  }
  const Tensor& input = THPVariable_Unpack(arguments[0]);
  const double eps = PyFloat_AS_DOUBLE(arguments[7]);
  return result_of([&] {
    if (!training) return infer.call(input, residual, *running_mean, *running_var, weight, bias, eps, activation);
    const Optional mean, var;  // of the input, unknown
    if (!is_running) return std::get<0>(train.call(input, residual, mean, var, weight, bias, eps, activation));
    return std::get<0>(update.call(input, residual, mean, var, weight, bias, *running_mean, *running_var, batches,
                                   momentum, eps, activation));
  });
  END_HANDLE_TH_ERRORS
}

// inputs, weights, biases or None, stride, padding, dilation and groups (of each, or one int), activation
PyObject* concat_convolutions(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto op = find_op<Tensor(at::TensorList, at::TensorList, at::TensorList, IntArrayRef, IntArrayRef,
                                        IntArrayRef, IntArrayRef, std::string_view)>("d2lkernels::concat_convolutions");
  std::vector<Tensor> inputs, weights, biases;
  std::string_view activation;
  if (count != 8 || !is_plain_context() || !read(arguments[0], inputs) || !read(arguments[1], weights) ||
      !(arguments[2] == Py_None || read(arguments[2], biases)) || !read(arguments[7], activation)) {
    Py_RETURN_NONE;
  }
  const size_t convolutions = inputs.size();
  if (convolutions == 0 || weights.size() != convolutions ||
      (arguments[2] != Py_None && biases.size() != convolutions)) {
    Py_RETURN_NONE;
  }
  std::vector<std::array<int64_t, 2>> stride(convolutions), padding(convolutions), dilation(convolutions);
  std::vector<int64_t> groups(convolutions);
  if (!read_each(arguments[3], stride) || !read_each(arguments[4], padding) || !read_each(arguments[5], dilation) ||
      !read_each(arguments[6], groups)) {
    Py_RETURN_NONE;
  }
  std::vector<std::array<int64_t, 4>> pads;
  for (const auto& [vertical, horizontal] : padding) pads.push_back({vertical, vertical, horizontal, horizontal});
  return result_of(
      [&] { return op.call(inputs, weights, biases, flat(stride), flat(pads), flat(dilation), groups, activation); });
  END_HANDLE_TH_ERRORS
}

// input, parameters, statistics, eps; a tuple of three tensors
PyObject* dense_block(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto op =
      find_op<Results(const Tensor&, at::TensorList, at::TensorList, double)>("d2lkernels::dense_block");
  std::vector<Tensor> parameters, statistics;
  if (count != 4 || !is_plain_context() || !is_plain(arguments[0]) || !read(arguments[1], parameters) ||
      !read(arguments[2], statistics) || !PyFloat_CheckExact(arguments[3])) {
    Py_RETURN_NONE;
  }
  const Tensor& input = THPVariable_Unpack(arguments[0]);
  if (!(input.is_cpu() || input.is_cuda()) || at::autocast::is_autocast_enabled(input.device().type())) {
    Py_RETURN_NONE;
  }
  const double eps = PyFloat_AS_DOUBLE(arguments[3]);
  return result_of([&] { return op.call(input, parameters, statistics, eps); });
  END_HANDLE_TH_ERRORS
}

// input (a matrix), weight, bias, and an activation or nothing
PyObject* linear(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto alone =
      find_op<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&)>("d2lkernels::linear");
  static const auto fused =
      find_op<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, std::string_view)>(
          "d2lkernels::linear_activation");
  std::string_view activation;
  Optional bias;
  if ((count != 3 && count != 4) || !is_plain_context() || !is_plain(arguments[0]) || !is_plain(arguments[1]) ||
      !read(arguments[2], bias) || (count == 4 && !read(arguments[3], activation))) {
    Py_RETURN_NONE;
  }
  const Tensor &input = THPVariable_Unpack(arguments[0]), &weight = THPVariable_Unpack(arguments[1]);
  if (input.dim() != 2) Py_RETURN_NONE;
  return result_of(
      [&] { return count == 3 ? alone.call(input, weight, bias) : fused.call(input, weight, bias, activation); });
  END_HANDLE_TH_ERRORS
}

// input, kernel_size, stride or None, padding, dilation, ceil_mode
PyObject* max_pool2d(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto op = find_op<Tensor(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, IntArrayRef, bool)>(
      "d2lkernels::max_pool2d");
  std::array<int64_t, 2> kernel_size, stride, padding, dilation;
  if (count != 6 || !is_plain_context() || !is_plain(arguments[0]) || !read(arguments[1], kernel_size) ||
      !read(arguments[2] == Py_None ? arguments[1] : arguments[2], stride) || !read(arguments[3], padding) ||
      !read(arguments[4], dilation) || !PyBool_Check(arguments[5])) {
    Py_RETURN_NONE;
  }
  const Tensor& input = THPVariable_Unpack(arguments[0]);
  if (input.dim() != 4) Py_RETURN_NONE;
  const bool ceil_mode = arguments[5] == Py_True;
  return result_of([&] { return op.call(input, kernel_size, stride, padding, dilation, ceil_mode); });
  END_HANDLE_TH_ERRORS
}

// input, kernel_size, stride or None, padding, ceil_mode, count_include_pad
PyObject* avg_pool2d(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto op =
      find_op<Tensor(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, bool, bool, std::optional<int64_t>)>(
          "d2lkernels::avg_pool2d");
  std::array<int64_t, 2> kernel_size, stride, padding;
  if (count != 6 || !is_plain_context() || !is_plain(arguments[0]) || !read(arguments[1], kernel_size) ||
      !read(arguments[2] == Py_None ? arguments[1] : arguments[2], stride) || !read(arguments[3], padding) ||
      !PyBool_Check(arguments[4]) || !PyBool_Check(arguments[5])) {
    Py_RETURN_NONE;
  }
  const Tensor& input = THPVariable_Unpack(arguments[0]);
  if (input.dim() != 4) Py_RETURN_NONE;
  const bool ceil_mode = arguments[4] == Py_True, counts_pad = arguments[5] == Py_True;
  return result_of([&] { return op.call(input, kernel_size, stride, padding, ceil_mode, counts_pad, std::nullopt); });
  END_HANDLE_TH_ERRORS
}

// input, output_size
using Adaptive = c10::TypedOperatorHandle<Tensor(const Tensor&, IntArrayRef)>;

PyObject* call_adaptive(const Adaptive& op, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  std::array<int64_t, 2> output_size;
  if (count != 2 || !is_plain_context() || !is_plain(arguments[0]) || !read(arguments[1], output_size)) {
    Py_RETURN_NONE;
  }
  const Tensor& input = THPVariable_Unpack(arguments[0]);
  if (input.dim() != 4) Py_RETURN_NONE;
  return result_of([&] { return op.call(input, output_size); });
  END_HANDLE_TH_ERRORS
}

PyObject* adaptive_avg_pool2d(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  static const Adaptive op = find_op<Tensor(const Tensor&, IntArrayRef)>("d2lkernels::adaptive_avg_pool2d");
  return call_adaptive(op, arguments, count);
}

PyObject* adaptive_max_pool2d(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  static const Adaptive op = find_op<Tensor(const Tensor&, IntArrayRef)>("d2lkernels::adaptive_max_pool2d");
  return call_adaptive(op, arguments, count);
}

template <typename Function>
PyCFunction as_function(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace

void register_calls(pybind11::module_& module) {
  static PyMethodDef methods[] = {
      {"relu", relu, METH_O, nullptr},
      {"sigmoid", sigmoid, METH_O, nullptr},
      {"tanh", tanh, METH_O, nullptr},
      {"softmax", as_function(softmax), METH_FASTCALL, nullptr},
      {"log_softmax", as_function(log_softmax), METH_FASTCALL, nullptr},
      {"cross_entropy", as_function(cross_entropy), METH_FASTCALL, nullptr},
      {"mse_loss", as_function(mse_loss), METH_FASTCALL, nullptr},
      {"conv2d", as_function(conv2d), METH_FASTCALL, nullptr},
      {"conv2d_fused", as_function(conv2d_fused), METH_FASTCALL, nullptr},
      {"conv2d_batch_norm", as_function(conv2d_batch_norm), METH_FASTCALL, nullptr},
      {"normalize", as_function(normalize), METH_FASTCALL, nullptr},
      {"concat_convolutions", as_function(concat_convolutions), METH_FASTCALL, nullptr},
      {"dense_block", as_function(dense_block), METH_FASTCALL, nullptr},
      {"linear", as_function(linear), METH_FASTCALL, nullptr},
      {"max_pool2d", as_function(max_pool2d), METH_FASTCALL, nullptr},
      {"avg_pool2d", as_function(avg_pool2d), METH_FASTCALL, nullptr},
      {"adaptive_avg_pool2d", as_function(adaptive_avg_pool2d), METH_FASTCALL, nullptr},
      {"adaptive_max_pool2d", as_function(adaptive_max_pool2d), METH_FASTCALL, nullptr},
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw pybind11::error_already_set();
}

}  // namespace d2l
