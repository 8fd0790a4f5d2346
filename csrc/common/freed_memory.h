// Whether the process keeps the memory that its tensors free.
#pragma once

namespace d2l {

// False where the C library has no such setting.
bool keep_freed_memory(bool keep);

}  // namespace d2l
