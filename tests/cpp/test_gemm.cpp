// Matrix products against sums in double: every orientation of the operands, sizes around those of tiles and blocks,
// every instruction set, several threads. Operands end where their memory ends, and what surrounds c stays as it was.
#include <cmath>
#include <limits>

#include "activation.h"
#include "capabilities.h"
#include "check.h"
#include "kernels/cpu/gemm.h"
#include "threads.h"

namespace d2l::test {
namespace {

constexpr double kBeside = 1234.5;

struct Problem {
  int64_t rows, columns, depth;
};

constexpr Problem kProblems[] = {
    {1, 1, 1},      {1, 40, 70},     {1, 1100, 33}, {2, 17, 100},  {3, 33, 65},    {4, 100, 9},
    {5, 31, 64},    {8, 50, 300},    {9, 35, 35},   {14, 32, 16},  {15, 33, 17},   {40, 64, 8},
    {37, 70, 3},    {29, 10, 1030},  {100, 96, 40}, {6, 130, 600}, {450, 40, 90},  {7, 5, 4500},
    {33, 20, 5000}, {30, 300, 2048}, {13, 20, 0},   {97, 81, 33},  {64, 50, 1500},
};

template <typename T>
void test_problem(Report& report, const Problem& sizes, bool a_transposed, bool b_transposed, Activation activation,
                  const std::string& name) {
  const auto [rows, columns, depth] = sizes;
  const int64_t pad = 3, width = columns + pad;
  const auto a = random_values<T>(rows * depth, 1), b = random_values<T>(depth * columns, 2);
  const auto bias = random_values<T>(columns, 3);
  for (const bool has_bias : {false, true}) {
    std::vector<T> c(static_cast<size_t>(rows * width), static_cast<T>(kBeside));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        c[static_cast<size_t>(i * width + j)] = std::numeric_limits<T>::quiet_NaN();
      }
    }
    cpu::Gemm<T> problem{};
    problem.rows = rows;
    problem.columns = columns;
    problem.depth = depth;
    problem.a = a.data();
    problem.a_row = a_transposed ? 1 : depth;
    problem.a_depth = a_transposed ? rows : 1;
    problem.b = b.data();
    problem.b_depth = b_transposed ? 1 : columns;
    problem.b_column = b_transposed ? depth : 1;
    problem.bias = has_bias ? bias.data() : nullptr;
    problem.c = c.data();
    problem.c_row = width;
    problem.activation = activation;
    cpu::gemm(problem);
    bool is_right = true;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        double sum = has_bias ? bias[static_cast<size_t>(j)] : 0, scale = std::abs(sum);
        for (int64_t d = 0; d < depth; ++d) {
          const double product =
              static_cast<double>(a[static_cast<size_t>(i * problem.a_row + d * problem.a_depth)]) *
              static_cast<double>(b[static_cast<size_t>(d * problem.b_depth + j * problem.b_column)]);
          sum += product;
          scale += std::abs(product);
        }
        const double error =
            std::abs(static_cast<double>(c[static_cast<size_t>(i * width + j)]) - activated(sum, activation));
        // Blocks are summed up separately: far fewer roundings in a row than terms.
        is_right = is_right && error <= (scale * 8 + 4) * static_cast<double>(std::numeric_limits<T>::epsilon());
      }
      for (int64_t j = columns; j < width; ++j) {
        is_right = is_right && static_cast<double>(c[static_cast<size_t>(i * width + j)]) == kBeside;
      }
    }
    report.check(is_right, name + (has_bias ? " with bias" : ""));
  }
}

template <typename T>
void test_all(Report& report, const std::string& name) {
  for (size_t i = 0; i < std::size(kProblems); ++i) {
    for (const bool a_transposed : {false, true}) {
      for (const bool b_transposed : {false, true}) {
        // The other activations take the same path.
        for (const Activation activation : {Activation::none, i % 2 == 0 ? Activation::relu : Activation::tanh,
                                            i % 3 == 0 ? Activation::sigmoid : Activation::none}) {
          test_problem<T>(report, kProblems[i], a_transposed, b_transposed, activation,
                          name + ", problem " + std::to_string(i) + (a_transposed ? ", a transposed" : "") +
                              (b_transposed ? ", b transposed" : "") + ", activation " +
                              std::to_string(static_cast<int>(activation)));
        }
      }
    }
  }
}

// More lines and depth than one block has of either.
void test_large(Report& report, const std::string& name) {
  const int64_t rows = 390, columns = 370, depth = 700;
  const auto a = random_values<float>(rows * depth, 1), b = random_values<float>(depth * columns, 2);
  for (int layout = 0; layout < 4; ++layout) {
    const bool a_transposed = layout % 2 == 1, b_transposed = layout / 2 == 1;
    const int64_t a_row = a_transposed ? 1 : depth, a_depth = a_transposed ? rows : 1;
    const int64_t b_depth = b_transposed ? 1 : columns, b_column = b_transposed ? depth : 1;
    std::vector<float> c(static_cast<size_t>(rows * columns));
    cpu::gemm(cpu::Gemm<float>{rows, columns, depth, a.data(), a_row, a_depth, b.data(), b_depth, b_column, nullptr,
                               c.data(), columns, Activation::none});
    bool is_right = true;
    for (int64_t i = 0; i < rows; i += 7) {
      for (int64_t j = 0; j < columns; j += 3) {
        double sum = 0;
        for (int64_t d = 0; d < depth; ++d) {
          sum += static_cast<double>(a[static_cast<size_t>(i * a_row + d * a_depth)]) *
                 static_cast<double>(b[static_cast<size_t>(d * b_depth + j * b_column)]);
        }
        is_right = is_right && std::abs(static_cast<double>(c[static_cast<size_t>(i * columns + j)]) - sum) < 1e-4;
      }
    }
    report.check(is_right, name + ", large, layout " + std::to_string(layout));
  }
}

// A result that is written past the cache.
void test_streamed(Report& report, const std::string& name) {
  const int64_t rows = 2050, columns = 4096;
  for (const int64_t depth : {3, 20, 70}) {
    const auto a = random_values<float>(rows * depth, 1), b = random_values<float>(depth * columns, 2);
    std::vector<float> c(static_cast<size_t>(rows * columns + 16));
    float* aligned = c.data();
    while (reinterpret_cast<uintptr_t>(aligned) % 64 != 0) ++aligned;
    const cpu::Gemm<float> problem{rows,    columns, depth,   a.data(),        1, rows, b.data(), columns, 1,
                                   nullptr, aligned, columns, Activation::none};
    cpu::gemm(problem);
    bool is_right = true;
    for (int64_t i = 0; i < rows; i += 37) {
      for (int64_t j = 0; j < columns; j += 11) {
        double sum = 0;
        for (int64_t d = 0; d < depth; ++d) {
          sum += static_cast<double>(a[static_cast<size_t>(i + d * rows)]) *
                 static_cast<double>(b[static_cast<size_t>(d * columns + j)]);
        }
        is_right = is_right && std::abs(aligned[i * columns + j] - sum) < 1e-5;
      }
    }
    report.check(is_right, name + ", streamed, depth " + std::to_string(depth));
  }
}

// Infinities, NaN and the largest values, which tiles of parts cannot multiply, leave the rest of the result alone.
void test_extremes(Report& report, const std::string& name) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kLargest = std::numeric_limits<float>::max();
  constexpr float kExtremes[] = {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN(), kLargest, -kLargest};
  for (const auto [rows, columns, depth] : {Problem{130, 90, 100}, Problem{70, 66, 3000}}) {
    for (int layout = 0; layout < 4; ++layout) {
      const bool a_transposed = layout % 2 == 1, b_transposed = layout / 2 == 1;
      auto a = random_values<float>(rows * depth, 1), b = random_values<float>(depth * columns, 2);
      const int64_t a_row = a_transposed ? 1 : depth, a_depth = a_transposed ? rows : 1;
      const int64_t b_depth = b_transposed ? 1 : columns, b_column = b_transposed ? depth : 1;
      for (int64_t i = 0; i < 5; ++i) {
        a[static_cast<size_t>(13 * i * a_row + 17 * i * a_depth)] = kExtremes[i];
        b[static_cast<size_t>((11 * i + 3) * b_depth + (64 - 7 * i) * b_column)] = kExtremes[i];
      }
      std::vector<float> c(static_cast<size_t>(rows * columns));
      cpu::gemm(cpu::Gemm<float>{rows, columns, depth, a.data(), a_row, a_depth, b.data(), b_depth, b_column, nullptr,
                                 c.data(), columns, Activation::none});
      bool is_right = true;
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          double sum = 0, scale = 0;
          for (int64_t d = 0; d < depth; ++d) {
            const double product = static_cast<double>(a[static_cast<size_t>(i * a_row + d * a_depth)]) *
                                   static_cast<double>(b[static_cast<size_t>(d * b_depth + j * b_column)]);
            sum += product;
            scale += std::abs(product);
          }
          const double actual = static_cast<double>(c[static_cast<size_t>(i * columns + j)]);
          sum = static_cast<double>(static_cast<float>(sum));  // two of the largest are infinite
          if (std::isnan(sum)) {
            is_right = is_right && std::isnan(actual);
          } else if (std::isinf(sum)) {
            is_right = is_right && actual == sum;
          } else {
            is_right = is_right &&
                       std::abs(actual - sum) <= scale * 8 * static_cast<double>(std::numeric_limits<float>::epsilon());
          }
        }
      }
      report.check(is_right,
                   name + ", extremes, depth " + std::to_string(depth) + ", layout " + std::to_string(layout));
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
      const std::string name = std::string(cpu::name_of(capability)) + ", " + std::to_string(threads) + " threads";
      test::test_all<float>(report, name + ", float");
      test::test_all<double>(report, name + ", double");
      test::test_large(report, name);
      test::test_streamed(report, name);
      test::test_extremes(report, name);
    }
  }
  return report.finish();
}
