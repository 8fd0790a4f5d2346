// Convolutions with images in the lanes of vectors, forward and backward, with activation and pool, against loop nests
// in double.
#include <algorithm>
#include <cmath>
#include <limits>

#include "activation.h"
#include "capabilities.h"
#include "check.h"
#include "kernels/cpu/conv2d_images.h"
#include "threads.h"

namespace d2l::test {
namespace {

constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::sigmoid, Activation::tanh};

// N is set by the test.
const Conv2dShape kShapes[] = {
    {0, 1, 28, 28, 6, 5, 5, 28, 28, 1, 1, 2, 2, 1, 1, 1}, {0, 6, 14, 14, 16, 5, 5, 10, 10, 1, 1, 0, 0, 1, 1, 1},
    {0, 3, 7, 9, 5, 3, 3, 7, 9, 1, 1, 1, 1, 1, 1, 1},     {0, 2, 6, 5, 3, 4, 1, 4, 5, 1, 1, 1, 0, 1, 1, 1},
    {0, 4, 3, 4, 13, 2, 4, 6, 3, 1, 1, 1, 2, 1, 1, 1},    {0, 7, 1, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
};

using Values = std::vector<double>;

struct Places {
  Layout layout;
  int64_t channels, rows, columns;
  size_t operator()(int64_t n, int64_t c, int64_t r, int64_t s) const {
    return static_cast<size_t>(layout == Layout::nchw ? ((n * channels + c) * rows + r) * columns + s
                                                      : ((n * rows + r) * columns + s) * channels + c);
  }
};

template <typename Function>
void for_taps(const Conv2dShape& s, Function&& function) {
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t k = 0; k < s.K; ++k) {
      for (int64_t p = 0; p < s.P; ++p) {
        for (int64_t q = 0; q < s.Q; ++q) {
          for (int64_t c = 0; c < s.C; ++c) {
            for (int64_t r = 0; r < s.R; ++r) {
              for (int64_t t = 0; t < s.S; ++t) {
                const int64_t h = p + r - s.pad_top, w = q + t - s.pad_left;
                if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
                function(n, k, p, q, c, h, w, static_cast<size_t>(((k * s.C + c) * s.R + r) * s.S + t));
              }
            }
          }
        }
      }
    }
  }
}

// Relative to the sum of magnitudes, which bounds what rounding can do.
template <typename T>
bool is_near(const std::vector<T>& got, const Values& expected, const Values& magnitude) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double bound = 64 * static_cast<double>(std::numeric_limits<T>::epsilon()) * (magnitude[i] + 1e-30);
    if (!(std::fabs(static_cast<double>(got[i]) - expected[i]) <= bound)) return false;
  }
  return true;
}

template <typename T>
std::vector<T> unset(size_t count) {
  return std::vector<T>(count, std::numeric_limits<T>::quiet_NaN());
}

template <typename T>
void test_case(Report& report, const Conv2dShape& s, Layout layout, Activation activation, bool is_pooled,
               const std::string& name) {
  const Places in{layout, s.C, s.H, s.W}, out{layout, s.K, s.P, s.Q}, small{layout, s.K, s.P / 2, s.Q / 2};
  const int64_t inputs = s.N * s.C * s.H * s.W, outputs = s.N * s.K * s.P * s.Q;
  const int64_t results = is_pooled ? s.N * s.K * (s.P / 2) * (s.Q / 2) : outputs, weights = s.K * s.C * s.R * s.S;
  const auto input = random_values<T>(inputs, 1), weight = random_values<T>(weights, 2),
             bias = random_values<T>(s.K, 3);
  const auto grad_result = random_values<T>(results, 4);
  const cpu::WeightStrides strides{s.C * s.R * s.S, s.R * s.S, s.S, 1};

  Values sums(static_cast<size_t>(outputs)), scale = sums, map = sums;
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t k = 0; k < s.K; ++k) {
      for (int64_t p = 0; p < s.P; ++p) {
        for (int64_t q = 0; q < s.Q; ++q) sums[out(n, k, p, q)] = static_cast<double>(bias[static_cast<size_t>(k)]);
      }
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) scale[i] = std::fabs(sums[i]) + 1;
  for_taps(s, [&](int64_t n, int64_t k, int64_t p, int64_t q, int64_t c, int64_t h, int64_t w, size_t tap) {
    const double product = static_cast<double>(input[in(n, c, h, w)]) * static_cast<double>(weight[tap]);
    sums[out(n, k, p, q)] += product;
    scale[out(n, k, p, q)] += std::fabs(product);
  });
  for (size_t i = 0; i < sums.size(); ++i) map[i] = activated(sums[i], activation);

  auto output = unset<T>(map.size());
  auto pooled = unset<T>(static_cast<size_t>(s.N * s.K * (s.P / 2) * (s.Q / 2)));
  auto pooled_alone = pooled;
  const cpu::ImagesForward<T> forward{s,       layout,      layout,     input.data(),  weight.data(),
                                      strides, bias.data(), activation, output.data(), pooled.data()};
  cpu::conv2d_images(forward);
  report.check(is_near(output, map, scale), "conv2d_images " + name);
  cpu::ImagesForward<T> without_map = forward;
  without_map.output = nullptr;
  without_map.pooled = pooled_alone.data();
  cpu::conv2d_images(without_map);
  Values averages(pooled.size()), average_scale = averages;
  const auto for_windows = [&](auto&& function) {
    for (int64_t n = 0; n < s.N; ++n) {
      for (int64_t k = 0; k < s.K; ++k) {
        for (int64_t p = 0; p < s.P / 2 * 2; ++p) {
          for (int64_t q = 0; q < s.Q / 2 * 2; ++q) function(out(n, k, p, q), small(n, k, p / 2, q / 2));
        }
      }
    }
  };
  for_windows([&](size_t from, size_t to) {
    averages[to] += map[from] / 4;
    average_scale[to] += scale[from];
  });
  report.check(is_near(pooled, averages, average_scale), "pooled " + name);
  report.check(pooled_alone == pooled, "pooled alone " + name);

  // The backward starts from the map as it was rounded.
  Values grad(map.size());
  if (is_pooled) {
    for_windows([&](size_t to, size_t from) { grad[to] = static_cast<double>(grad_result[from]) / 4; });
  } else {
    for (size_t i = 0; i < grad.size(); ++i) grad[i] = static_cast<double>(grad_result[i]);
  }
  for (size_t i = 0; i < grad.size(); ++i) grad[i] *= derivative(static_cast<double>(output[i]), activation);
  Values grad_input(input.size()), input_scale = grad_input, grad_weight(weight.size()), weight_scale = grad_weight;
  Values grad_bias(bias.size()), bias_scale = grad_bias;
  for_taps(s, [&](int64_t n, int64_t k, int64_t p, int64_t q, int64_t c, int64_t h, int64_t w, size_t tap) {
    const double g = grad[out(n, k, p, q)];
    const double to_input = g * static_cast<double>(weight[tap]);
    const double to_weight = g * static_cast<double>(input[in(n, c, h, w)]);
    grad_input[in(n, c, h, w)] += to_input;
    input_scale[in(n, c, h, w)] += std::fabs(to_input);
    grad_weight[tap] += to_weight;
    weight_scale[tap] += std::fabs(to_weight);
  });
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t k = 0; k < s.K; ++k) {
      for (int64_t p = 0; p < s.P; ++p) {
        for (int64_t q = 0; q < s.Q; ++q) {
          grad_bias[static_cast<size_t>(k)] += grad[out(n, k, p, q)];
          bias_scale[static_cast<size_t>(k)] += std::fabs(grad[out(n, k, p, q)]);
        }
      }
    }
  }
  auto got_input = unset<T>(input.size()), got_weight = unset<T>(weight.size()), got_bias = unset<T>(bias.size());
  const cpu::ImagesGradients<T> gradients{s,
                                          layout,
                                          layout,
                                          layout,
                                          grad_result.data(),
                                          is_pooled,
                                          activation,
                                          output.data(),
                                          input.data(),
                                          weight.data(),
                                          strides,
                                          got_input.data(),
                                          got_weight.data(),
                                          strides,
                                          got_bias.data()};
  cpu::conv2d_images_grads(gradients);
  report.check(is_near(got_input, grad_input, input_scale), "grad_input " + name);
  report.check(is_near(got_weight, grad_weight, weight_scale), "grad_weight " + name);
  report.check(is_near(got_bias, grad_bias, bias_scale), "grad_bias " + name);

  auto again_weight = unset<T>(weight.size());
  cpu::ImagesGradients<T> alone = gradients;
  alone.grad_input = alone.grad_bias = nullptr;
  alone.grad_weight = again_weight.data();
  cpu::conv2d_images_grads(alone);
  report.check(again_weight == got_weight, "grad_weight alone " + name);

  auto over_input = input;
  cpu::ImagesGradients<T> in_place = gradients;
  in_place.input = in_place.grad_input = over_input.data();
  in_place.grad_weight = again_weight.data();
  cpu::conv2d_images_grads(in_place);
  report.check(over_input == got_input && again_weight == got_weight, "grad_input over input " + name);
}

template <typename T>
void test_capability(Report& report, const std::string& name) {
  for (size_t i = 0; i < std::size(kShapes); ++i) {
    for (const int64_t images : {1, 16, 21}) {
      Conv2dShape shape = kShapes[i];
      shape.N = images;
      for (const Activation activation : kActivations) {
        const bool is_nhwc = (static_cast<size_t>(images) + i + static_cast<size_t>(activation)) % 2 == 0;
        for (const bool is_pooled : {false, true}) {
          test_case<T>(report, shape, is_nhwc ? Layout::nhwc : Layout::nchw, activation, is_pooled,
                       name + ", shape " + std::to_string(i) + ", images " + std::to_string(images) + ", activation " +
                           std::to_string(static_cast<int>(activation)) + (is_nhwc ? ", nhwc" : ", nchw") +
                           (is_pooled ? ", pooled" : ""));
        }
      }
    }
  }
}

}  // namespace
}  // namespace d2l::test

int main() {
  using namespace d2l;
  test::Report report;
  for (const cpu::Capability capability : test::supported_capabilities()) {
    cpu::set_capability(capability);
    for (const int64_t threads : {1, 3}) {
      test::g_threads = threads;
      const std::string name = std::string(cpu::name_of(capability)) + " " + std::to_string(threads) + " threads";
      test::test_capability<float>(report, name + " float");
      test::test_capability<double>(report, name + " double");
    }
  }
  return report.finish();
}
