// The statistics that a convolution on the CPU gathers while it writes its result: to the last bit those of
// batch_norm_moments, for every algorithm, instruction set and layout, with one thread and several. And what kernels
// report as written is written by then, and is most of the map where that is large.
#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>

#include "capabilities.h"
#include "check.h"
#include "kernels/cpu/batch_norm.h"
#include "kernels/cpu/batch_norm_written.h"
#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/conv2d_algorithm.h"
#include "threads.h"

namespace d2l::test {
namespace {

struct Problem {
  int64_t N, C, H, W, K, R, S;
  int64_t stride = 1, pad = 0, groups = 1;

  Conv2dShape shape() const {
    const int64_t P = (H + 2 * pad - R) / stride + 1, Q = (W + 2 * pad - S) / stride + 1;
    return {N, C, H, W, K, R, S, P, Q, stride, stride, pad, pad, 1, 1, groups};
  }
};

constexpr Problem kProblems[] = {
    {5, 1, 60, 60, 64, 7, 7, 2, 3},      // a stem
    {6, 20, 24, 24, 64, 3, 3, 1, 1},     // winograd, or direct
    {3, 17, 33, 29, 40, 3, 3, 1, 1},     //
    {4, 18, 30, 31, 33, 3, 3, 2, 1},     //
    {2, 18, 30, 30, 40, 5, 5, 1, 2},     //
    {5, 300, 9, 9, 20, 3, 3, 1, 1},      // blocks of channels rather than of tiles
    {53, 1, 28, 28, 6, 5, 5, 1, 2},      // images in lanes
    {49, 6, 14, 14, 16, 5, 5},           //
    {4, 24, 25, 25, 130, 1, 1},          // a matrix product
    {3, 500, 25, 25, 70, 1, 1},          // in two parts of the depth
    {4, 4, 40, 40, 70, 1, 1},            // of little depth
    {2, 24, 25, 25, 70, 1, 1, 2},        //
    {4, 12, 40, 33, 48, 3, 3, 1, 1, 3},  // groups
    {3, 40, 30, 30, 40, 3, 3, 1, 1, 40},
    {1, 3, 9, 3000, 40, 3, 3, 1, 1},  // rows that are cut
    {1, 3, 1, 9000, 40, 1, 5},        //
    {300, 5, 3, 3, 70, 3, 3, 1, 1},   // small planes
    {300, 5, 3, 3, 70, 3, 3},         // of one pixel
    {9, 512, 3, 4, 33, 3, 3, 1, 1},   //
    {2, 3, 5, 5, 1, 3, 3},            //
    {1, 3, 3, 3, 4, 3, 3},            // one value
    {0, 3, 8, 8, 4, 3, 3},            // none
};

// Collects what is reported, and checks that it is written.
template <typename T>
struct Listener {
  const Conv2dShape& shape;
  Layout layout;
  const T* output;
  bool in_order = true, written = true;
  int64_t pixels = 0;
  std::mutex lock = {};

  static void report(void* context, int64_t begin, int64_t before, int64_t end) {
    auto& self = *static_cast<Listener*>(context);
    const std::lock_guard<std::mutex> guard(self.lock);
    self.in_order &= begin <= before && before < end && end <= self.shape.N * self.shape.P * self.shape.Q;
    for (int64_t pixel = before; pixel < end; ++pixel) self.written &= self.is_written(pixel);
    self.pixels += end - before;
  }

  bool is_written(int64_t pixel) const {
    const int64_t plane = shape.P * shape.Q;
    bool all = true;
    for (int64_t k = 0; k < shape.K; ++k) {
      const int64_t nchw = (pixel / plane * shape.K + k) * plane + pixel % plane;
      const T value = output[layout == Layout::nhwc ? pixel * shape.K + k : nchw];
      all &= value == value;
    }
    return all;
  }
};

template <typename T>
void test(Report& report, const Problem& problem, Layout layout, const std::string& name) {
  const Conv2dShape shape = problem.shape();
  const auto input = random_values<T>(shape.N * shape.C * shape.H * shape.W, 1);
  const auto weight = random_values<T>(shape.K * shape.group_c() * shape.R * shape.S, 2);
  auto bias = random_values<T>(shape.K, 3);
  for (T& value : bias) value = 1000 * value;  // means much larger than deviations
  const cpu::WeightStrides strides{shape.group_c() * shape.R * shape.S, shape.R * shape.S, shape.S, 1};
  const auto size = static_cast<size_t>(shape.N * shape.K * shape.P * shape.Q);
  const auto channels = static_cast<size_t>(shape.K);
  const T poison = std::numeric_limits<T>::quiet_NaN();
  const BatchNormShape maps{shape.N, shape.K, shape.P * shape.Q};

  std::vector<T> output(size, poison), again(size, poison);
  std::vector<double> mean(channels), var(channels), known_mean(channels), known_var(channels);
  cpu::conv2d_moments<T>(shape, layout, input.data(), weight.data(), strides, bias.data(), output.data(), mean.data(),
                         var.data());
  cpu::batch_norm_moments<T>(maps, layout, {output.data()}, known_mean.data(), known_var.data());
  report.check(mean == known_mean && var == known_var, "statistics of " + name);

  // Whatever conv2d_moments thinks worth the while.
  std::fill(output.begin(), output.end(), poison);
  cpu::WrittenMoments<T> written(maps, layout, output.data());
  cpu::conv2d<T>(shape, layout, input.data(), weight.data(), strides, bias.data(), output.data(), Activation::none,
                 written.progress());
  written.join(mean.data(), var.data());
  report.check(mean == known_mean && var == known_var, "statistics while writing of " + name);

  Listener<T> listener{shape, layout, again.data()};
  cpu::conv2d<T>(shape, layout, input.data(), weight.data(), strides, bias.data(), again.data(), Activation::none,
                 {Listener<T>::report, &listener});
  report.check(size == 0 || std::memcmp(output.data(), again.data(), size * sizeof(T)) == 0, "output of " + name);
  report.check(listener.in_order && listener.written, "reports of " + name);
  const bool reports = shape.N * shape.P * shape.Q >= 2000 && g_threads == 1 && shape.C != 4;
  report.check(!reports || listener.pixels == shape.N * shape.P * shape.Q, "completeness of " + name);
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
      for (const int64_t threads : {1, 2, 5}) {
        test::g_threads = threads;
        for (size_t i = 0; i < std::size(test::kProblems); ++i) {
          for (const Layout layout : {Layout::nchw, Layout::nhwc}) {
            const std::string name = std::string(cpu::name_of(capability)) + " " + cpu::name_of(algorithm) + " " +
                                     std::to_string(threads) + " threads, problem " + std::to_string(i) +
                                     (layout == Layout::nhwc ? " nhwc" : " nchw");
            test::test<float>(report, test::kProblems[i], layout, name);
            if (algorithm == cpu::Conv2dAlgorithm::direct) {
              test::test<double>(report, test::kProblems[i], layout, name + " double");
            }
          }
        }
      }
    }
  }
  return report.finish();
}
