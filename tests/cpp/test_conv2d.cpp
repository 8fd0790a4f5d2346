// conv2d and its two gradients on the CPU, computed directly, against plain loops in double: every instruction set of
// the machine, both layouts, float and double, both memory orders of the weight, one thread and several.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "activation.h"
#include "capabilities.h"
#include "check.h"
#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/conv2d_algorithm.h"
#include "threads.h"

namespace d2l::test {
namespace {

struct Problem {
  int64_t N, C, H, W, K, R, S;
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1, groups = 1;
  int64_t more_pad_bottom = 0, more_pad_right = 0;

  Conv2dShape shape() const {
    const int64_t P = (H + 2 * pad_h + more_pad_bottom - dilation_h * (R - 1) - 1) / stride_h + 1;
    const int64_t Q = (W + 2 * pad_w + more_pad_right - dilation_w * (S - 1) - 1) / stride_w + 1;
    return {N, C, H, W, K, R, S, P, Q, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups};
  }
};

// Sizes around the edges of tiles and blocks, then random ones.
std::vector<Problem> problems() {
  std::vector<Problem> all = {
      {2, 1, 28, 28, 6, 5, 5, 1, 1, 2, 2},
      {2, 6, 14, 14, 16, 5, 5},
      {1, 3, 33, 35, 64, 7, 7, 2, 2, 3, 3},
      {1, 1, 40, 40, 20, 11, 11, 4, 4, 1, 1},
      {2, 2, 19, 23, 20, 5, 5, 3, 3, 2, 2},
      {2, 64, 12, 12, 40, 3, 3, 1, 1, 1, 1},
      {1, 33, 7, 7, 65, 3, 3, 1, 1, 1, 1},
      {5, 16, 3, 3, 17, 3, 3, 1, 1, 1, 1},
      {7, 8, 1, 1, 33, 1, 1},
      {3, 20, 6, 5, 10, 1, 1},
      {2, 20, 6, 5, 48, 1, 1, 2, 2},
      {2, 5, 9, 8, 7, 1, 1, 3, 2, 1, 1},
      {6, 130, 20, 19, 70, 1, 1, 2, 2},
      {4, 96, 22, 21, 130, 1, 1, 3, 2},
      {2, 4, 9, 9, 6, 2, 2, 3, 3},
      {1, 4, 11, 13, 6, 3, 3, 1, 1, 2, 2, 2, 2},
      {1, 4, 15, 13, 6, 3, 3, 2, 2, 2, 2, 2, 2},
      {1, 4, 17, 19, 6, 3, 3, 2, 3, 2, 1, 3, 2},
      {1, 3, 17, 19, 6, 4, 3, 4, 6, 2, 1, 6, 4},
      {2, 8, 9, 9, 12, 3, 3, 1, 1, 1, 1, 1, 1, 4},
      {2, 12, 9, 9, 12, 3, 3, 2, 2, 1, 1, 1, 1, 12},
      {1, 6, 8, 8, 18, 3, 3, 1, 1, 1, 1, 1, 1, 6},
      {1, 64, 6, 6, 96, 1, 1, 1, 1, 0, 0, 1, 1, 2},
      {2, 3, 10, 10, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
      {2, 3, 10, 10, 5, 2, 4, 2, 2, 0, 1, 1, 1, 1, 1, 0},
      {1, 2, 1, 300, 9, 1, 5, 1, 1, 0, 2},
      {1, 2, 300, 1, 9, 5, 1, 1, 1, 2, 0},
      {1, 4, 5, 5, 8, 5, 5},
      {3, 4, 5, 5, 8, 5, 5},
      {1, 2, 4, 4, 3, 3, 3, 1, 1, 4, 4},
      {1, 2, 30, 30, 3, 2, 2, 25, 25},
      {1, 3, 5, 7, 4, 2, 2, 9, 9, 1, 1},
      {0, 3, 8, 8, 4, 3, 3},
      {2, 67, 9, 14, 67, 3, 3, 1, 1, 1, 1, 1, 1, 67},
      {2, 160, 8, 13, 160, 3, 3, 2, 2, 1, 1, 1, 1, 160},
      {1, 64, 11, 12, 64, 5, 5, 2, 1, 2, 2, 1, 1, 64},
      {1, 33, 13, 26, 33, 2, 11, 1, 1, 1, 5, 1, 1, 33},
      {2, 40, 10, 11, 40, 3, 3, 3, 2, 2, 2, 2, 2, 40},
      {3, 48, 7, 7, 48, 7, 7, 1, 1, 3, 3, 1, 1, 48},
      {2, 70, 1, 1, 70, 3, 3, 1, 1, 1, 1, 1, 1, 70},
      {2, 10, 6, 7, 30, 3, 2, 1, 1, 1, 1, 1, 1, 10},
      {2, 76, 6, 7, 76, 3, 3, 1, 1, 1, 1, 1, 1, 19},
      {1, 88, 9, 7, 44, 3, 3, 2, 2, 1, 1, 1, 1, 11},
      {2, 21, 5, 9, 49, 1, 3, 1, 1, 0, 1, 1, 1, 7},
      {1, 72, 6, 6, 72, 3, 3, 1, 1, 1, 1, 1, 1, 9},
      {2, 1, 9, 9, 1, 3, 3, 1, 1, 1, 1},
      {1, 512, 3, 4, 33, 3, 3, 1, 1, 1, 1},
      {1, 48, 40, 70, 34, 3, 3, 1, 1, 1, 1},
      {2, 300, 30, 31, 18, 1, 1},
  };
  std::mt19937 generator(20);
  const auto draw = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(generator() % static_cast<uint32_t>(high - low + 1));
  };
  while (all.size() < 80) {
    Problem p{draw(1, 3), 0, draw(1, 20), draw(1, 20), 0, draw(1, 5), draw(1, 5)};
    p.groups = draw(0, 3) == 0 ? draw(2, 3) : 1;
    p.C = draw(1, 20) * p.groups;
    p.K = draw(1, 40) * p.groups;
    p.stride_h = draw(1, 4), p.stride_w = draw(1, 4);
    p.pad_h = draw(0, 3), p.pad_w = draw(0, 3);
    p.dilation_h = draw(1, 3), p.dilation_w = draw(1, 3);
    p.more_pad_bottom = draw(0, 1), p.more_pad_right = draw(0, 1);
    const bool fits = p.H + 2 * p.pad_h + p.more_pad_bottom > p.dilation_h * (p.R - 1) &&
                      p.W + 2 * p.pad_w + p.more_pad_right > p.dilation_w * (p.S - 1);
    if (fits) all.push_back(p);
  }
  return all;
}

struct Index4 {
  int64_t strides[4];
  int64_t operator()(int64_t a, int64_t b, int64_t c, int64_t d) const {
    return a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3];
  }
};

Index4 map_index(Layout layout, int64_t channels, int64_t height, int64_t width) {
  if (layout == Layout::nchw) return {{channels * height * width, height * width, width, 1}};
  return {{channels * height * width, 1, width * channels, channels}};
}

// The three results, and for each element the sum of the magnitudes it was added up from, which bounds its error.
struct Expected {
  std::vector<double> output, grad_input, grad_weight;
  std::vector<double> output_scale, grad_input_scale, grad_weight_scale;
};

template <typename T>
Expected expect(const Conv2dShape& s, const Index4& in, const Index4& out, const Index4& w, const std::vector<T>& input,
                const std::vector<T>& weight, const std::vector<T>& bias, const std::vector<T>& grad_output) {
  Expected e;
  e.output.assign(grad_output.size(), 0), e.output_scale = e.output;
  e.grad_input.assign(input.size(), 0), e.grad_input_scale = e.grad_input;
  e.grad_weight.assign(weight.size(), 0), e.grad_weight_scale = e.grad_weight;
  const auto add = [](std::vector<double>& sum, std::vector<double>& scale, int64_t i, double value) {
    sum[static_cast<size_t>(i)] += value;
    scale[static_cast<size_t>(i)] += std::fabs(value);
  };
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t k = 0; k < s.K; ++k) {
      const int64_t first_c = k / s.group_k() * s.group_c();
      for (int64_t p = 0; p < s.P; ++p) {
        for (int64_t q = 0; q < s.Q; ++q) {
          const int64_t o = out(n, k, p, q);
          add(e.output, e.output_scale, o, static_cast<double>(bias[static_cast<size_t>(k)]));
          const double go = static_cast<double>(grad_output[static_cast<size_t>(o)]);
          for (int64_t r = 0; r < s.R; ++r) {
            const int64_t h = p * s.stride_h + r * s.dilation_h - s.pad_top;
            if (h < 0 || h >= s.H) continue;
            for (int64_t t = 0; t < s.S; ++t) {
              const int64_t x = q * s.stride_w + t * s.dilation_w - s.pad_left;
              if (x < 0 || x >= s.W) continue;
              for (int64_t c = 0; c < s.group_c(); ++c) {
                const int64_t i = in(n, first_c + c, h, x), j = w(k, c, r, t);
                const double iv = static_cast<double>(input[static_cast<size_t>(i)]);
                const double wv = static_cast<double>(weight[static_cast<size_t>(j)]);
                add(e.output, e.output_scale, o, iv * wv);
                add(e.grad_input, e.grad_input_scale, i, go * wv);
                add(e.grad_weight, e.grad_weight_scale, j, go * iv);
              }
            }
          }
        }
      }
    }
  }
  return e;
}

template <typename T>
bool agrees(const std::vector<T>& got, const std::vector<double>& expected, const std::vector<double>& scale) {
  constexpr double kTolerance = 32 * static_cast<double>(std::numeric_limits<T>::epsilon());
  for (size_t i = 0; i < got.size(); ++i) {
    // Written so that NaN fails.
    if (!(std::fabs(static_cast<double>(got[i]) - expected[i]) <= kTolerance * scale[i])) return false;
  }
  return true;
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <typename T>
void test_problem(Report& report, size_t number, const Problem& problem, Layout layout, bool weight_nhwc) {
  const Conv2dShape s = problem.shape();
  const Index4 in = map_index(layout, s.C, s.H, s.W), out = map_index(layout, s.K, s.P, s.Q);
  const Index4 w = map_index(weight_nhwc ? Layout::nhwc : Layout::nchw, s.group_c(), s.R, s.S);
  const cpu::WeightStrides strides{w.strides[0], w.strides[1], w.strides[2], w.strides[3]};
  const auto input = random_values<T>(s.N * s.C * s.H * s.W, 1), bias = random_values<T>(s.K, 2);
  const auto weight = random_values<T>(s.K * s.group_c() * s.R * s.S, 3);
  const auto grad_output = random_values<T>(s.N * s.K * s.P * s.Q, 4);
  const Expected expected = expect(s, in, out, w, input, weight, bias, grad_output);
  std::vector<double> output_without_bias = expected.output;
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t k = 0; k < s.K; ++k) {
      for (int64_t p = 0; p < s.P; ++p) {
        for (int64_t q = 0; q < s.Q; ++q) {
          output_without_bias[static_cast<size_t>(out(n, k, p, q))] -=
              static_cast<double>(bias[static_cast<size_t>(k)]);
        }
      }
    }
  }
  for (const cpu::Capability capability : supported_capabilities()) {
    cpu::set_capability(capability);
    for (const int64_t threads : {1, 3}) {
      g_threads = threads;
      const std::string name = "problem " + std::to_string(number) + (layout == Layout::nchw ? " nchw" : " nhwc") +
                               (weight_nhwc ? " krsc " : " kcrs ") + cpu::name_of(capability) +
                               (sizeof(T) == 4 ? " float" : " double") + " threads=" + std::to_string(threads);
      const std::vector<T> poison(std::max({input.size(), weight.size(), grad_output.size()}),
                                  std::numeric_limits<T>::quiet_NaN());
      const auto poisoned = [&](size_t size) {
        return std::vector<T>(poison.begin(), poison.begin() + static_cast<std::ptrdiff_t>(size));
      };

      auto output = poisoned(grad_output.size());
      cpu::conv2d(s, layout, input.data(), weight.data(), strides, bias.data(), output.data());
      report.check(agrees(output, expected.output, expected.output_scale), "conv2d " + name);
      auto again = poisoned(grad_output.size());
      cpu::conv2d(s, layout, input.data(), weight.data(), strides, bias.data(), again.data());
      report.check(same_bits(output, again), "conv2d repeats " + name);
      const std::vector<T> linear = output;
      for (const Activation activation : {Activation::relu, Activation::sigmoid, Activation::tanh}) {
        output = poisoned(grad_output.size());
        cpu::conv2d(s, layout, input.data(), weight.data(), strides, bias.data(), output.data(), activation);
        report.check(is_activated(output, linear, activation),
                     "conv2d with activation " + std::to_string(static_cast<int>(activation)) + " " + name);
      }
      cpu::conv2d<T>(s, layout, input.data(), weight.data(), strides, nullptr, output.data());
      report.check(agrees(output, output_without_bias, expected.output_scale), "conv2d without bias " + name);

      auto grad_input = poisoned(input.size());
      cpu::conv2d_input_grad(s, layout, grad_output.data(), weight.data(), strides, grad_input.data());
      report.check(agrees(grad_input, expected.grad_input, expected.grad_input_scale), "conv2d_input_grad " + name);

      auto grad_weight = poisoned(weight.size()), weight_again = grad_weight;
      cpu::conv2d_weight_grad(s, layout, grad_output.data(), input.data(), grad_weight.data(), strides);
      report.check(agrees(grad_weight, expected.grad_weight, expected.grad_weight_scale), "conv2d_weight_grad " + name);
      cpu::conv2d_weight_grad(s, layout, grad_output.data(), input.data(), weight_again.data(), strides);
      report.check(same_bits(grad_weight, weight_again), "conv2d_weight_grad repeats " + name);
    }
  }
}

void test_capability(Report& report) {
  for (const cpu::Capability capability : cpu::kCapabilities) {
    if (cpu::is_supported(capability)) {
      cpu::set_capability(capability);
      report.check(cpu::capability() == capability, "set_capability");
      continue;
    }
    bool thrown = false;
    try {
      cpu::set_capability(capability);
    } catch (const std::invalid_argument& error) {
      thrown = std::string(error.what()).find("baseline") != std::string::npos;
    }
    report.check(thrown, "set_capability of what the machine lacks");
  }
}

}  // namespace
}  // namespace d2l::test

int main() {
  using namespace d2l;
  test::Report report;
  test::test_capability(report);
  cpu::set_conv2d_algorithm(cpu::Conv2dAlgorithm::direct);
  const std::vector<test::Problem> problems = test::problems();
  for (size_t i = 0; i < problems.size(); ++i) {
    for (const Layout layout : {Layout::nchw, Layout::nhwc}) {
      const bool weight_nhwc = (layout == Layout::nhwc) != (i % 3 == 0);
      test::test_problem<float>(report, i, problems[i], layout, weight_nhwc);
      test::test_problem<double>(report, i, problems[i], layout, !weight_nhwc);
    }
  }
  return report.finish();
}
