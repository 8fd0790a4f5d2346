#include "emulator/launch.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <unordered_map>
#include <vector>

namespace d2l::emulator {
namespace {

constexpr size_t kDefaultSharedBytes = 48 * 1024;
constexpr unsigned kMaxThreads = 1024;

thread_local cudaError_t last_error = cudaSuccess;
thread_local Fault last_fault;

cudaError_t set_error(cudaError_t error, const std::string& text) {
  last_error = error;
  last_fault = {error, text};
  return error;
}

// Dynamic shared memory that kernels have been allowed to use.
std::mutex attributes_mutex;
std::unordered_map<const void*, size_t> allowed_shared_bytes;

size_t allowed_shared(const void* kernel) {
  const std::lock_guard lock(attributes_mutex);
  const auto found = allowed_shared_bytes.find(kernel);
  return found == allowed_shared_bytes.end() ? kDefaultSharedBytes : found->second;
}

// Blocks own stacks, which are expensive to set up: idle ones wait here for the next launch.
class BlockPool {
 public:
  std::unique_ptr<Block> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<Block>();
    std::unique_ptr<Block> block = std::move(idle_.back());
    idle_.pop_back();
    return block;
  }

  void give_back(std::unique_ptr<Block> block) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(block));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Block>> idle_;
};

BlockPool& block_pool() {
  static BlockPool pool;
  return pool;
}

std::string text_of(const dim3& size) {
  return "(" + std::to_string(size.x) + ", " + std::to_string(size.y) + ", " + std::to_string(size.z) + ")";
}

// What CUDA would refuse to launch.
Fault check(const Launch& launch, const void* kernel) {
  const auto refuse = [&](cudaError_t error, const std::string& text) {
    return Fault{error, std::string("kernel ") + launch.kernel_name + ": " + text};
  };
  const dim3& block = launch.block;
  const dim3& grid = launch.grid;
  if (block.x == 0 || block.y == 0 || block.z == 0 || block.x > kMaxThreads || block.y > kMaxThreads || block.z > 64 ||
      block.x * block.y * block.z > kMaxThreads) {
    return refuse(cudaErrorInvalidConfiguration, "expected a block of 1 to 1024 threads, but got " + text_of(block));
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return refuse(
        cudaErrorInvalidConfiguration,
        "expected a grid of at most (2147483647, 65535, 65535) blocks and no empty one, but got " + text_of(grid));
  }
  const size_t limit = static_cast<size_t>(launch.configuration.max_shared_bytes());
  if (launch.shared_bytes > limit) {
    return refuse(cudaErrorInvalidValue,
                  "needs " + std::to_string(launch.shared_bytes) + " bytes of shared memory; sm_" +
                      std::to_string(launch.configuration.arch) + " has " + std::to_string(limit));
  }
  if (launch.shared_bytes > allowed_shared(kernel)) {
    return refuse(cudaErrorInvalidValue,
                  "needs " + std::to_string(launch.shared_bytes) +
                      " bytes of dynamic shared memory; more than 48 KB must be allowed with cudaFuncSetAttribute");
  }
  return {};
}

// Runs the blocks on several OS threads. Of several faults the one of the first block is kept.
Fault run_blocks(const Launch& launch) {
  const size_t blocks = launch.block_count();
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  std::mutex mutex;
  Fault fault;
  size_t fault_block = blocks;
  const auto keep = [&](Fault found, size_t block) {
    failed = true;
    const std::lock_guard lock(mutex);
    if (block < fault_block) fault = std::move(found), fault_block = block;
  };
  const auto work = [&] {
    try {
      std::unique_ptr<Block> block = block_pool().take();
      for (size_t i = next++; i < blocks && !failed; i = next++) {
        Fault found = block->run(launch, i);
        if (found.error != cudaSuccess) keep(std::move(found), i);
      }
      block_pool().give_back(std::move(block));
    } catch (const std::bad_alloc&) {
      keep({cudaErrorMemoryAllocation, std::string("kernel ") + launch.kernel_name + ": no memory for its stacks"}, 0);
    }
  };
  const int wanted = launch.configuration.threads;
  const size_t workers =
      std::min<size_t>(wanted > 0 ? wanted : std::max(1u, std::thread::hardware_concurrency()), blocks);
  std::vector<std::thread> others;
  for (size_t i = 1; i < workers; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  return fault;
}

}  // namespace

void run(Launch launch, const void* kernel) {
  std::string error;
  if (!read_configuration(&launch.configuration, &error)) {
    set_error(cudaErrorInvalidValue, error);
    return;
  }
  Fault fault = check(launch, kernel);
  if (fault.error == cudaSuccess) fault = run_blocks(launch);
  if (fault.error != cudaSuccess) set_error(fault.error, fault.text);
}

}  // namespace d2l::emulator

using namespace d2l::emulator;

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaPeekAtLastError() { return last_error; }

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaSuccess) return "no error";
  return error == last_fault.error ? last_fault.text.c_str() : cudaGetErrorName(error);
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorLaunchTimeout:
      return "cudaErrorLaunchTimeout";
    case cudaErrorIllegalInstruction:
      return "cudaErrorIllegalInstruction";
    case cudaErrorMisalignedAddress:
      return "cudaErrorMisalignedAddress";
    case cudaErrorInvalidAddressSpace:
      return "cudaErrorInvalidAddressSpace";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
  }
  return "unrecognized error code";
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  Configuration configuration;
  std::string error;
  if (!read_configuration(&configuration, &error)) return set_error(cudaErrorInvalidValue, error);
  if (value < 0 || value > configuration.max_shared_bytes()) {
    return set_error(cudaErrorInvalidValue, "cudaFuncSetAttribute: sm_" + std::to_string(configuration.arch) + " has " +
                                                std::to_string(configuration.max_shared_bytes()) +
                                                " bytes of shared memory, but " + std::to_string(value) +
                                                " were asked for");
  }
  const std::lock_guard lock(attributes_mutex);
  allowed_shared_bytes[kernel] = std::max(static_cast<size_t>(value), kDefaultSharedBytes);
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  constexpr int kMultiprocessors = 4;  // few, so that grids made to fill the device stay small
  Configuration configuration;
  std::string error;
  if (!read_configuration(&configuration, &error)) return set_error(cudaErrorInvalidValue, error);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = configuration.arch / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = configuration.arch % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(configuration.max_shared_bytes());
      return cudaSuccess;
  }
  return set_error(cudaErrorInvalidValue, "cudaDeviceGetAttribute: attribute unknown to the emulator");
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
