// Winograd convolutions on the CPU against the direct ones in double: all tile sizes and activations, every instruction
// set of the machine, both layouts, one thread and several; the error for normally distributed inputs; what is chosen
// when.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "activation.h"
#include "capabilities.h"
#include "check.h"
#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/conv2d_algorithm.h"
#include "kernels/cpu/winograd_kernel.h"
#include "threads.h"

namespace d2l::test {
namespace {

constexpr Activation kActivations[] = {Activation::relu, Activation::sigmoid, Activation::tanh};

struct Problem {
  int64_t N, C, H, W, K;
  int64_t pad_top = 1, pad_left = 1, pad_bottom = 1, pad_right = 1;
  int64_t taps = 3, stride = 1;

  Conv2dShape shape() const {
    const int64_t rows = (H + pad_top + pad_bottom - taps) / stride + 1;
    const int64_t columns = (W + pad_left + pad_right - taps) / stride + 1;
    return {N, C, H, W, K, taps, taps, rows, columns, stride, stride, pad_top, pad_left, 1, 1, 1};
  }
};

// Maps and channels around the edges of tiles, vectors and blocks.
std::vector<Problem> problems() {
  std::vector<Problem> all = {
      {1, 1, 1, 1, 1},
      {3, 5, 1, 1, 7},
      {1, 16, 2, 2, 32},
      {3, 17, 3, 3, 33},
      {1, 40, 4, 4, 70, 0, 0, 0, 0},
      {2, 32, 6, 6, 16},
      {1, 3, 5, 9, 48, 2, 2, 2, 2},
      {3, 33, 7, 7, 17, 0, 1, 2, 0},
      {1, 16, 8, 1, 16, 1, 2, 1, 0},
      {1, 9, 1, 300, 40},
      {2, 70, 14, 13, 20, 2, 0, 1, 2},
      {3, 24, 17, 23, 36},
      {1, 64, 17, 23, 64, 0, 2, 2, 1},
      {1, 130, 12, 12, 96},
      {1, 512, 5, 6, 40},
      {40, 160, 3, 3, 160},
      {1, 3, 6, 7, 5, 5, 4, 3, 6},
      {1, 8, 66, 70, 8},
      {0, 3, 8, 8, 4},
      {1, 1, 1, 1, 1, 2, 2, 2, 2, 5},
      {2, 6, 14, 14, 16, 0, 0, 0, 0, 5},
      {1, 33, 5, 5, 17, 0, 0, 0, 0, 5},
      {3, 48, 3, 3, 128, 2, 2, 2, 2, 5},
      {2, 17, 6, 9, 48, 2, 4, 3, 1, 5},
      {1, 20, 26, 13, 70, 2, 2, 2, 2, 5},
      {1, 200, 9, 7, 33, 2, 1, 0, 2, 5},
      {1, 4, 6, 5, 3, 9, 7, 5, 6, 5},
      {0, 3, 8, 8, 4, 2, 2, 2, 2, 5},
      {1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 2},
      {3, 17, 2, 3, 33, 1, 1, 1, 1, 3, 2},
      {2, 40, 6, 5, 70, 1, 1, 0, 1, 3, 2},
      {1, 33, 7, 8, 17, 1, 1, 1, 0, 3, 2},
      {2, 64, 24, 24, 32, 1, 1, 1, 1, 3, 2},
      {1, 20, 13, 26, 48, 1, 1, 2, 2, 3, 2},
      {40, 160, 6, 6, 160, 1, 1, 1, 1, 3, 2},
      {0, 3, 8, 8, 4, 1, 1, 1, 1, 3, 2},
  };
  std::mt19937 generator(30);
  const auto draw = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(generator() % static_cast<uint32_t>(high - low + 1));
  };
  while (all.size() < 66) {
    const int64_t taps = draw(0, 2) == 0 ? 5 : 3;
    const Problem p{draw(1, 3),        draw(1, 100),      draw(1, 18),       draw(1, 18),       draw(1, 100),
                    draw(0, taps - 1), draw(0, taps - 1), draw(0, taps - 1), draw(0, taps - 1), taps};
    if (p.shape().P > 0 && p.shape().Q > 0) all.push_back(p);
  }
  return all;
}

std::vector<float> normal_values(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = distribution(generator);
  return values;
}

std::vector<double> to_double(const std::vector<float>& values) { return {values.begin(), values.end()}; }

// NaN if any element is.
double relative_error(const std::vector<float>& got, const std::vector<double>& expected) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return got.empty() ? 0 : std::sqrt(error / norm);
}

struct Results {
  std::vector<float> output, grad_input, grad_weight;
};

struct Data {
  Conv2dShape shape;
  Layout layout;
  cpu::WeightStrides strides;
  std::vector<float> input, weight, bias, grad_output;
  std::vector<double> output, grad_input, grad_weight;  // expected

  Data(const Conv2dShape& s, Layout data_layout, bool weight_nhwc)
      : shape(s),
        layout(data_layout),
        strides(weight_nhwc ? cpu::WeightStrides{s.R * s.S * s.C, 1, s.S * s.C, s.C}
                            : cpu::WeightStrides{s.R * s.S * s.C, s.R * s.S, s.S, 1}),
        input(normal_values(s.N * s.C * s.H * s.W, 1)),
        weight(normal_values(s.K * s.C * s.R * s.S, 2)),
        bias(normal_values(s.K, 3)),
        grad_output(normal_values(s.N * s.K * s.P * s.Q, 4)),
        output(grad_output.size()),
        grad_input(input.size()),
        grad_weight(weight.size()) {
    const auto x = to_double(input), w = to_double(weight), b = to_double(bias), g = to_double(grad_output);
    cpu::conv2d(s, layout, x.data(), w.data(), strides, b.data(), output.data());
    cpu::conv2d_input_grad(s, layout, g.data(), w.data(), strides, grad_input.data());
    cpu::conv2d_weight_grad(s, layout, g.data(), x.data(), grad_weight.data(), strides);
  }

  Results poisoned() const {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    return {std::vector<float>(output.size(), nan), std::vector<float>(grad_input.size(), nan),
            std::vector<float>(grad_weight.size(), nan)};
  }

  cpu::CorrelationAxis rows() const { return {shape.H, shape.P, shape.R, shape.stride_h, shape.pad_top, 1}; }
  cpu::CorrelationAxis columns() const { return {shape.W, shape.Q, shape.S, shape.stride_w, shape.pad_left, 1}; }

  // With tiles of this size, whatever the launchers would choose.
  Results with_tile(int tile, Activation activation = Activation::none, bool in_parts = true) const {
    Results results = poisoned();
    if (shape.N == 0) return results;
    cpu::Correlation<float> problem{};
    problem.images = shape.N;
    problem.groups = 1;
    problem.depth = shape.C;
    problem.width = shape.K;
    problem.rows = rows();
    problem.columns = columns();
    problem.source_layout = problem.result_layout = layout;
    problem.source_channels = shape.C;
    problem.result_channels = shape.K;
    problem.source = input.data();
    problem.weight = weight.data();
    problem.weight_depth = strides.c;
    problem.weight_width = strides.k;
    problem.weight_row = strides.r;
    problem.weight_column = strides.s;
    problem.bias = bias.data();
    problem.activation = activation;
    problem.result = results.output.data();
    D2L_CALL_TILED(winograd_correlate, problem, tile);

    problem.transposed = true;
    std::swap(problem.depth, problem.width);
    std::swap(problem.source_channels, problem.result_channels);
    std::swap(problem.weight_depth, problem.weight_width);
    std::swap(problem.rows.source, problem.rows.result);
    std::swap(problem.columns.source, problem.columns.result);
    problem.source = grad_output.data();
    problem.bias = nullptr;
    problem.activation = Activation::none;
    problem.result = results.grad_input.data();
    D2L_CALL_TILED(winograd_correlate, problem, tile);

    cpu::WeightGradient<float> gradient{};
    gradient.images = shape.N;
    gradient.groups = 1;
    gradient.depth = shape.C;
    gradient.width = shape.K;
    gradient.rows = rows();
    gradient.columns = columns();
    gradient.input_layout = gradient.output_layout = layout;
    gradient.input_channels = shape.C;
    gradient.output_channels = shape.K;
    gradient.input = input.data();
    gradient.grad_output = grad_output.data();
    gradient.grad_weight = results.grad_weight.data();
    gradient.weight_depth = strides.c;
    gradient.weight_width = strides.k;
    gradient.weight_row = strides.r;
    gradient.weight_column = strides.s;
    if (in_parts) {
      D2L_CALL_TILED(winograd_weight_gradient, gradient, tile);
    } else {
      D2L_CALL_BEST(winograd_weight_gradient, gradient, tile);
    }
    return results;
  }

  Results with_launchers() const {
    Results results = poisoned();
    cpu::conv2d(shape, layout, input.data(), weight.data(), strides, bias.data(), results.output.data());
    cpu::conv2d_input_grad(shape, layout, grad_output.data(), weight.data(), strides, results.grad_input.data());
    cpu::conv2d_weight_grad(shape, layout, grad_output.data(), input.data(), results.grad_weight.data(), strides);
    return results;
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_errors(Report& report, const Data& data, const Results& results, double bound, const std::string& name) {
  const double errors[] = {relative_error(results.output, data.output),
                           relative_error(results.grad_input, data.grad_input),
                           relative_error(results.grad_weight, data.grad_weight)};
  const char* const passes[] = {"forward ", "input_grad ", "weight_grad "};
  for (int i = 0; i < 3; ++i) {
    // Written so that NaN fails.
    report.check(errors[i] <= bound, passes[i] + name + ": error " + std::to_string(errors[i] * 1e6) + "e-6");
  }
}

void test_problem(Report& report, size_t number, const Problem& problem, Layout layout, bool weight_nhwc) {
  // Few elements may be further off than many are on average.
  constexpr double kOutlier = 3;
  Data data(problem.shape(), layout, weight_nhwc);
  if (problem.N == 0) std::fill(data.grad_weight.begin(), data.grad_weight.end(), 0.0);
  for (const cpu::Capability capability : supported_capabilities()) {
    cpu::set_capability(capability);
    for (const int64_t threads : {1, 3}) {
      g_threads = threads;
      const std::string name = "problem " + std::to_string(number) + (layout == Layout::nchw ? " nchw" : " nhwc") +
                               (weight_nhwc ? " krsc " : " kcrs ") + cpu::name_of(capability) +
                               " threads=" + std::to_string(threads);
      if (problem.N == 0) {
        const Results results = data.with_launchers();
        report.check(same_bits(results.grad_weight, std::vector<float>(results.grad_weight.size())), "no image");
        continue;
      }
      for (const auto& [taps, stride, tile, error] : cpu::kWinogradTiles) {
        if (taps != problem.taps || stride != problem.stride) continue;
        const Results results = data.with_tile(tile), again = data.with_tile(tile);
        check_errors(report, data, results, kOutlier * error, name + " tile=" + std::to_string(tile));
        report.check(same_bits(results.output, again.output) && same_bits(results.grad_input, again.grad_input) &&
                         same_bits(results.grad_weight, again.grad_weight),
                     "repeats " + name + " tile=" + std::to_string(tile));
        const Activation activation = kActivations[number % std::size(kActivations)];
        report.check(is_activated(data.with_tile(tile, activation).output, results.output, activation),
                     "activation " + name + " tile=" + std::to_string(tile));
      }
    }
  }
  g_threads = 1;
}

// The bounds of conv2d_algorithm.h, on maps large enough for many blocks.
void test_error_bounds(Report& report) {
  for (const auto& [taps, stride, tile, error] : cpu::kWinogradTiles) {
    for (const int64_t channels : {16, 64, 256, 512}) {
      const int64_t pad = taps / 2;
      const Data data(Problem{2, channels, 24, 24, 64, pad, pad, pad, pad, taps, stride}.shape(), Layout::nhwc, true);
      for (const cpu::Capability capability : supported_capabilities()) {
        cpu::set_capability(capability);
        const Results results = data.with_tile(tile);
        const std::string name = "taps=" + std::to_string(taps) + " stride=" + std::to_string(stride) +
                                 " tile=" + std::to_string(tile) + " C=" + std::to_string(channels) + " " +
                                 cpu::name_of(capability);
        check_errors(report, data, results, error, name);
        std::printf("relative error %s: forward %.2g, input_grad %.2g, weight_grad %.2g\n", name.c_str(),
                    relative_error(results.output, data.output), relative_error(results.grad_input, data.grad_input),
                    relative_error(results.grad_weight, data.grad_weight));
      }
    }
  }
}

// All ways to share the work: two threads, each with its own copy of what all of them need, and odd numbers of blocks;
// more threads than blocks of channels or than slices of tiles are worth, one of them with more tiles than transformed
// pixels are kept of at a time. A sum of the forward pass and of the input gradient does not depend on the threads.
void test_sharing(Report& report) {
  const Problem problems[] = {{16, 176, 6, 6, 32},
                              {16, 72, 6, 6, 208},
                              {1, 130, 9, 9, 40},
                              {6, 40, 14, 14, 256},
                              {4, 130, 14, 14, 160},
                              {70, 160, 14, 14, 160},
                              {4, 130, 14, 14, 160, 2, 2, 2, 2, 5},
                              {6, 40, 14, 14, 256, 1, 1, 1, 1, 3, 2},
                              {4, 130, 14, 14, 160, 1, 1, 1, 1, 3, 2}};
  for (const Problem& problem : problems) {
    const Data data(problem.shape(), Layout::nhwc, true);
    for (const cpu::Capability capability : supported_capabilities()) {
      cpu::set_capability(capability);
      for (const auto& [taps, stride, tile, error] : cpu::kWinogradTiles) {
        if (taps != problem.taps || stride != problem.stride || (stride == 1 && tile < 4)) continue;
        const Results alone = data.with_tile(tile);
        for (const int64_t threads : {2, 12}) {
          g_threads = threads;
          const Results results = data.with_tile(tile), again = data.with_tile(tile);
          g_threads = 1;
          const std::string name = std::to_string(threads) + " threads, " + std::to_string(problem.N) + "x" +
                                   std::to_string(problem.C) + "->" + std::to_string(problem.K) +
                                   ", tile=" + std::to_string(tile) + " " + cpu::name_of(capability);
          check_errors(report, data, results, error, name);
          report.check(same_bits(results.output, alone.output) && same_bits(results.grad_input, alone.grad_input),
                       "as one thread, " + name);
          report.check(same_bits(results.grad_weight, again.grad_weight), "repeats, " + name);
        }
      }
    }
  }
}

// The launchers obey the switch, for all that is possible and nothing else.
void test_choice(Report& report) {
  using cpu::Conv2dAlgorithm;
  using cpu::Conv2dPass;
  const Conv2dPass passes[] = {Conv2dPass::forward, Conv2dPass::input_grad, Conv2dPass::weight_grad};
  const Conv2dShape large = Problem{4, 128, 28, 28, 128}.shape(), tiny = Problem{1, 1, 6, 6, 2}.shape();
  const Conv2dShape large_5x5 = Problem{4, 96, 26, 26, 128, 2, 2, 2, 2, 5}.shape();
  Conv2dShape strided = large, dilated = large, grouped = large, wide = large, empty = large;
  strided.stride_h = 2, strided.P = 14;
  const Conv2dShape strided_both = Problem{4, 128, 24, 24, 128, 1, 1, 1, 1, 3, 2}.shape();
  const Conv2dShape strided_valid = Problem{4, 128, 24, 24, 128, 0, 0, 0, 0, 3, 2}.shape();
  dilated.dilation_w = 2, dilated.Q = 26;
  grouped.groups = 2;
  wide.S = 5, wide.Q = 26;
  empty.N = 0;
  // The taps of a row share a vector of the direct kernel, of any capability.
  cpu::set_conv2d_algorithm(Conv2dAlgorithm::automatic);
  const Conv2dShape stem = Problem{8, 1, 224, 224, 64}.shape();
  report.check(cpu::chosen_algorithm(stem, Conv2dPass::input_grad) == Conv2dAlgorithm::direct, "auto: stem");
  for (const Conv2dPass pass : passes) {
    cpu::set_conv2d_algorithm(Conv2dAlgorithm::automatic);
    report.check(cpu::chosen_algorithm(large, pass) == Conv2dAlgorithm::winograd, "auto: large");
    report.check(cpu::winograd_tile(large, pass) >= 4, "auto: tile of large");
    report.check(cpu::winograd_tile(large_5x5, pass) == 4, "auto: tile of large 5x5");
    report.check(cpu::winograd_tile(strided_both, pass) == 3, "auto: tile of stride 2");
    report.check(cpu::chosen_algorithm(tiny, pass) == Conv2dAlgorithm::direct, "auto: tiny");
    cpu::set_conv2d_algorithm(Conv2dAlgorithm::direct);
    report.check(cpu::chosen_algorithm(large, pass) == Conv2dAlgorithm::direct, "direct");
    cpu::set_conv2d_algorithm(Conv2dAlgorithm::winograd);
    report.check(cpu::chosen_algorithm(tiny, pass) == Conv2dAlgorithm::winograd, "winograd: tiny");
    report.check((cpu::winograd_tile(strided_valid, pass) == 3) == (pass != Conv2dPass::input_grad),
                 "winograd: stride 2 without padding");
    for (const Conv2dShape& impossible : {strided, dilated, grouped, wide, empty}) {
      report.check(cpu::chosen_algorithm(impossible, pass) == Conv2dAlgorithm::direct, "winograd: impossible");
      report.check(cpu::describe_algorithm(impossible, pass) == "direct", "describe: direct");
    }
  }
  report.check(cpu::describe_algorithm(large_5x5, Conv2dPass::forward) == "winograd F(4x4,5x5)", "describe");
  report.check(cpu::describe_algorithm(large_5x5, Conv2dPass::weight_grad) == "winograd F(5x5,4x4)",
               "describe the weight gradient");
  report.check(cpu::describe_algorithm(strided_both, Conv2dPass::forward) == "winograd F(3x3,3x3) with stride 2",
               "describe a stride");
  for (const int64_t stride : {1, 2}) {
    const Conv2dShape shape = Problem{2, 64, 16, 16, 64, 1, 1, 1, 1, 3, stride}.shape();
    const Data data(shape, Layout::nhwc, true);
    for (const Conv2dAlgorithm algorithm : {Conv2dAlgorithm::winograd, Conv2dAlgorithm::automatic}) {
      cpu::set_conv2d_algorithm(algorithm);
      const Results results = data.with_launchers();
      const auto matches = [&](Conv2dPass pass, const std::vector<float> Results::* result) {
        const int tile = cpu::winograd_tile(shape, pass);
        const bool in_parts = tile > 0 && cpu::winograd_suits_parts(shape, tile);
        return tile == 0 || same_bits(results.*result, data.with_tile(tile, Activation::none, in_parts).*result);
      };
      report.check(matches(Conv2dPass::forward, &Results::output), "launcher: forward");
      report.check(matches(Conv2dPass::input_grad, &Results::grad_input), "launcher: input_grad");
      report.check(matches(Conv2dPass::weight_grad, &Results::grad_weight), "launcher: weight_grad");
    }
    cpu::set_conv2d_algorithm(Conv2dAlgorithm::direct);
    check_errors(report, data, data.with_launchers(), 5e-7, "strict");
  }
}

// Before anything else asks for the algorithm.
void test_environment(Report& report) {
  bool thrown = false;
  setenv("D2LKERNELS_CONV_ALGORITHM", "fft", 1);
  try {
    cpu::conv2d_algorithm();
  } catch (const std::invalid_argument& error) {
    thrown = std::string(error.what()).find("auto, direct, winograd, but got 'fft'") != std::string::npos;
  }
  report.check(thrown, "an unknown algorithm in the environment");
  setenv("D2LKERNELS_CONV_ALGORITHM", "winograd", 1);
  report.check(cpu::conv2d_algorithm() == cpu::Conv2dAlgorithm::winograd, "the algorithm of the environment");
}

}  // namespace
}  // namespace d2l::test

int main() {
  using namespace d2l;
  test::Report report;
  test::test_environment(report);
  const std::vector<test::Problem> problems = test::problems();
  for (size_t i = 0; i < problems.size(); ++i) {
    for (const Layout layout : {Layout::nchw, Layout::nhwc}) {
      test::test_problem(report, i, problems[i], layout, (layout == Layout::nhwc) != (i % 3 == 0));
    }
  }
  test::test_sharing(report);
  test::test_error_bounds(report);
  test::test_choice(report);
  return report.finish();
}
