// Runs the convolution launchers on the emulator and compares them with plain loops in double precision.
//
//   test_conv2d_launchers float32|tf32|float64|bfloat16|float16 shapes|moments|ranges|large|schedules|limits
//
// Inputs are rounded to the element type first. Small integers must come out exactly (rounded once), random numbers
// within a bound on the rounding of products and sums. Results and workspace start as NaN. Exit status 0: all is well.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "conv2d_cases.h"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/conv2d.h"
#include "kernels/cuda/conv2d_divisor.cuh"

namespace {

using d2l::Activation;
using d2l::Conv2dShape;
using d2l::cuda::DType;
using d2l::cuda::Float32Precision;
using d2l::cuda::LaunchStatus;
using d2l::tests::Case;
using d2l::tests::kCases;

int failures = 0;
int checks = 0;

void check(bool ok, const std::string& what) {
  ++checks;
  if (ok) return;
  ++failures;
  std::printf("FAILED %s\n", what.c_str());
}

// An array that starts `misalign` elements after an aligned address and ends with its allocation.
template <typename T>
class Tensor {
 public:
  Tensor(int64_t elements, int misalign) : storage_(elements + misalign), misalign_(misalign) { poison(); }
  T* data() { return storage_.data() + misalign_; }
  const T* data() const { return storage_.data() + misalign_; }
  int64_t size() const { return static_cast<int64_t>(storage_.size()) - misalign_; }
  double operator[](int64_t i) const { return static_cast<double>(d2l::cuda::widen(data()[i])); }
  void poison() { std::memset(static_cast<void*>(storage_.data()), 0xff, storage_.size() * sizeof(T)); }
  void fill(std::mt19937_64& random, bool integers) {
    std::uniform_real_distribution<double> sizes(0.05, 1.0);
    for (int64_t i = 0; i < size(); ++i) {
      const double magnitude = integers ? static_cast<double>(1 + random() % 2) : sizes(random);
      data()[i] = d2l::cuda::narrow<T>(static_cast<d2l::cuda::accumulate_t<T>>(random() % 2 ? magnitude : -magnitude));
    }
  }

 private:
  std::vector<T> storage_;
  int misalign_;
};

struct Reference {
  std::vector<double> value, magnitude;  // the sum of the terms, of their absolute values
  explicit Reference(int64_t elements) : value(elements), magnitude(elements) {}
  void add(int64_t i, double term) { value[i] += term, magnitude[i] += std::abs(term); }
};

// Calls term(output index, input index, weight index) for every product of the cross-correlation.
template <typename Term>
void for_each_product(const Conv2dShape& x, Term&& term) {
  for (int64_t n = 0; n < x.N; ++n)
    for (int64_t p = 0; p < x.P; ++p)
      for (int64_t q = 0; q < x.Q; ++q)
        for (int64_t r = 0; r < x.R; ++r)
          for (int64_t s = 0; s < x.S; ++s) {
            const int64_t h = p * x.stride_h + r * x.dilation_h - x.pad_top;
            const int64_t w = q * x.stride_w + s * x.dilation_w - x.pad_left;
            if (h < 0 || h >= x.H || w < 0 || w >= x.W) continue;
            for (int64_t k = 0; k < x.K; ++k)
              for (int64_t c = 0; c < x.group_c(); ++c)
                term(((n * x.P + p) * x.Q + q) * x.K + k,
                     ((n * x.H + h) * x.W + w) * x.C + k / x.group_k() * x.group_c() + c,
                     ((k * x.R + r) * x.S + s) * x.group_c() + c);
          }
}

template <typename T>
struct Rounding;  // relative error of one store
template <>
struct Rounding<float> {
  static constexpr double kStore = 0x1p-24, kFloor = 0;
};
template <>
struct Rounding<double> {
  static constexpr double kStore = 0x1p-53, kFloor = 0;
};
template <>
struct Rounding<__nv_bfloat16> {
  static constexpr double kStore = 0x1p-8, kFloor = 0;
};
template <>
struct Rounding<__half> {
  static constexpr double kStore = 0x1p-11, kFloor = 0x1p-25;
};

template <typename T>
void compare(const Tensor<T>& result, const Reference& reference, bool integers, bool tf32, const std::string& what) {
  const double product = std::is_same_v<T, double> ? 1e-14 : tf32 ? 0x1.01p-10 : 1e-6;
  double worst = 0;
  int64_t where = -1, wrong = 0;
  for (int64_t i = 0; i < result.size(); ++i) {
    const double value = reference.value[i];
    const T rounded = d2l::cuda::narrow<T>(static_cast<d2l::cuda::accumulate_t<T>>(value));
    const double wanted = integers ? static_cast<double>(d2l::cuda::widen(rounded)) : value;
    const double bound = integers ? 0
                                  : product * reference.magnitude[i] + Rounding<T>::kFloor +
                                        Rounding<T>::kStore * (std::abs(value) + product * reference.magnitude[i]);
    const double error = std::abs(result[i] - wanted);
    if (!(error <= bound)) ++wrong;
    if (!(error <= worst)) worst = error, where = i;
  }
  check(wrong == 0, what + (integers ? " integers" : " random") + ": " + std::to_string(wrong) + " of " +
                        std::to_string(result.size()) + " wrong, the worst by " + std::to_string(worst) + " at " +
                        std::to_string(where) +
                        (where < 0 ? "" : ", which should be " + std::to_string(reference.value[where])));
}

template <typename T>
struct Problem {
  Conv2dShape shape;
  DType dtype;
  Float32Precision precision;
  Tensor<T> input, weight, bias, grad_output;

  Problem(const Case& x, DType dtype, Float32Precision precision, bool integers)
      : shape(x.shape()),
        dtype(dtype),
        precision(precision),
        input(shape.N * shape.H * shape.W * shape.C, x.misalign),
        weight(shape.K * shape.R * shape.S * shape.group_c(), x.misalign),
        bias(shape.K, x.misalign),
        grad_output(shape.N * shape.P * shape.Q * shape.K, x.misalign) {
    std::mt19937_64 random(1234);
    for (Tensor<T>* tensor : {&input, &weight, &bias, &grad_output}) tensor->fill(random, integers);
  }
  LaunchStatus forward(Tensor<T>& output, bool with_bias, Activation activation = Activation::none) const {
    return d2l::cuda::conv2d(shape, dtype, precision, input.data(), weight.data(), with_bias ? bias.data() : nullptr,
                             output.data(), nullptr, activation);
  }
  // `statistics` holds the mean and the variance of each output channel.
  template <typename Stat>
  LaunchStatus moments(Tensor<T>& output, std::vector<Stat>& statistics, bool with_bias) const {
    constexpr unsigned char kNan = 0xff;  // in every byte
    const auto bytes = static_cast<size_t>(d2l::cuda::conv2d_moments_workspace(shape, dtype));
    constexpr size_t kGuard = 64;
    std::vector<unsigned char> workspace(bytes + kGuard, kNan);
    const LaunchStatus status = d2l::cuda::conv2d_moments(
        shape, dtype, precision, input.data(), weight.data(), with_bias ? bias.data() : nullptr, output.data(),
        statistics.data(), statistics.data() + shape.K, workspace.data(), nullptr);
    for (size_t i = bytes; i < workspace.size(); ++i) check(workspace[i] == kNan, "written behind the workspace");
    return status;
  }
  LaunchStatus input_grad(Tensor<T>& result) const {
    return d2l::cuda::conv2d_input_grad(shape, dtype, precision, grad_output.data(), weight.data(), result.data(),
                                        nullptr);
  }
  LaunchStatus weight_grad(Tensor<T>& result) const {
    constexpr unsigned char kNan = 0xff;  // in every byte
    std::vector<unsigned char> workspace(d2l::cuda::conv2d_weight_grad_workspace(shape, dtype), kNan);
    return d2l::cuda::conv2d_weight_grad(shape, dtype, precision, grad_output.data(), input.data(), result.data(),
                                         workspace.data(), nullptr);
  }
};

void check_launched(const LaunchStatus& status, const std::string& what) {
  check(status.error == 0 && status.grid[0] > 0 && status.block[0] > 0,
        what + ": " + (status.error == 0 ? "not launched" : d2l::cuda::error_string(status.error)));
}

double exact_activation(double x, Activation activation) {
  if (activation == Activation::relu) return std::max(x, 0.0);
  return activation == Activation::sigmoid ? 1 / (1 + std::exp(-x)) : std::tanh(x);
}

enum Product : unsigned { kForward = 1, kInputGrad = 2, kWeightGrad = 4, kAll = 7 };

// Returns the threads in a block of the last launch.
template <typename T>
unsigned run_case(const Case& x, DType dtype, Float32Precision precision, Product products = kAll) {
  const bool tf32 = std::is_same_v<T, float> && precision == Float32Precision::tf32;
  unsigned threads = 0;
  const auto run = [&](const std::string& what, const Reference& reference, bool integers, auto&& launch) {
    Tensor<T> result(static_cast<int64_t>(reference.value.size()), x.misalign);
    const LaunchStatus status = launch(result);
    check_launched(status, x.name + what);
    compare(result, reference, integers, tf32, x.name + what);
    threads = status.block[0];
  };
  for (const bool integers : {true, false}) {
    const Problem<T> problem(x, dtype, precision, integers);
    Reference output(problem.grad_output.size()), input_grad(problem.input.size()), weight_grad(problem.weight.size());
    for_each_product(problem.shape, [&](int64_t o, int64_t i, int64_t w) {
      if (products & kForward) output.add(o, problem.input[i] * problem.weight[w]);
      if (products & kInputGrad) input_grad.add(i, problem.grad_output[o] * problem.weight[w]);
      if (products & kWeightGrad) weight_grad.add(w, problem.grad_output[o] * problem.input[i]);
    });
    if (products & kForward) {
      run(" forward", output, integers, [&](Tensor<T>& result) { return problem.forward(result, false); });
      for (int64_t i = 0; i < problem.grad_output.size(); ++i) output.add(i, problem.bias[i % problem.shape.K]);
      run(" forward with bias", output, integers, [&](Tensor<T>& result) { return problem.forward(result, true); });
      // None of them is steeper than 1, so that the bounds of the sums hold. Only ReLU keeps integers.
      for (const Activation activation : {Activation::relu, Activation::sigmoid, Activation::tanh}) {
        if (integers && activation != Activation::relu) continue;
        Reference activated = output;
        for (double& value : activated.value) value = exact_activation(value, activation);
        for (double& magnitude : activated.magnitude) magnitude += 1;  // the activation rounds too
        run(" forward with activation " + std::to_string(static_cast<int>(activation)), activated, integers,
            [&](Tensor<T>& result) { return problem.forward(result, true, activation); });
      }
    }
    if (products & kInputGrad) {
      run(" input grad", input_grad, integers, [&](Tensor<T>& result) { return problem.input_grad(result); });
    }
    if (products & kWeightGrad) {
      run(" weight grad", weight_grad, integers, [&](Tensor<T>& result) { return problem.weight_grad(result); });
    }
  }
  return threads;
}

template <typename T>
using Stat = std::conditional_t<sizeof(T) == 2, float, double>;

// The result is that of the convolution alone, bit by bit, and the statistics are those of the stored values, also
// where their mean is much larger than their deviation.
template <typename T>
void run_moments(const Case& x, DType dtype, Float32Precision precision) {
  Problem<T> problem(x, dtype, precision, false);
  for (const char* bias : {"", " with bias", " with large bias"}) {
    const std::string what = x.name + std::string(" moments") + bias;
    const bool with_bias = *bias != 0;
    if (what.ends_with("large bias")) {
      for (int64_t k = 0; k < problem.bias.size(); ++k) {
        problem.bias.data()[k] = d2l::cuda::narrow<T>(static_cast<d2l::cuda::accumulate_t<T>>(k % 2 ? -1000 : 1000));
      }
    }
    const int64_t K = problem.shape.K, values = problem.grad_output.size() / K;
    Tensor<T> alone(values * K, x.misalign), output(values * K, x.misalign);
    std::vector<Stat<T>> statistics(2 * K, std::numeric_limits<Stat<T>>::quiet_NaN());
    check_launched(problem.forward(alone, with_bias), what);
    check_launched(problem.moments(output, statistics, with_bias), what);
    check(std::memcmp(alone.data(), output.data(), static_cast<size_t>(values * K) * sizeof(T)) == 0, what + " output");
    for (int64_t k = 0; k < K; ++k) {
      long double sum = 0, squares = 0;
      double farthest = 0;
      for (int64_t i = 0; i < values; ++i) sum += output[i * K + k];
      const double mean = static_cast<double>(sum / values);
      for (int64_t i = 0; i < values; ++i) {
        const double distance = output[i * K + k] - mean;
        squares += static_cast<long double>(distance) * distance;
        farthest = std::max(farthest, std::abs(distance));
      }
      const double unit = std::is_same_v<T, double> ? 0x1p-53 : 0x1p-24;
      const double shift = (sizeof(T) == 4 ? 0x1p-53 / unit : 1) * std::abs(mean);  // statistics have 53 bits, or 24
      check(std::abs(static_cast<double>(statistics[k]) - mean) <= 64 * unit * (farthest + shift), what + " mean");
      check(std::abs(static_cast<double>(statistics[K + k]) - static_cast<double>(squares / values)) <=
                256 * unit * farthest * (farthest + shift),
            what + " var");
    }
  }
}

// Maps that are the last channels of wider ones, of pixels `beside` elements wider, give what dense maps give, and the
// channels beside them stay as they were. Integers, so that no order of summation matters.
template <typename T>
void run_ranges(const Case& x, DType dtype, Float32Precision precision, int64_t beside) {
  const Problem<T> problem(x, dtype, precision, true);
  Conv2dShape wide = problem.shape;
  wide.input_pixel = wide.C + beside;
  wide.output_pixel = wide.K + beside;
  const std::string what = x.name + (" beside " + std::to_string(beside)) + " channels";
  const auto widened = [&](const Tensor<T>& dense, int64_t channels) {
    Tensor<T> result(dense.size() / channels * (channels + beside), 0);
    for (int64_t i = 0; i < dense.size(); ++i) {
      result.data()[i / channels * (channels + beside) + beside + i % channels] = dense.data()[i];
    }
    return result;
  };
  const auto compare_bits = [&](const Tensor<T>& result, const Tensor<T>& expected, const char* product) {
    check(std::memcmp(result.data(), expected.data(), static_cast<size_t>(result.size()) * sizeof(T)) == 0,
          what + product);
  };
  Tensor<T> output(problem.grad_output.size(), 0), grad_input(problem.input.size(), 0);
  Tensor<T> grad_weight(problem.weight.size(), 0), wide_grad_weight(problem.weight.size(), 0);
  check_launched(problem.forward(output, true), what);
  check_launched(problem.input_grad(grad_input), what);
  check_launched(problem.weight_grad(grad_weight), what);

  const Tensor<T> input = widened(problem.input, wide.C), grad_output = widened(problem.grad_output, wide.K);
  Tensor<T> wide_output(grad_output.size(), 0), wide_grad_input(input.size(), 0);
  const T* const weight = problem.weight.data();
  check_launched(d2l::cuda::conv2d(wide, dtype, precision, input.data() + beside, weight, problem.bias.data(),
                                   wide_output.data() + beside, nullptr),
                 what);
  compare_bits(wide_output, widened(output, wide.K), " forward");
  check_launched(d2l::cuda::conv2d_input_grad(wide, dtype, precision, grad_output.data() + beside, weight,
                                              wide_grad_input.data() + beside, nullptr),
                 what);
  compare_bits(wide_grad_input, widened(grad_input, wide.C), " input grad");
  std::vector<unsigned char> workspace(d2l::cuda::conv2d_weight_grad_workspace(wide, dtype));
  check_launched(
      d2l::cuda::conv2d_weight_grad(wide, dtype, precision, grad_output.data() + beside, input.data() + beside,
                                    wide_grad_weight.data(), workspace.data(), nullptr),
      what);
  compare_bits(wide_grad_weight, grad_weight, " weight grad");
}

template <typename T>
bool same_bits(const Tensor<T>& a, const Tensor<T>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// The order in which threads run and the time at which copies land must not change a bit.
template <typename T>
void run_schedules(DType dtype, Float32Precision precision) {
  for (const std::string name : {"lenet.conv1", "3x3 stride 2", "groups 3, odd channels", "slices, one channel"}) {
    const Case* x = nullptr;
    for (const Case& candidate : kCases) {
      if (name == candidate.name) x = &candidate;
    }
    const Problem<T> problem(*x, dtype, precision, false);
    std::vector<Tensor<T>> first;
    std::vector<Stat<T>> first_statistics;
    for (const char* copies : {"late", "eager"}) {
      for (const char* schedule : {"forward", "reverse", "random", "greedy", "greedy_reverse"}) {
        setenv("D2LKERNELS_EMULATOR_CP_ASYNC", copies, 1);
        setenv("D2LKERNELS_EMULATOR_SCHEDULE", schedule, 1);
        std::vector<Tensor<T>> results;
        for (const int64_t size : {problem.grad_output.size(), problem.input.size(), problem.weight.size()}) {
          results.emplace_back(size, x->misalign);
        }
        const std::string what = name + " " + schedule + " " + copies;
        check_launched(problem.forward(results[0], true), what + " forward");
        check_launched(problem.input_grad(results[1]), what + " input grad");
        check_launched(problem.weight_grad(results[2]), what + " weight grad");
        std::vector<Stat<T>> statistics(2 * problem.shape.K);
        check_launched(problem.moments(results[0], statistics, true), what + " moments");
        if (first.empty()) first = results, first_statistics = statistics;
        check(statistics == first_statistics, what + ": moments depend on the schedule");
        for (size_t i = 0; i < results.size(); ++i) {
          check(same_bits(first[i], results[i]), what + ": product " + std::to_string(i) + " depends on the schedule");
        }
      }
    }
  }
}

// Each has enough blocks for the large tile.
const std::vector<std::pair<Case, Product>> kLargeCases = {
    {{.name = "many pixels", .input = {2, 8, 67, 125}, .kernel = {72, 1, 2}, .pad = {0, 0, 1, 0}}, kForward},
    {{.name = "many pixels, wide", .input = {2, 72, 67, 125}, .kernel = {8, 1, 2}, .pad = {0, 0, 1, 0}}, kInputGrad},
    {{.name = "many weights", .input = {1, 1040, 2, 3}, .kernel = {9360, 3, 3}, .pad = {1, 1, 1, 1}, .groups = 130},
     kWeightGrad},
};

template <typename T>
void run_large(DType dtype, Float32Precision precision) {
  constexpr unsigned kThreadsOfLargeTile = 256;  // on tensor cores
  const bool tensor_cores = sizeof(T) == 2 || (sizeof(T) == 4 && precision == Float32Precision::tf32);
  for (const auto& [x, product] : kLargeCases) {
    const unsigned threads = run_case<T>(x, dtype, precision, product);
    check(!tensor_cores || threads == kThreadsOfLargeTile, std::string(x.name) + " did not use the large tile");
  }
}

// Memory of zeros that costs nothing until it is written to.
class SparseMemory {
 public:
  explicit SparseMemory(size_t bytes) : bytes_(bytes) {
    memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory_ != MAP_FAILED, "mmap");
  }
  ~SparseMemory() { munmap(memory_, bytes_); }
  SparseMemory(const SparseMemory&) = delete;
  SparseMemory& operator=(const SparseMemory&) = delete;
  void* data() { return memory_; }

 private:
  size_t bytes_;
  void* memory_;
};

// Only the four corners of an input of more than 2^31 elements are read.
template <typename T>
void run_vast(DType dtype, Float32Precision precision) {
  constexpr int64_t kSide = 18000, kChannels = 8, kElements = kSide * kSide * kChannels;
  constexpr int64_t kStep = kSide - 1;
  static_assert(kElements > int64_t{1} << 31);
  const Conv2dShape shape = Case{
      .name = "corners",
      .input = {1, kChannels, kSide, kSide},
      .kernel = {1, 1, 1},
      .stride = {kStep, kStep}}.shape();
  SparseMemory memory(kElements * sizeof(T));
  T* const input = static_cast<T*>(memory.data());
  Tensor<T> ones(kChannels, 0), output(4, 0), weight_grad(kChannels, 0);
  for (int64_t c = 0; c < kChannels; ++c) {
    ones.data()[c] = d2l::cuda::narrow<T>(1);
    input[kElements - kChannels + c] = d2l::cuda::narrow<T>(static_cast<d2l::cuda::accumulate_t<T>>(c + 1));
  }
  check_launched(d2l::cuda::conv2d(shape, dtype, precision, input, ones.data(), nullptr, output.data(), nullptr),
                 "forward beyond 2^31");
  check(output[0] == 0 && output[1] == 0 && output[2] == 0 && output[3] == 36, "forward beyond 2^31");
  check(d2l::cuda::conv2d_weight_grad_workspace(shape, dtype) == 0, "workspace of one slice");
  check_launched(
      d2l::cuda::conv2d_weight_grad(shape, dtype, precision, ones.data(), input, weight_grad.data(), nullptr, nullptr),
      "weight grad beyond 2^31");
  for (int64_t c = 0; c < kChannels; ++c) check(weight_grad[c] == c + 1, "weight grad beyond 2^31");
}

// Empty tensors, coordinates that do not fit, offsets beyond 2^31, TF32's rounding, the divisors.
template <typename T>
void run_limits(DType dtype, Float32Precision precision) {
  Case empty = {.name = "no images", .input = {0, 4, 5, 5}, .kernel = {4, 3, 3}};
  const Problem<T> nothing(empty, dtype, precision, true);
  Tensor<T> none(0, 0), weight(nothing.weight.size(), 0);
  for (const LaunchStatus& status : {nothing.forward(none, true), nothing.input_grad(none)}) {
    check(status.error == 0 && status.grid[0] == 0, "an empty batch should succeed without a launch");
  }
  check_launched(nothing.weight_grad(weight), "weight grad of an empty batch");
  compare(weight, Reference(weight.size()), true, false, "weight grad of an empty batch");

  Conv2dShape vast = nothing.shape;
  vast.N = 1, vast.W = vast.Q = int64_t{1} << 31;
  const auto refused = [&](const LaunchStatus& status, const char* what) {
    check(status.error != 0 && status.grid[0] == 0, std::string(what) + " of a map that is too wide was not refused");
  };
  refused(d2l::cuda::conv2d(vast, dtype, precision, nullptr, nullptr, nullptr, nullptr, nullptr), "forward");
  refused(d2l::cuda::conv2d_input_grad(vast, dtype, precision, nullptr, nullptr, nullptr, nullptr), "input grad");
  refused(d2l::cuda::conv2d_weight_grad(vast, dtype, precision, nullptr, nullptr, nullptr, nullptr, nullptr),
          "weight grad");

  run_vast<T>(dtype, precision);

  if constexpr (std::is_same_v<T, float>) {
    Problem<T> one({.name = "rounding", .input = {1, 1, 1, 1}, .kernel = {1, 1, 1}}, dtype, precision, true);
    one.weight.data()[0] = 1;
    const bool tf32 = precision == Float32Precision::tf32;
    for (const auto& [value, rounded] : {std::pair{1 + 0x1.8p-11f, 1 + 0x1p-10f},
                                         {1 + 0x1p-11f, 1 + 0x1p-10f},
                                         {1 + 0x1.8p-12f, 1.0f},
                                         {-1 - 0x1p-11f, -1 - 0x1p-10f}}) {
      Tensor<T> output(1, 0);
      one.input.data()[0] = value;
      check_launched(one.forward(output, false), "rounding");
      check(output[0] == (tf32 ? rounded : value), "float32 was not rounded as its precision says");
    }
  }

  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    const uint32_t divisor = static_cast<uint32_t>(1 + (random() >> (33 + random() % 31))),
                   x = static_cast<uint32_t>(random() >> (33 + random() % 31));
    check(d2l::cuda::FastDivisor<uint32_t>(divisor).quotient(x) == x / divisor, "32-bit division");
    const uint64_t wide_divisor = 1 + (random() >> (2 + random() % 62)), y = random() >> (1 + random() % 62);
    check(d2l::cuda::FastDivisor<uint64_t>(wide_divisor).quotient(y) == y / wide_divisor, "64-bit division");
    const uint64_t multiple = y / wide_divisor * wide_divisor;
    if (multiple == 0) continue;
    check(d2l::cuda::FastDivisor<uint64_t>(wide_divisor).quotient(multiple - 1) == (multiple - 1) / wide_divisor,
          "64-bit division below a multiple");
  }
}

template <typename T>
bool run(const std::string& suite, DType dtype, Float32Precision precision) {
  if (suite == "shapes") {
    for (const Case& x : kCases) run_case<T>(x, dtype, precision);
  } else if (suite == "moments") {
    for (const Case& x : kCases) run_moments<T>(x, dtype, precision);
    for (const auto& [x, product] : kLargeCases) {
      if (product == kForward) run_moments<T>(x, dtype, precision);
    }
  } else if (suite == "ranges") {
    for (const Case& x : kCases) {
      for (const int64_t beside : {3, 4, 32}) run_ranges<T>(x, dtype, precision, beside);
    }
  } else if (suite == "large") {
    run_large<T>(dtype, precision);
  } else if (suite == "schedules") {
    run_schedules<T>(dtype, precision);
  } else if (suite == "limits") {
    run_limits<T>(dtype, precision);
  } else {
    return false;
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string kind = count > 1 ? arguments[1] : "", suite = count > 2 ? arguments[2] : "";
  const Float32Precision ieee = Float32Precision::ieee;
  bool known = false;
  if (kind == "float32") known = run<float>(suite, DType::float32, ieee);
  if (kind == "tf32") known = run<float>(suite, DType::float32, Float32Precision::tf32);
  if (kind == "float64") known = run<double>(suite, DType::float64, ieee);
  if (kind == "bfloat16") known = run<__nv_bfloat16>(suite, DType::bfloat16, ieee);
  if (kind == "float16") known = run<__half>(suite, DType::float16, ieee);
  if (!known) {
    std::printf("usage: %s float32|tf32|float64|bfloat16|float16 shapes|moments|ranges|large|schedules|limits\n",
                arguments[0]);
    return 2;
  }
  std::printf("%d of %d checks failed\n", failures, checks);
  return failures == 0 ? 0 : 1;
}
