// A SIMT machine in plain C++: .cu files are compiled unchanged against it, with g++ and no CUDA toolkit.
//
//   g++ -std=c++20 -O2 -DD2L_EMULATE_CUDA -I csrc -I tests/cuda_emulation -x c++ -c csrc/kernels/cuda/pool2d.cu
//
// Every CUDA thread is a fiber; a block runs on one OS thread, several blocks at a time. What may go unnoticed on a GPU
// is an error or a NaN here: divergent barriers, wrong warp masks, misaligned or unawaited copies, shared memory that
// was never written. Each launch reads how to run from the environment:
//
//   D2LKERNELS_EMULATOR_SCHEDULE  forward | reverse | random | greedy | greedy_reverse   which threads run first
//   D2LKERNELS_EMULATOR_CP_ASYNC  late | eager       cp.async copies when it is waited for, or when it is issued
//   D2LKERNELS_EMULATOR_SEED      of the random schedule
//   D2LKERNELS_EMULATOR_ARCH      80 | 86 | 89 | 90 | 100 | 120   whose shared memory limit holds
//   D2LKERNELS_EMULATOR_THREADS   OS threads
//
// Neither model of cp.async finds every fault: late finds a missing wait, eager a missing barrier before a buffer is
// filled again. Results must agree under all schedules and both models. The emulator knows nothing of bank conflicts,
// registers and the weak memory model.
#pragma once

#include "emulator/atomics.h"
#include "emulator/bfloat16.h"
#include "emulator/block.h"
#include "emulator/builtins.h"
#include "emulator/half.h"
#include "emulator/launch.h"
#include "emulator/ptx.h"
#include "emulator/runtime.h"
#include "emulator/vector_types.h"
#include "emulator/warp.h"
