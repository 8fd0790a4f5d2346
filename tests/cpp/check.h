// The few lines that the C++ tests need of a test framework.
#pragma once

#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace d2l::test {

class Report {
 public:
  void check(bool ok, const std::string& what) {
    ++(ok ? passed_ : failed_);
    if (!ok && failed_ <= kShown) std::printf("FAILED %s\n", what.c_str());
  }

  // Prints the counts; the exit status of a test program.
  int finish() const {
    std::printf("%lld passed, %lld failed\n", static_cast<long long>(passed_), static_cast<long long>(failed_));
    return failed_ == 0 && passed_ > 0 ? 0 : 1;
  }

 private:
  static constexpr int kShown = 20;
  int64_t passed_ = 0, failed_ = 0;
};

template <typename T>
std::vector<T> random_values(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> distribution(-1.0, 1.0);
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) value = static_cast<T>(distribution(generator));
  return values;
}

}  // namespace d2l::test
