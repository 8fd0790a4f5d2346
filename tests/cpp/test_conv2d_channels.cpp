// Convolutions whose maps are ranges of the channels of wider maps, as the branches of a concatenation are: the results
// are those of dense maps, to the bit, and the channels beside them stay as they were.
#include <cmath>
#include <cstring>
#include <limits>

#include "activation.h"
#include "capabilities.h"
#include "check.h"
#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/conv2d_algorithm.h"
#include "threads.h"

namespace d2l::test {
namespace {

constexpr float kBeside = 1234.5f;

const Conv2dShape kShapes[] = {
    {2, 12, 9, 7, 20, 3, 3, 9, 7, 1, 1, 1, 1, 1, 1, 1},   {3, 33, 5, 5, 17, 1, 1, 5, 5, 1, 1, 0, 0, 1, 1, 1},
    {2, 5, 12, 12, 7, 5, 5, 12, 12, 1, 1, 2, 2, 1, 1, 1}, {1, 64, 8, 8, 48, 3, 3, 4, 4, 2, 2, 1, 1, 1, 1, 1},
    {2, 12, 6, 6, 8, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 4},    {1, 1, 14, 14, 6, 5, 5, 10, 10, 1, 1, 0, 0, 1, 1, 1},
    {4, 16, 1, 1, 40, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1},   {1, 64, 14, 14, 96, 3, 3, 14, 14, 1, 1, 1, 1, 1, 1, 1},
    {2, 160, 3, 3, 150, 3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1},
};

// The last `channels` channels of pixels that lie `stride` apart, so that reading past the end would leave the memory.
struct Range {
  int64_t pixels, channels, stride;
  std::vector<float> memory;

  Range(int64_t pixel_count, int64_t channel_count, int64_t pixel_stride)
      : pixels(pixel_count), channels(channel_count), stride(pixel_stride) {
    memory.assign(static_cast<size_t>(pixels * stride), kBeside);
  }
  float* data() { return memory.data() + (stride - channels); }
  void fill(const std::vector<float>& dense) {
    for (int64_t i = 0; i < pixels; ++i) {
      std::memcpy(data() + i * stride, dense.data() + i * channels, static_cast<size_t>(channels) * sizeof(float));
    }
  }
  bool holds(const std::vector<float>& dense) {
    for (int64_t i = 0; i < pixels; ++i) {
      if (std::memcmp(data() + i * stride, dense.data() + i * channels,
                      static_cast<size_t>(channels) * sizeof(float)) != 0)
        return false;
      for (int64_t c = 0; c < stride - channels; ++c) {
        if (memory[static_cast<size_t>(i * stride + c)] != kBeside) return false;
      }
    }
    return true;
  }
};

void test_shape(Report& report, const Conv2dShape& dense, const std::string& name) {
  const int64_t in_pixels = dense.N * dense.H * dense.W, out_pixels = dense.N * dense.P * dense.Q;
  Conv2dShape wide = dense;
  wide.input_pixel = dense.C + 5;
  wide.output_pixel = dense.K + 11;
  const int64_t taps = dense.R * dense.S;
  const cpu::WeightStrides strides{dense.group_c() * taps, taps, dense.S, 1};
  const auto input = random_values<float>(in_pixels * dense.C, 1), bias = random_values<float>(dense.K, 2);
  const auto weight = random_values<float>(dense.K * dense.group_c() * taps, 3);
  const auto grad_output = random_values<float>(out_pixels * dense.K, 4);
  Range wide_input(in_pixels, dense.C, wide.input_pixel), wide_output(out_pixels, dense.K, wide.output_pixel);
  Range wide_grad_output = wide_output, wide_grad_input = wide_input;
  wide_input.fill(input);
  wide_grad_output.fill(grad_output);

  std::vector<float> output(grad_output.size()), grad_input(input.size()), grad_weight(weight.size()), linear;
  for (const Activation activation : {Activation::none, Activation::relu, Activation::sigmoid, Activation::tanh}) {
    cpu::conv2d(dense, Layout::nhwc, input.data(), weight.data(), strides, bias.data(), output.data(), activation);
    cpu::conv2d(wide, Layout::nhwc, static_cast<const float*>(wide_input.data()), weight.data(), strides, bias.data(),
                wide_output.data(), activation);
    const std::string what = "conv2d, activation " + std::to_string(static_cast<int>(activation)) + ", " + name;
    report.check(wide_output.holds(output), what);
    if (activation == Activation::none) {
      linear = output;
    } else {
      report.check(is_activated(output, linear, activation), what);
    }
  }

  cpu::conv2d_input_grad(dense, Layout::nhwc, grad_output.data(), weight.data(), strides, grad_input.data());
  cpu::conv2d_input_grad(wide, Layout::nhwc, static_cast<const float*>(wide_grad_output.data()), weight.data(), strides,
                         wide_grad_input.data());
  report.check(wide_grad_input.holds(grad_input), "conv2d_input_grad " + name);

  std::vector<float> wide_grad_weight(weight.size());
  cpu::conv2d_weight_grad(dense, Layout::nhwc, grad_output.data(), input.data(), grad_weight.data(), strides);
  cpu::conv2d_weight_grad(wide, Layout::nhwc, static_cast<const float*>(wide_grad_output.data()),
                          static_cast<const float*>(wide_input.data()), wide_grad_weight.data(), strides);
  report.check(std::memcmp(grad_weight.data(), wide_grad_weight.data(), grad_weight.size() * sizeof(float)) == 0,
               "conv2d_weight_grad " + name);
}

}  // namespace
}  // namespace d2l::test

int main() {
  using namespace d2l;
  test::Report report;
  for (const cpu::Capability capability : test::supported_capabilities()) {
    cpu::set_capability(capability);
    for (const cpu::Conv2dAlgorithm algorithm : {cpu::Conv2dAlgorithm::direct, cpu::Conv2dAlgorithm::winograd}) {
      cpu::set_conv2d_algorithm(algorithm);
      for (const int64_t threads : {1, 3}) {
        test::g_threads = threads;
        for (size_t i = 0; i < std::size(test::kShapes); ++i) {
          test::test_shape(report, test::kShapes[i],
                           std::string(cpu::name_of(capability)) + " " + cpu::name_of(algorithm) + " " +
                               std::to_string(threads) + " threads, shape " + std::to_string(i));
        }
      }
    }
  }
  return report.finish();
}
