// exp, log, sigmoid and tanh of vec_math.h against long double: random arguments over the whole range, and the special
// ones. Compiled for every instruction set.
#include "kernels/cpu/vec_math.h"

#include <cmath>
#include <limits>

#include "check.h"
#include "threads.h"

namespace d2l::test {
namespace {

using cpu::D2L_CPU_CAPABILITY::broadcast;
using cpu::D2L_CPU_CAPABILITY::kLanes;
using cpu::D2L_CPU_CAPABILITY::vec_t;

constexpr double kUlps = 2.5, kTanhUlps = 2.6;
constexpr int kRounds = 100000;

// Distance in units in the last place of the expected value.
template <typename T>
double distance(T actual, long double expected) {
  const T rounded = static_cast<T>(expected);
  if (actual == rounded || (std::isnan(actual) && std::isnan(rounded))) return 0;
  if (!std::isfinite(actual) || !std::isfinite(rounded)) return std::numeric_limits<double>::infinity();
  using Limits = std::numeric_limits<T>;
  int exponent;
  static_cast<void>(std::frexp(rounded, &exponent));
  const int lowest = std::max(exponent, Limits::min_exponent) - Limits::digits;
  return static_cast<double>(std::fabs((actual - expected) / std::ldexp(1.0L, lowest)));
}

template <typename T, typename Function, typename Exact>
void check(Report& report, const std::string& name, Function function, Exact exact, double from, double to,
           double limit = kUlps) {
  std::mt19937_64 generator(1);
  std::uniform_real_distribution<double> distribution(from, to);
  double worst = 0;
  for (int round = 0; round < kRounds; ++round) {
    vec_t<T> x;
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const int shift = round % 4 == 0 ? static_cast<int>(generator() % 40) : 0;  // every fourth is small
      x[lane] = static_cast<T>(std::ldexp(distribution(generator), -shift));
    }
    const vec_t<T> y = function(x);
    for (int lane = 0; lane < kLanes<T>; ++lane) worst = std::max(worst, distance<T>(y[lane], exact(x[lane])));
  }
  report.check(worst <= limit, name + ": off by " + std::to_string(worst) + " units in the last place");

  using Limits = std::numeric_limits<T>;
  for (const T magnitude : {T(0), T(1), Limits::infinity(), Limits::quiet_NaN(), Limits::max(), Limits::min(),
                            Limits::denorm_min(), T(1000)}) {
    for (const T x : {magnitude, -magnitude}) {
      const T y = function(broadcast<T>(x))[0];
      const auto expected = static_cast<T>(exact(x));
      const bool same_sign = expected != 0 || std::signbit(y) == std::signbit(expected);
      report.check(distance<T>(y, exact(x)) <= limit && same_sign,
                   name + " of " + std::to_string(x) + " is " + std::to_string(y));
    }
  }
}

template <typename T>
void check_all(Report& report, const std::string& type) {
  namespace ours = cpu::D2L_CPU_CAPABILITY;
  const auto exp = [](vec_t<T> x) { return ours::exp<T>(x); };
  const auto log = [](vec_t<T> x) { return ours::log<T>(x); };
  const auto sigmoid = [](vec_t<T> x) { return ours::sigmoid<T>(x); };
  const auto tanh = [](vec_t<T> x) { return ours::tanh<T>(x); };
  const auto exact_exp = [](long double x) { return std::exp(x); };
  const auto exact_log = [](long double x) { return std::log(x); };
  const auto exact_tanh = [](long double x) { return std::tanh(x); };
  const auto exact_sigmoid = [](long double x) {
    return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
  };
  const double range = sizeof(T) == 4 ? 110 : 760;
  check<T>(report, "exp of " + type, exp, exact_exp, -range, range);
  check<T>(report, "log of " + type, log, exact_log, 0, 3);
  check<T>(report, "log of large " + type, log, exact_log, 0, std::numeric_limits<T>::max());
  check<T>(report, "log of tiny " + type, log, exact_log, 0, 4 * std::numeric_limits<T>::min());
  check<T>(report, "sigmoid of " + type, sigmoid, exact_sigmoid, -range, range);
  check<T>(report, "sigmoid of small " + type, sigmoid, exact_sigmoid, -5, 5);
  check<T>(report, "tanh of " + type, tanh, exact_tanh, -30, 30, kTanhUlps);
  check<T>(report, "tanh of small " + type, tanh, exact_tanh, -1, 1, kTanhUlps);
}

}  // namespace
}  // namespace d2l::test

int main() {
  d2l::test::Report report;
  d2l::test::check_all<float>(report, "float");
  d2l::test::check_all<double>(report, "double");
  return report.finish();
}
