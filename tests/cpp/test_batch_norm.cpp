// The CPU kernels of batch normalisation against loops in double, for every instruction set, layout and kind of shape,
// fused and not, on dense maps and on channels of wider ones.
#include <cmath>
#include <limits>

#include "activation.h"
#include "capabilities.h"
#include "check.h"
#include "kernels/cpu/batch_norm.h"
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
  Activation activation;
  bool residual;
};

std::vector<Problem> problems() {
  std::vector<Problem> found;
  const BatchNormShape shapes[] = {
      {4, 6, 28 * 28}, {9, 5, 1},   {33, 100, 1}, {2, 3, 17},    {3, 67, 35}, {70, 9, 9},   {45, 2, 6},
      {1, 1, 2},       {2, 64, 16}, {1, 2, 4501}, {300, 1, 15},  {5, 17, 64}, {1, 3, 5000}, {40, 20, 4},
      {7, 33, 130},    {2, 16, 63}, {64, 128, 1}, {150, 1, 900}, {0, 3, 4},   {2, 0, 4},
  };
  constexpr Activation kActivations[] = {Activation::relu, Activation::sigmoid, Activation::tanh};
  size_t next = 0;
  for (const BatchNormShape& shape : shapes) {
    found.push_back({shape, 0.5, 2.0, true, Activation::none, false});
    found.push_back({shape, 1e4, 1e-2, false, Activation::none, false});
    found.push_back({shape, 0.5, 2.0, true, Activation::relu, false});
    const Activation activation = kActivations[next++ % std::size(kActivations)];
    found.push_back({shape, 0.5, 2.0, true, activation, true});
    if (activation != Activation::relu) found.push_back({shape, 0.5, 2.0, true, activation, false});
  }
  return found;
}

// Dense maps, or in NHWC the middle channels of wider ones, around which nothing may be written.
template <typename T>
class Buffer {
 public:
  Buffer(const std::vector<T>& dense, int64_t channels, bool wide)
      : channels_(channels), margin_(wide ? 3 : 0), pixel_(channels + 2 * margin_) {
    storage_.assign(channels == 0 ? 0 : dense.size() / static_cast<size_t>(channels) * static_cast<size_t>(pixel_),
                    static_cast<T>(kNan));
    for (size_t i = 0; i < dense.size(); ++i) storage_[place(i)] = dense[i];
    size_ = dense.size();
  }

  template <typename U>
  cpu::NormMaps<U> maps() {
    return {storage_.data() + margin_, margin_ > 0 ? pixel_ : 0};
  }
  std::vector<T> dense() const {
    std::vector<T> values(size_);
    for (size_t i = 0; i < size_; ++i) values[i] = storage_[place(i)];
    return values;
  }
  bool is_whole() const {
    size_t untouched = 0;
    for (const T value : storage_) untouched += std::isnan(value) ? 1 : 0;
    return untouched == storage_.size() - size_;
  }

 private:
  size_t place(size_t i) const {
    const auto c = static_cast<size_t>(channels_);
    return i / c * static_cast<size_t>(pixel_) + i % c + static_cast<size_t>(margin_);
  }

  int64_t channels_, margin_, pixel_;
  size_t size_;
  std::vector<T> storage_;
};

template <typename T>
class Tester {
 public:
  Tester(Report& report, const Problem& problem, Layout layout, uint32_t seed, std::string name)
      : report_(report),
        problem_(problem),
        shape_(problem.shape),
        layout_(layout),
        name_(std::move(name)),
        mean_over_deviation_(problem.mean / problem.deviation) {
    const int64_t elements = shape_.values() * shape_.C;
    input_ = random_values<T>(elements, seed);
    for (T& value : input_) value = static_cast<T>(problem.mean + problem.deviation * static_cast<double>(value));
    grad_ = random_values<T>(elements, seed + 1);
    if (problem.affine) {
      weight_ = random_values<T>(shape_.C, seed + 2);
      bias_ = random_values<T>(shape_.C, seed + 3);
    }
    if (problem.residual) residual_ = random_values<T>(elements, seed + 4);
    compute();
  }

  void run() {
    const std::vector<double> before = outputs(false);
    g_threads = 3;
    check(before == outputs(false), "several threads");
    g_threads = 1;
    if (layout_ == Layout::nhwc) outputs(true);
  }

 private:
  size_t at(int64_t c, int64_t value) const {
    const int64_t n = value / shape_.pixels, pixel = value % shape_.pixels;
    return static_cast<size_t>(layout_ == Layout::nhwc ? value * shape_.C + c
                                                       : (n * shape_.C + c) * shape_.pixels + pixel);
  }
  double weight(int64_t c) const { return weight_.empty() ? 1 : static_cast<double>(weight_[static_cast<size_t>(c)]); }
  double bias(int64_t c) const { return bias_.empty() ? 0 : static_cast<double>(bias_[static_cast<size_t>(c)]); }
  const T* weights() const { return weight_.empty() ? nullptr : weight_.data(); }
  const T* biases() const { return bias_.empty() ? nullptr : bias_.data(); }

  double normalized(int64_t c, int64_t i) const {
    const auto k = static_cast<size_t>(c);
    return (static_cast<double>(input_[at(c, i)]) - mean_[k]) / std::sqrt(var_[k] + kEps);
  }

  void compute() {
    const int64_t count = shape_.values();
    mean_.assign(static_cast<size_t>(shape_.C), 0), var_ = mean_, output_.assign(input_.size(), 0);
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
      for (int64_t i = 0; i < count; ++i) {
        const double residual = residual_.empty() ? 0 : static_cast<double>(residual_[at(c, i)]);
        output_[at(c, i)] = activated(normalized(c, i) * weight(c) + bias(c) + residual, problem_.activation);
      }
    }
  }

  // The kink of a ReLU lies where `output`, that of the kernel, puts it.
  void compute_gradients(const std::vector<T>& output) {
    const int64_t count = shape_.values();
    through_.assign(input_.size(), 0), grad_input_ = through_;
    grad_weight_.assign(static_cast<size_t>(shape_.C), 0), grad_bias_ = grad_weight_;
    for (int64_t c = 0; c < shape_.C && count > 0; ++c) {
      const auto k = static_cast<size_t>(c);
      for (int64_t i = 0; i < count; ++i) {
        const double gradient = static_cast<double>(grad_[at(c, i)]) *
                                derivative(static_cast<double>(output[at(c, i)]), problem_.activation);
        through_[at(c, i)] = gradient;
        grad_bias_[k] += gradient;
        grad_weight_[k] += gradient * normalized(c, i);
      }
      for (int64_t i = 0; i < count; ++i) {
        grad_input_[at(c, i)] = weight(c) / std::sqrt(var_[k] + kEps) *
                                (through_[at(c, i)] - grad_bias_[k] / static_cast<double>(count) -
                                 normalized(c, i) * grad_weight_[k] / static_cast<double>(count));
      }
    }
  }

  // Runs all launchers, checks what they give and returns it.
  std::vector<double> outputs(bool wide) {
    const auto channels = static_cast<size_t>(shape_.C);
    const std::vector<T> empty(input_.size(), T(7));
    Buffer<T> x(input_, shape_.C, wide), dy(grad_, shape_.C, wide), residual(residual_, shape_.C, wide);
    Buffer<T> y(empty, shape_.C, wide), applied(empty, shape_.C, wide), dx(empty, shape_.C, wide),
        sum(empty, shape_.C, wide), through(empty, shape_.C, wide);
    const auto input = x.template maps<const T>();
    const auto added = residual_.empty() ? cpu::NormMaps<const T>{} : residual.template maps<const T>();
    std::vector<double> mean(channels, kNan), var = mean, mean_alone = mean, var_alone = mean, grad_weight = mean,
                                              grad_bias = mean, weight_alone = mean, bias_alone = mean;
    cpu::Normalization<T> by{kEps, nullptr, nullptr, weights(), biases(), problem_.activation};
    cpu::batch_norm_train<T>(shape_, layout_, by, input, added, y.template maps<T>(), mean.data(), var.data());
    cpu::batch_norm_moments<T>(shape_, layout_, input, mean_alone.data(), var_alone.data());
    check(mean_alone == mean && var_alone == var, "batch_norm_moments");
    by.mean = mean.data(), by.var = var.data();
    cpu::batch_norm_apply<T>(shape_, layout_, by, input, added, applied.template maps<T>());
    const std::vector<T> output = y.dense();
    check(applied.dense() == output, "batch_norm_apply");
    compute_gradients(output);

    // Without a residual no output is needed, and of a ReLU no `through`.
    const Activation activation = problem_.activation;
    const bool leaves_through = problem_.residual || (activation != Activation::none && activation != Activation::relu);
    cpu::NormGradients<T> gradients{dy.template maps<const T>(), input};
    if (problem_.residual) gradients.output = y.template maps<const T>();
    if (leaves_through) gradients.through = through.template maps<T>();
    cpu::batch_norm_train_grad<T>(shape_, layout_, by, gradients, dx.template maps<T>(), grad_weight.data(),
                                  grad_bias.data());
    if (leaves_through) gradients.through = sum.template maps<T>();
    cpu::batch_norm_grad_sums<T>(shape_, layout_, by, gradients, weight_alone.data(), bias_alone.data());
    check(weight_alone == grad_weight && bias_alone == grad_bias, "batch_norm_grad_sums");
    check(!leaves_through || sum.dense() == through.dense(), "through, of batch_norm_grad_sums");
    Buffer<T> total(std::vector<T>(input_.size(), T(1)), shape_.C, wide);
    cpu::Normalization<T> linear = by;
    if (leaves_through) linear.activation = Activation::none;
    cpu::batch_norm_input_grad<T>(shape_, layout_, linear,
                                  leaves_through ? through.template maps<const T>() : gradients.grad_output, input,
                                  grad_weight.data(), grad_bias.data(), true, total.template maps<T>());

    const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
    const double sums = 8 * eps * std::sqrt(static_cast<double>(shape_.values()) + 1);
    const double rest = kRounding * std::abs(mean_over_deviation_);  // of the mean in double, in deviations
    check(close(mean, mean_, kRounding + 8 * eps / std::max(1.0, std::abs(mean_over_deviation_))), "mean");
    check(close(var, var_, 32 * eps), "var");
    check(close(output, output_, 16 * eps + rest), "output");
    check(close(grad_weight, grad_weight_, sums + rest * static_cast<double>(shape_.values())), "grad_weight");
    check(close(grad_bias, grad_bias_, sums), "grad_bias");
    check(close(dx.dense(), grad_input_, 32 * eps + rest), "grad_input");
    check(!leaves_through || close(through.dense(), through_, 4 * eps), "through");
    std::vector<double> accumulated = grad_input_;
    for (double& value : accumulated) value += 1;
    check(close(total.dense(), accumulated, 32 * eps + rest), "accumulated grad_input");
    bool whole = true;
    for (const Buffer<T>* buffer : {&x, &dy, &residual, &y, &applied, &dx, &sum, &through, &total}) {
      whole = whole && buffer->is_whole();
    }
    check(whole, "nothing written around");
    std::vector<double> all(output.begin(), output.end());
    for (const auto* more : {&mean, &var, &grad_weight, &grad_bias}) all.insert(all.end(), more->begin(), more->end());
    for (const auto& more : {dx.dense(), total.dense()}) all.insert(all.end(), more.begin(), more.end());
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
  const Problem problem_;
  const BatchNormShape shape_;
  const Layout layout_;
  const std::string name_;
  const double mean_over_deviation_;
  std::vector<T> input_, grad_, residual_, weight_, bias_;
  std::vector<double> mean_, var_, output_, through_, grad_input_, grad_weight_, grad_bias_;
};

}  // namespace
}  // namespace d2l::test

int main() {
  using namespace d2l;
  test::Report report;
  const auto problems = test::problems();
  for (const cpu::Capability capability : test::supported_capabilities()) {
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
