// How launches run: see simt_emulator.h for the environment variables.
#pragma once

#include <cstdint>
#include <string>

namespace d2l::emulator {

enum class Schedule { forward, reverse, random, greedy, greedy_reverse };
enum class CopyModel { late, eager };

struct Configuration {
  Schedule schedule = Schedule::forward;
  CopyModel copies = CopyModel::late;
  uint64_t seed = 0;
  int arch = 90;
  int threads = 0;  // 0: as many as the machine has

  int64_t max_shared_bytes() const;  // of one block, static and dynamic
};

// What the environment asks for. On false, *error says which variable is wrong and what it may be.
bool read_configuration(Configuration* configuration, std::string* error);

}  // namespace d2l::emulator
