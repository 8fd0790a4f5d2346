// The CPU kernels of batch normalisation against loops in double, for every instruction set, layout and kind of shape.
#include <cmath>
#include <limits>

#include "check.h"
#include "kernels/cpu/batch_norm.h"
#include "kernels/cpu/capability.h"
#include "threads.h"

namespace d2l::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kEps = 1e-5;
constexpr double kRounding = 8 * std::numeric_limits<double>::epsilon();

struct Problem {
  BatchNormShape shape;
  double mean, deviation;
  bool affine;
};

std::vector<Problem> problems() {
  std::vector<Problem> found;
  const BatchNormShape shapes[] = {
      {4, 6, 28 * 28}, {9, 5, 1},   {33, 100, 1}, {2, 3, 17},    {3, 67, 35}, {70, 9, 9},   {45, 2, 6},
      {1, 1, 2},       {2, 64, 16}, {1, 2, 4501}, {300, 1, 15},  {5, 17, 64}, {1, 3, 5000}, {40, 20, 4},
      {7, 33, 130},    {2, 16, 63}, {64, 128, 1}, {150, 1, 900}, {0, 3, 4},   {2, 0, 4},
  };
  for (const BatchNormShape& shape : shapes) {
    found.push_back({shape, 0.5, 2.0, true});
    found.push_back({shape, 1e4, 1e-2, false});
  }
  return found;
}

template <typename T>
class Tester {
 public:
  Tester(Report& report, const Problem& problem, Layout layout, uint32_t seed, std::string name)
      : report_(report),
        shape_(problem.shape),
        layout_(layout),
        name_(std::move(name)),
        mean_over_deviation_(problem.mean / problem.deviation) {
    const int64_t elements = shape_.values() * shape_.C;
    input_ = random_values<T>(elements, seed);
    for (T& value : input_) value = static_cast<T>(problem.mean + problem.deviation * static_cast<double>(value));
    grad_ = random_values<T>(elements, seed + 1);
    if (problem.affine) {
      weight_ = random_values<double>(shape_.C, seed + 2);
      bias_ = random_values<double>(shape_.C, seed + 3);
    }
    compute();
  }

  void run() {
    const std::vector<double> before = outputs();
    g_threads = 3;
    const std::vector<double> with_threads = outputs();
    g_threads = 1;
    check(before == with_threads, "several threads");
  }

 private:
  size_t at(int64_t c, int64_t value) const {
    const int64_t n = value / shape_.pixels, pixel = value % shape_.pixels;
    return static_cast<size_t>(layout_ == Layout::nhwc ? value * shape_.C + c
                                                       : (n * shape_.C + c) * shape_.pixels + pixel);
  }
  double weight(int64_t c) const { return weight_.empty() ? 1 : weight_[static_cast<size_t>(c)]; }
  double bias(int64_t c) const { return bias_.empty() ? 0 : bias_[static_cast<size_t>(c)]; }
  const double* weights() const { return weight_.empty() ? nullptr : weight_.data(); }
  const double* biases() const { return bias_.empty() ? nullptr : bias_.data(); }

  void compute() {
    const int64_t count = shape_.values();
    const auto channels = static_cast<size_t>(shape_.C);
    mean_.assign(channels, 0), var_.assign(channels, 0), grad_weight_.assign(channels, 0);
    grad_bias_.assign(channels, 0), output_.assign(input_.size(), 0), grad_input_.assign(input_.size(), 0);
    for (int64_t c = 0; c < shape_.C && count > 0; ++c) {
      const auto k = static_cast<size_t>(c);
      long double sum = 0;
      for (int64_t i = 0; i < count; ++i) sum += static_cast<long double>(input_[at(c, i)]);
      mean_[k] = static_cast<double>(sum / static_cast<long double>(count));
      long double squares = 0;
      for (int64_t i = 0; i < count; ++i) {
        const long double distance = static_cast<long double>(input_[at(c, i)]) - mean_[k];
        squares += distance * distance;
      }
      var_[k] = static_cast<double>(squares / static_cast<long double>(count));
      const double inverse = 1 / std::sqrt(var_[k] + kEps);
      const auto z = [&](int64_t i) { return (static_cast<double>(input_[at(c, i)]) - mean_[k]) * inverse; };
      for (int64_t i = 0; i < count; ++i) {
        output_[at(c, i)] = z(i) * weight(c) + bias(c);
        grad_bias_[k] += static_cast<double>(grad_[at(c, i)]);
        grad_weight_[k] += static_cast<double>(grad_[at(c, i)]) * z(i);
      }
      for (int64_t i = 0; i < count; ++i) {
        grad_input_[at(c, i)] = weight(c) * inverse *
                                (static_cast<double>(grad_[at(c, i)]) - grad_bias_[k] / static_cast<double>(count) -
                                 z(i) * grad_weight_[k] / static_cast<double>(count));
      }
    }
  }

  // Runs all launchers, checks what they give and returns it.
  std::vector<double> outputs() {
    const auto channels = static_cast<size_t>(shape_.C);
    std::vector<T> output(input_.size(), static_cast<T>(kNan)), inferred = output, grad_input = output;
    std::vector<double> mean(channels, kNan), var = mean, grad_weight = mean, grad_bias = mean, weight_alone = mean,
                                              bias_alone = mean;
    cpu::batch_norm_train<T>(shape_, layout_, kEps, input_.data(), weights(), biases(), output.data(), mean.data(),
                             var.data());
    cpu::batch_norm_infer<T>(shape_, layout_, kEps, input_.data(), mean.data(), var.data(), weights(), biases(),
                             inferred.data());
    cpu::batch_norm_train_grad<T>(shape_, layout_, kEps, grad_.data(), input_.data(), weights(), mean.data(),
                                  var.data(), grad_input.data(), grad_weight.data(), grad_bias.data());
    cpu::batch_norm_weight_grad<T>(shape_, layout_, kEps, grad_.data(), input_.data(), mean.data(), var.data(),
                                   weight_alone.data(), bias_alone.data());
    const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
    const double sums = 8 * eps * std::sqrt(static_cast<double>(shape_.values()) + 1);
    const double rest = kRounding * std::abs(mean_over_deviation_);  // of the mean in double, in deviations
    check(close(mean, mean_, kRounding + 8 * eps / std::max(1.0, std::abs(mean_over_deviation_))), "mean");
    check(close(var, var_, 32 * eps), "var");
    check(close(output, output_, 16 * eps + rest), "output");
    check(inferred == output, "inference");
    check(close(grad_weight, grad_weight_, sums + rest * static_cast<double>(shape_.values())), "grad_weight");
    check(close(grad_bias, grad_bias_, sums), "grad_bias");
    check(weight_alone == grad_weight && bias_alone == grad_bias, "batch_norm_weight_grad");
    check(close(grad_input, grad_input_, 32 * eps + rest), "grad_input");
    std::vector<double> all(output.begin(), output.end());
    for (const auto* more : {&mean, &var, &grad_weight, &grad_bias}) all.insert(all.end(), more->begin(), more->end());
    all.insert(all.end(), grad_input.begin(), grad_input.end());
    return all;
  }

  // Relative to the largest value, or to 1.
  template <typename U>
  static bool close(const std::vector<U>& actual, const std::vector<double>& expected, double tolerance) {
    double scale = 1;
    for (const double value : expected) scale = std::max(scale, std::abs(value));
    for (size_t i = 0; i < expected.size(); ++i) {
      if (!(std::abs(static_cast<double>(actual[i]) - expected[i]) <= tolerance * scale)) return false;
    }
    return true;
  }

  void check(bool ok, const char* what) { report_.check(ok, std::string(what) + ", " + name_); }

  Report& report_;
  const BatchNormShape shape_;
  const Layout layout_;
  const std::string name_;
  const double mean_over_deviation_;
  std::vector<T> input_, grad_;
  std::vector<double> weight_, bias_;
  std::vector<double> mean_, var_, output_, grad_input_, grad_weight_, grad_bias_;
};

}  // namespace
}  // namespace d2l::test

int main() {
  using namespace d2l;
  test::Report report;
  const auto problems = test::problems();
  for (const auto capability : {cpu::Capability::baseline, cpu::Capability::avx2, cpu::Capability::avx512}) {
    if (!cpu::is_supported(capability)) continue;
    cpu::set_capability(capability);
    for (size_t i = 0; i < problems.size(); ++i) {
      for (const Layout layout : {Layout::nchw, Layout::nhwc}) {
        const std::string name = std::string(cpu::name_of(capability)) + ", problem " + std::to_string(i) +
                                 (layout == Layout::nhwc ? ", nhwc," : ", nchw,");
        const auto seed = static_cast<uint32_t>(i);
        test::Tester<float>(report, problems[i], layout, seed, name + " float").run();
        test::Tester<double>(report, problems[i], layout, seed, name + " double").run();
      }
    }
  }
  return report.finish();
}
