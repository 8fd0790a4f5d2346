#include "ops/pool2d.h"

namespace d2l {

PoolWindow PoolWindow::regular(const char* op, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                               at::IntArrayRef padding, at::IntArrayRef dilation) {
  check_pair(op, "kernel_size", kernel_size, 1);
  if (stride.empty()) {
    stride = kernel_size;
  }
  check_pair(op, "stride", stride, 1);
  check_pair(op, "padding", padding, 0);
  check_pair(op, "dilation", dilation, 1);
  const PoolWindow window{.kernel_h = kernel_size[0],
                          .kernel_w = kernel_size[1],
                          .stride_h = stride[0],
                          .stride_w = stride[1],
                          .pad_h = padding[0],
                          .pad_w = padding[1],
                          .dilation_h = dilation[0],
                          .dilation_w = dilation[1]};
  const int64_t extent_h = (window.kernel_h - 1) * window.dilation_h + 1;
  const int64_t extent_w = (window.kernel_w - 1) * window.dilation_w + 1;
  TORCH_CHECK_VALUE(window.pad_h <= extent_h / 2 && window.pad_w <= extent_w / 2, op,
                    "(): expected padding to be at most half of the kernel (dilation included: ", extent_h, " x ",
                    extent_w, "), but got ", padding);
  return window;
}

PoolWindow PoolWindow::from_list(const char* op, at::IntArrayRef list) {
  if (list.empty()) {
    return adaptive_windows();
  }
  TORCH_CHECK_VALUE(list.size() == 8, op, "(): expected window to have no or 8 integers, but got ", list);
  return regular(op, list.slice(0, 2), list.slice(2, 2), list.slice(4, 2), list.slice(6, 2));
}

std::vector<int64_t> PoolWindow::to_list() const {
  if (adaptive) {
    return {};
  }
  return {kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w};
}

namespace {

// With ceil_mode the last window may hang over the edge, but must begin inside the map or the left padding.
template <typename Int>
Int output_length(const Int& length, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation, bool ceil_mode) {
  const Int room = length + 2 * pad - ((kernel - 1) * dilation + 1);
  if (room < 0) {
    return ceil_mode && room + stride - 1 >= 0 ? Int(1) : Int(0);
  }
  if (!ceil_mode) {
    return room / stride + 1;
  }
  const Int windows = (room + stride - 1) / stride + 1;
  return (windows - 1) * stride >= length + pad ? windows - 1 : windows;
}

template <typename Int>
std::array<Int, 2> output_lengths(c10::ArrayRef<Int> input_size, const PoolWindow& window, bool ceil_mode) {
  return {
      output_length<Int>(input_size[2], window.kernel_h, window.stride_h, window.pad_h, window.dilation_h, ceil_mode),
      output_length<Int>(input_size[3], window.kernel_w, window.stride_w, window.pad_w, window.dilation_w, ceil_mode)};
}

}  // namespace

template <typename Int>
std::array<Int, 2> pool_output_size(const char* op, c10::ArrayRef<Int> input_size, const PoolWindow& window,
                                    bool ceil_mode) {
  const auto [P, Q] = output_lengths<Int>(input_size, window, ceil_mode);
  TORCH_CHECK_VALUE(P >= 1 && Q >= 1, op, "(): expected kernel_size to fit into the padded input, but got kernel_size ",
                    at::IntArrayRef({window.kernel_h, window.kernel_w}), ", padding ",
                    at::IntArrayRef({window.pad_h, window.pad_w}), ", dilation ",
                    at::IntArrayRef({window.dilation_h, window.dilation_w}), " and input of size ", input_size);
  return {P, Q};
}

template std::array<int64_t, 2> pool_output_size(const char*, at::IntArrayRef, const PoolWindow&, bool);
template std::array<c10::SymInt, 2> pool_output_size(const char*, c10::SymIntArrayRef, const PoolWindow&, bool);

Pool2dShape pool_shape(const PoolWindow& window, at::IntArrayRef input_size, at::IntArrayRef output_size) {
  const auto bound = pool_window_bound<int64_t>(window, input_size[2], input_size[3], output_size[0], output_size[1]);
  return {.N = input_size[0],
          .C = input_size[1],
          .H = input_size[2],
          .W = input_size[3],
          .R = bound[0],
          .S = bound[1],
          .P = output_size[0],
          .Q = output_size[1],
          .stride_h = window.stride_h,
          .stride_w = window.stride_w,
          .pad_h = window.pad_h,
          .pad_w = window.pad_w,
          .dilation_h = window.dilation_h,
          .dilation_w = window.dilation_w,
          .adaptive = window.adaptive,
          .count_include_pad = true,
          .divisor_override = 0};
}

void check_pool_input(const char* op, const char* argument, const at::Tensor& input) {
  check_rank4(op, argument, input);
  check_floating(op, argument, input);
  check_strided(op, argument, input);
  const auto sizes = input.sym_sizes();
  TORCH_CHECK_VALUE(sizes[1] >= 1 && sizes[2] >= 1 && sizes[3] >= 1, op, "(): expected ", argument,
                    " to have at least one channel and one pixel, but got a tensor of size ", sizes);
}

void check_adaptive_output_size(const char* op, at::IntArrayRef output_size) {
  check_pair(op, "output_size", output_size, 1);
}

template <typename Int>
void check_pool_output(const char* op, const char* argument, const at::Tensor& output, c10::ArrayRef<Int> input_size,
                       const PoolWindow& window) {
  check_rank4(op, argument, output);
  TORCH_CHECK_VALUE(input_size.size() == 4, op, "(): expected input_size to have 4 elements, but got ", input_size);
  const auto sizes = sizes_of<Int>(output);
  TORCH_CHECK_VALUE(sizes[0] == input_size[0] && sizes[1] == input_size[1], op, "(): expected ", argument,
                    " to have the images and channels of the input of size ", input_size, ", but got a tensor of size ",
                    sizes);
  if (window.adaptive) {
    return;
  }
  // The number of windows with and without ceil_mode: the caller's choice is not kept.
  const auto floor_size = output_lengths<Int>(input_size, window, false);
  const auto ceil_size = output_lengths<Int>(input_size, window, true);
  TORCH_CHECK_VALUE((sizes[2] == floor_size[0] && sizes[3] == floor_size[1]) ||
                        (sizes[2] == ceil_size[0] && sizes[3] == ceil_size[1]),
                    op, "(): expected ", argument, " to have a map of ", floor_size[0], " x ", floor_size[1],
                    " (with ceil_mode ", ceil_size[0], " x ", ceil_size[1], "), but got a tensor of size ", sizes);
}

template void check_pool_output(const char*, const char*, const at::Tensor&, at::IntArrayRef, const PoolWindow&);
template void check_pool_output(const char*, const char*, const at::Tensor&, c10::SymIntArrayRef, const PoolWindow&);

namespace {

constexpr const char* kSavedPooling = "pooling";

}  // namespace

void SavedPooling::save(torch::autograd::AutogradContext* ctx, c10::SymIntArrayRef input_size,
                        at::IntArrayRef numbers) {
  std::vector<c10::SymInt> list(input_size.begin(), input_size.end());
  list.insert(list.end(), numbers.begin(), numbers.end());
  ctx->saved_data[kSavedPooling] = std::move(list);
}

SavedPooling::SavedPooling(torch::autograd::AutogradContext* ctx) {
  const auto list = ctx->saved_data[kSavedPooling].toListRef();
  for (size_t i = 0; i < input_size.size(); ++i) {
    input_size[i] = list[i].toSymInt();
  }
  for (const c10::IValue& number : list.slice(input_size.size())) {
    numbers.push_back(number.toInt());
  }
}

}  // namespace d2l
