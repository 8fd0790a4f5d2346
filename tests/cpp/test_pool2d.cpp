// Max and average pooling on the CPU against plain loops: every instruction set of the machine, both layouts, float and
// double, both widths of offsets, one thread and several, regular and adaptive windows, ties, -infinity and NaN.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "capabilities.h"
#include "check.h"
#include "kernels/cpu/pool2d.h"
#include "threads.h"

namespace d2l::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Problem {
  int64_t N, C, H, W, R, S;
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1;
  bool ceil_mode = false, count_include_pad = true;
  int64_t divisor_override = 0;
  bool adaptive = false;  // then R x S is the size of the output

  static int64_t output_size(int64_t size, int64_t taps, int64_t stride, int64_t pad, int64_t dilation,
                             bool ceil_mode) {
    const int64_t room = size + 2 * pad - dilation * (taps - 1) - 1;
    int64_t windows = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    if (ceil_mode && (windows - 1) * stride >= size + pad) --windows;
    return room < 0 ? 0 : windows;
  }

  Pool2dShape shape() const {
    const int64_t dirty = 77;  // adaptive windows must not read these
    if (adaptive) {
      const auto widest = [](int64_t size, int64_t windows) {
        int64_t taps = 1;
        for (int64_t i = 0; i < windows; ++i) {
          taps = std::max(taps, ((i + 1) * size + windows - 1) / windows - i * size / windows);
        }
        return taps;
      };
      return {N,     C,     H,     W,    widest(H, R),      widest(W, S),    R, S, dirty, dirty, dirty,
              dirty, dirty, dirty, true, count_include_pad, divisor_override};
    }
    const int64_t P = output_size(H, R, stride_h, pad_h, dilation_h, ceil_mode);
    const int64_t Q = output_size(W, S, stride_w, pad_w, dilation_w, ceil_mode);
    return {N,
            C,
            H,
            W,
            R,
            S,
            P,
            Q,
            stride_h,
            stride_w,
            pad_h,
            pad_w,
            dilation_h,
            dilation_w,
            false,
            count_include_pad,
            divisor_override};
  }
};

Problem square(int64_t N, int64_t C, int64_t H, int64_t W, int64_t kernel, int64_t stride, int64_t pad = 0) {
  return {N, C, H, W, kernel, kernel, stride, stride, pad, pad};
}

Problem adaptive(int64_t N, int64_t C, int64_t H, int64_t W, int64_t P, int64_t Q) {
  Problem problem{N, C, H, W, P, Q};
  problem.adaptive = true;
  return problem;
}

std::vector<Problem> problems() {
  std::vector<Problem> all = {
      square(2, 6, 28, 28, 2, 2),
      square(3, 16, 10, 10, 2, 2),
      square(1, 64, 13, 15, 3, 2, 1),
      square(2, 33, 9, 8, 3, 1, 1),
      square(1, 5, 14, 14, 3, 2),
      square(2, 100, 23, 5, 3, 1, 1),  // overlapping windows of 3 x 3 in NHWC, of several bands
      square(1, 64, 21, 6, 3, 2, 1),
      square(2, 17, 30, 4, 3, 2),
      square(1, 48, 1, 3, 3, 1, 1),
      square(3, 80, 2, 1, 3, 2, 1),
      square(1, 6, 17, 9, 3, 1),
      {2, 33, 19, 8, 3, 3, 1, 2, 1, 0},
      {1, 70, 16, 11, 3, 3, 2, 1, 0, 1},
      {1, 24, 15, 13, 3, 3, 1, 4, 1, 1},  // columns between windows
      square(2, 70, 6, 6, 2, 2),
      square(1, 1, 40, 41, 2, 2),
      square(2, 3, 12, 100, 3, 1, 1),
      square(1, 2, 8, 70, 3, 2, 1),
      square(1, 4, 5, 5, 5, 5),
      square(2, 8, 5, 5, 1, 1),
      square(2, 8, 9, 9, 1, 3),
      square(1, 3, 24, 24, 3, 3),
      square(1, 3, 24, 24, 4, 4, 2),
      square(1, 2, 30, 30, 5, 6, 1),
      square(1, 130, 4, 4, 2, 1),
      square(2, 3, 1, 1, 1, 1),
      square(2, 2, 1, 9, 1, 2),
      square(1, 7, 9, 22, 2, 2),
      square(1, 3, 8, 31, 3, 3),
      square(2, 10, 12, 12, 2, 2),
      square(3, 5, 7, 7, 2, 2),  // an odd number of rows of windows, of which a register holds two
      square(1, 3, 11, 8, 3, 3),
      {1, 4, 6, 5, 3, 2, 3, 2},
      square(2, 24, 6, 8, 2, 2),
      square(2, 2, 12, 12, 3, 1, 1),
      {1, 2, 6, 80, 1, 4, 1, 4},
      square(0, 3, 8, 8, 2, 2),
      square(1, 2, 300, 17, 3, 2, 1),
      square(1, 1, 65, 700, 3, 2, 1),
      {2, 5, 11, 1, 3, 1, 2, 1, 1, 0},
      {1, 7, 3, 90, 2, 7, 1, 3, 0, 3},
      {2, 4, 20, 24, 3, 2, 1, 4, 1, 1},
      {1, 17, 12, 19, 3, 3, 1, 2, 1, 1, 2, 2},
      {1, 6, 15, 30, 2, 3, 2, 1, 1, 1, 3, 2},
      {1, 3, 40, 40, 17, 18, 3, 2, 8, 9},
      {1, 5, 20, 20, 16, 16, 1, 1, 4, 4},
      {1, 5, 2, 12, 2, 2, 1, 1, 1, 1, 3, 1},  // windows without a tap inside the map
      {1, 5, 12, 2, 2, 2, 1, 1, 1, 1, 1, 3},
      adaptive(2, 5, 12, 12, 1, 1),
      adaptive(1, 64, 48, 48, 1, 1),
      adaptive(2, 3, 12, 12, 6, 6),
      adaptive(2, 20, 13, 17, 5, 7),
      adaptive(1, 3, 5, 6, 7, 9),
      adaptive(1, 40, 7, 7, 7, 7),
      adaptive(2, 2, 9, 30, 2, 3),
      adaptive(1, 2, 10, 40, 3, 5),
      adaptive(2, 3, 8, 8, 0, 4),
      adaptive(1, 17, 24, 1000, 4, 10),
  };
  const size_t regular = all.size();
  for (size_t i = 0; i < regular; i += 3) {  // the same, hanging over the edge or counted differently
    Problem problem = all[i];
    problem.ceil_mode = true;
    problem.count_include_pad = i % 2 == 0;
    problem.divisor_override = i % 4 == 3 ? 7 : 0;
    if (!problem.adaptive) all.push_back(problem);
  }
  std::mt19937 generator(5);
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(generator);
  };
  while (all.size() < 135) {
    Problem problem{pick(1, 3), pick(1, 40), pick(1, 24), pick(1, 80), pick(1, 5), pick(1, 5)};
    problem.stride_h = pick(1, 5);
    problem.stride_w = pick(1, 5);
    problem.pad_h = pick(0, problem.R / 2);
    problem.pad_w = pick(0, problem.S / 2);
    problem.dilation_h = pick(0, 3) == 0 ? 2 : 1;
    problem.dilation_w = pick(0, 3) == 0 ? 2 : 1;
    problem.ceil_mode = pick(0, 1) == 1;
    problem.count_include_pad = pick(0, 1) == 1;
    problem.divisor_override = pick(0, 5) == 0 ? pick(-3, 9) : 0;
    problem.adaptive = pick(0, 4) == 0;
    const Pool2dShape shape = problem.shape();
    if (shape.P > 0 && shape.Q > 0) all.push_back(problem);
  }
  all.push_back(square(3, 7, 6, 10, 2, 2));  // gradients as a run of registers, the last one of which is not full
  all.push_back(square(3, 3, 9, 9, 3, 3));
  return all;
}

size_t at(Layout layout, int64_t n, int64_t c, int64_t h, int64_t w, int64_t C, int64_t H, int64_t W) {
  return static_cast<size_t>(layout == Layout::nhwc ? ((n * H + h) * W + w) * C + c : ((n * C + c) * H + h) * W + w);
}

template <typename Visit>
void for_each_output(const Pool2dShape& shape, Visit&& visit) {
  for (int64_t n = 0; n < shape.N; ++n) {
    for (int64_t c = 0; c < shape.C; ++c) {
      for (int64_t p = 0; p < shape.P; ++p) {
        for (int64_t q = 0; q < shape.Q; ++q) visit(n, c, p, q);
      }
    }
  }
}

// visit(input element, offset in the window) for the taps in the map, row by row.
template <typename Visit>
void for_each_tap(const Pool2dShape& shape, Layout layout, int64_t n, int64_t c, int64_t p, int64_t q, Visit&& visit) {
  const Window rows = shape.rows(p), columns = shape.columns(q);
  for (int64_t r = 0; rows.begin + r * rows.step < rows.end; ++r) {
    for (int64_t s = 0; columns.begin + s * columns.step < columns.end; ++s) {
      const int64_t h = rows.begin + r * rows.step, w = columns.begin + s * columns.step;
      if (h < 0 || h >= shape.H || w < 0 || w >= shape.W) continue;
      visit(at(layout, n, c, h, w, shape.C, shape.H, shape.W), h * shape.W + w, r * shape.S + s);
    }
  }
}

double divisor(const Pool2dShape& shape, int64_t p, int64_t q) {
  if (shape.divisor_override != 0) return static_cast<double>(shape.divisor_override);
  const Window rows = shape.rows(p), columns = shape.columns(q);
  const auto count = [&](Window window, int64_t size, int64_t pad) {
    if (shape.adaptive) return window.end - window.begin;
    if (shape.count_include_pad) return std::min(window.end, size + pad) - window.begin;
    return std::min(window.end, size) - std::max<int64_t>(window.begin, 0);
  };
  return static_cast<double>(count(rows, shape.H, shape.pad_h) * count(columns, shape.W, shape.pad_w));
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <typename T>
bool same_values(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](T x, T y) { return x == y || (std::isnan(x) && std::isnan(y)); });
}

template <typename T>
bool close(const std::vector<T>& got, const std::vector<double>& wanted) {
  const double tolerance = 8 * static_cast<double>(std::numeric_limits<T>::epsilon());
  return got.size() == wanted.size() && std::equal(got.begin(), got.end(), wanted.begin(), [&](T x, double y) {
           return std::abs(static_cast<double>(x) - y) <= tolerance * (1 + std::abs(y));
         });
}

enum class Values { random, ties, zeros, special, lowest };

template <typename T>
std::vector<T> make_input(int64_t count, uint32_t seed, Values values) {
  std::vector<T> input = random_values<T>(count, seed);
  if (values == Values::lowest) std::fill(input.begin(), input.end(), static_cast<T>(-kInfinity));
  if (values == Values::ties || values == Values::zeros) {  // without a NaN, which kernels take another way for
    constexpr double kFew[] = {-kInfinity, -1, -0.0, 0.0, 1};
    const uint32_t count_of_few = values == Values::ties ? 5 : 4;  // in large windows zeros win over no 1 only
    std::mt19937 generator(seed);
    for (T& value : input) value = static_cast<T>(kFew[generator() % count_of_few]);
  }
  if (values == Values::special) {
    std::mt19937 generator(seed);
    for (T& value : input) {
      const uint32_t draw = generator() % 20;
      value = static_cast<T>(draw == 0 ? kNan : draw < 12 ? -kInfinity : draw < 14 ? kInfinity : draw % 3);
    }
  }
  return input;
}

template <typename T>
double dot(const std::vector<T>& a, const std::vector<T>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

class Tester {
 public:
  Tester(Report& report, const Problem& problem, Layout layout, size_t index)
      : report_(report),
        shape_(problem.shape()),
        layout_(layout),
        seed_(static_cast<uint32_t>(index)),
        is_average_(problem.dilation_h == 1 && problem.dilation_w == 1),
        inputs_(shape_.N * shape_.C * shape_.H * shape_.W),
        outputs_(shape_.N * shape_.C * shape_.P * shape_.Q) {}

  template <typename T>
  void run(const std::string& name) {
    name_ = name + (sizeof(T) == 4 ? " float" : " double");
    for (const Values values : {Values::random, Values::ties, Values::zeros, Values::special, Values::lowest}) {
      if (shape_.R * shape_.S <= 256) test_max<T, uint8_t>(values);
      test_max<T, int32_t>(values);
    }
    if (is_average_) test_average<T>();
  }

 private:
  template <typename T, typename Offset>
  void test_max(Values values) {
    const std::vector<T> input = make_input<T>(inputs_, seed_, values);
    std::vector<T> wanted(static_cast<size_t>(outputs_));
    std::vector<Offset> wanted_offsets(static_cast<size_t>(outputs_));
    std::vector<int64_t> wanted_indices(static_cast<size_t>(outputs_));
    std::vector<double> wanted_grad(static_cast<size_t>(inputs_), 0.0);
    std::vector<bool> has_tap(static_cast<size_t>(outputs_));
    const std::vector<T> grad_output = random_values<T>(outputs_, seed_ + 1);
    for_each_output(shape_, [&](int64_t n, int64_t c, int64_t p, int64_t q) {
      const size_t to = at(layout_, n, c, p, q, shape_.C, shape_.P, shape_.Q);
      T best = static_cast<T>(-kInfinity);
      size_t place = 0;
      for_each_tap(shape_, layout_, n, c, p, q, [&](size_t from, int64_t index, int64_t offset) {
        const T value = input[from];
        if (!has_tap[to] || value > best || std::isnan(value)) {
          best = value;
          place = from;
          wanted_offsets[to] = static_cast<Offset>(offset);
          wanted_indices[to] = index;
        }
        has_tap[to] = true;
      });
      wanted[to] = best;
      if (has_tap[to]) wanted_grad[place] += static_cast<double>(grad_output[to]);
    });

    std::vector<T> output(wanted.size(), static_cast<T>(kNan)), unremembered = output;
    std::vector<Offset> offsets(wanted.size(), Offset(113));
    cpu::max_pool2d(shape_, layout_, input.data(), output.data(), offsets.data());
    cpu::max_pool2d<T, Offset>(shape_, layout_, input.data(), unremembered.data(), nullptr);
    std::vector<int64_t> indices(wanted.size(), -7);
    cpu::max_pool2d_indices(shape_, layout_, offsets.data(), indices.data());
    for (size_t i = 0; i < wanted.size(); ++i) {  // without a tap there is no place to compare
      if (!has_tap[i]) wanted_offsets[i] = offsets[i], wanted_indices[i] = indices[i];
    }
    check(same_values(output, wanted), "max_pool2d");
    check(same_values(unremembered, wanted), "max_pool2d without offsets");
    if (values == Values::ties || values == Values::zeros) {  // of two zeros the first one, with its sign
      check(same_bits(output, wanted) && same_bits(unremembered, wanted), "max_pool2d of ties");
    }
    check(offsets == wanted_offsets, "max_pool2d offsets");
    check(indices == wanted_indices, "max_pool2d_indices");

    std::vector<T> grad_input(static_cast<size_t>(inputs_), static_cast<T>(kNan));
    cpu::max_pool2d_input_grad(shape_, layout_, grad_output.data(), offsets.data(), grad_input.data());
    check(close(grad_input, wanted_grad), "max_pool2d_input_grad");

    const std::vector<T> tangent = random_values<T>(inputs_, seed_ + 2);
    std::vector<T> gathered(wanted.size(), static_cast<T>(kNan));
    cpu::max_pool2d_gather(shape_, layout_, tangent.data(), offsets.data(), gathered.data());
    bool right = true;
    for_each_output(shape_, [&](int64_t n, int64_t c, int64_t p, int64_t q) {
      const size_t to = at(layout_, n, c, p, q, shape_.C, shape_.P, shape_.Q);
      const int64_t h = wanted_indices[to] / shape_.W, w = wanted_indices[to] % shape_.W;
      right &= gathered[to] == (has_tap[to] ? tangent[at(layout_, n, c, h, w, shape_.C, shape_.H, shape_.W)] : T(0));
    });
    check(right, "max_pool2d_gather");
    check_transposes(dot(gathered, grad_output), dot(tangent, grad_input),
                     "max_pool2d_input_grad and max_pool2d_gather");

    std::vector<T> again(grad_input.size(), T(5)), output_again(output.size(), T(5));
    std::vector<Offset> offsets_again(offsets.size(), Offset(9));
    with_threads([&] {
      cpu::max_pool2d(shape_, layout_, input.data(), output_again.data(), offsets_again.data());
      cpu::max_pool2d_input_grad(shape_, layout_, grad_output.data(), offsets.data(), again.data());
    });
    check(same_values(output, output_again) && offsets == offsets_again && same_bits(grad_input, again),
          "maximum with several threads");
  }

  template <typename T>
  void test_average() {
    const std::vector<T> input = random_values<T>(inputs_, seed_);
    const std::vector<T> grad_output = random_values<T>(outputs_, seed_ + 1);
    std::vector<double> wanted(static_cast<size_t>(outputs_)), wanted_grad(static_cast<size_t>(inputs_), 0.0);
    for_each_output(shape_, [&](int64_t n, int64_t c, int64_t p, int64_t q) {
      const size_t to = at(layout_, n, c, p, q, shape_.C, shape_.P, shape_.Q);
      const double taps = divisor(shape_, p, q);
      for_each_tap(shape_, layout_, n, c, p, q, [&](size_t from, int64_t, int64_t) {
        wanted[to] += static_cast<double>(input[from]) / taps;
        wanted_grad[from] += static_cast<double>(grad_output[to]) / taps;
      });
    });
    std::vector<T> output(wanted.size(), static_cast<T>(kNan)), output_again(wanted.size(), T(5));
    std::vector<T> grad_input(wanted_grad.size(), static_cast<T>(kNan)), grad_again(wanted_grad.size(), T(5));
    cpu::avg_pool2d(shape_, layout_, input.data(), output.data());
    cpu::avg_pool2d_input_grad(shape_, layout_, grad_output.data(), grad_input.data());
    check(close(output, wanted), "avg_pool2d");
    check(close(grad_input, wanted_grad), "avg_pool2d_input_grad");
    check_transposes(dot(output, grad_output), dot(input, grad_input), "avg_pool2d and its gradient");
    with_threads([&] {
      cpu::avg_pool2d(shape_, layout_, input.data(), output_again.data());
      cpu::avg_pool2d_input_grad(shape_, layout_, grad_output.data(), grad_again.data());
    });
    check(same_bits(output, output_again) && same_bits(grad_input, grad_again), "average with several threads");
  }

  template <typename Function>
  static void with_threads(Function&& function) {
    g_threads = 3;
    function();
    g_threads = 1;
  }

  void check_transposes(double a, double b, const char* what) {
    check(std::abs(a - b) <= 1e-5 * (1 + std::sqrt(static_cast<double>(outputs_))), what);
  }

  void check(bool ok, const char* what) { report_.check(ok, std::string(what) + ", " + name_); }

  Report& report_;
  const Pool2dShape shape_;
  const Layout layout_;
  const uint32_t seed_;
  const bool is_average_;
  const int64_t inputs_, outputs_;
  std::string name_;
};

}  // namespace
}  // namespace d2l::test

int main() {
  using namespace d2l;
  test::Report report;
  const std::vector<test::Problem> problems = test::problems();
  for (const cpu::Capability capability : test::supported_capabilities()) {
    cpu::set_capability(capability);
    for (size_t i = 0; i < problems.size(); ++i) {
      for (const Layout layout : {Layout::nchw, Layout::nhwc}) {
        test::Tester tester(report, problems[i], layout, i);
        const std::string name = std::string(cpu::name_of(capability)) + ", problem " + std::to_string(i) +
                                 (layout == Layout::nhwc ? ", nhwc," : ", nchw,");
        tester.run<float>(name);
        tester.run<double>(name);
      }
    }
  }
  return report.finish();
}
