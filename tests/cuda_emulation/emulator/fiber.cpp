#include "emulator/fiber.h"

#include <cstdint>
#include <cstdlib>

#include "emulator/sanitizer.h"

#if D2L_FIBER_ASSEMBLY
// Keeps what the ABI asks a function to preserve (the floating-point control words are never changed by a kernel).
extern "C" void d2l_emulator_switch(void** save, void* load);
asm(R"(
.text
.globl d2l_emulator_switch
.hidden d2l_emulator_switch
.type d2l_emulator_switch, @function
d2l_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size d2l_emulator_switch, . - d2l_emulator_switch
)");
#endif

namespace d2l::emulator {
namespace {

// Handed to enter(), which can take no argument.
thread_local Fiber* entering = nullptr;

void start_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* stack,
                  [[maybe_unused]] size_t bytes) {
#if D2L_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#endif
}

void finish_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** previous_stack,
                   [[maybe_unused]] size_t* previous_bytes) {
#if D2L_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(fake_stack, previous_stack, previous_bytes);
#endif
}

}  // namespace

void Fiber::start(char* stack, size_t bytes, void (*entry)()) {
  stack_ = stack;
  stack_bytes_ = bytes;
  entry_ = entry;
  unpoison(stack, bytes);  // a fiber that was abandoned has left its variables' red zones there
#if D2L_FIBER_ASSEMBLY
  constexpr int kSavedRegisters = 6;
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // the return address of enter(), which also gives it the alignment that the ABI promises
  *--top = reinterpret_cast<void*>(&Fiber::enter);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  own_ = top;
#else
  getcontext(&own_);
  own_.uc_stack.ss_sp = stack;
  own_.uc_stack.ss_size = bytes;
  own_.uc_link = nullptr;
  makecontext(&own_, &Fiber::enter, 0);
#endif
}

void Fiber::enter() {
  Fiber* self = entering;
  finish_switch(nullptr, &self->caller_stack_, &self->caller_stack_bytes_);
  self->entry_();
  std::abort();  // entry must not return
}

void Fiber::resume() {
  entering = this;
  void* fake_stack = nullptr;
  start_switch(&fake_stack, stack_, stack_bytes_);
#if D2L_FIBER_ASSEMBLY
  d2l_emulator_switch(&caller_, own_);
#else
  swapcontext(&caller_, &own_);
#endif
  finish_switch(fake_stack, nullptr, nullptr);
}

void Fiber::leave(bool for_good) {
  void* fake_stack = nullptr;
  start_switch(for_good ? nullptr : &fake_stack, caller_stack_, caller_stack_bytes_);
#if D2L_FIBER_ASSEMBLY
  d2l_emulator_switch(&own_, caller_);
#else
  swapcontext(&own_, &caller_);
#endif
  finish_switch(fake_stack, &caller_stack_, &caller_stack_bytes_);
}

void Fiber::suspend() { leave(false); }

void Fiber::finish() {
  leave(true);
  std::abort();  // a finished fiber is not resumed
}

}  // namespace d2l::emulator
