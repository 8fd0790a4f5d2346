#include "emulator/configuration.h"

#include <cstdlib>

namespace d2l::emulator {
namespace {

template <typename T>
struct Choice {
  const char* name;
  T value;
};

struct Arch {
  int number;
  int shared_kilobytes;
};

constexpr Arch kArchs[] = {{80, 163}, {86, 99}, {89, 99}, {90, 227}, {100, 227}, {120, 99}};

bool complain(const char* variable, const std::string& expected, const char* got, std::string* error) {
  *error = std::string(variable) + ": expected " + expected + ", but got '" + got + "'";
  return false;
}

template <typename T, size_t kCount>
bool read_choice(const char* variable, const Choice<T> (&choices)[kCount], T* value, std::string* error) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return true;
  std::string expected;
  for (const Choice<T>& choice : choices) {
    if (choice.name == std::string(text)) {
      *value = choice.value;
      return true;
    }
    expected += (expected.empty() ? "" : ", ") + std::string(choice.name);
  }
  return complain(variable, "one of " + expected, text, error);
}

template <typename T>
bool read_number(const char* variable, T* value, std::string* error) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return true;
  char* end = nullptr;
  const long long number = std::strtoll(text, &end, 10);
  if (*end != '\0' || number < 0) return complain(variable, "a number >= 0", text, error);
  *value = static_cast<T>(number);
  return true;
}

}  // namespace

int64_t Configuration::max_shared_bytes() const {
  for (const Arch& known : kArchs) {
    if (known.number == arch) return int64_t{1024} * known.shared_kilobytes;
  }
  return 0;
}

bool read_configuration(Configuration* configuration, std::string* error) {
  static constexpr Choice<Schedule> kSchedules[] = {{"forward", Schedule::forward},
                                                    {"reverse", Schedule::reverse},
                                                    {"random", Schedule::random},
                                                    {"greedy", Schedule::greedy},
                                                    {"greedy_reverse", Schedule::greedy_reverse}};
  static constexpr Choice<CopyModel> kCopyModels[] = {{"late", CopyModel::late}, {"eager", CopyModel::eager}};
  static constexpr Choice<int> kArchNames[] = {{"80", 80}, {"86", 86},   {"89", 89},
                                               {"90", 90}, {"100", 100}, {"120", 120}};
  *configuration = Configuration{};
  return read_choice("D2LKERNELS_EMULATOR_SCHEDULE", kSchedules, &configuration->schedule, error) &&
         read_choice("D2LKERNELS_EMULATOR_CP_ASYNC", kCopyModels, &configuration->copies, error) &&
         read_choice("D2LKERNELS_EMULATOR_ARCH", kArchNames, &configuration->arch, error) &&
         read_number("D2LKERNELS_EMULATOR_SEED", &configuration->seed, error) &&
         read_number("D2LKERNELS_EMULATOR_THREADS", &configuration->threads, error);
}

}  // namespace d2l::emulator
