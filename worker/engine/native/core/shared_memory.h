// Memory that processes of one machine share: anonymous (memfd_create), so that nothing is left behind however they end,
// and of a size that nobody can change, so that no access can fail. Linux only.
#pragma once
#include <cstddef>
#include <string>

namespace weft {

constexpr bool shared_memory_runs_here =
#if defined(__linux__)
    true;
#else
    false;
#endif

// A file descriptor, the caller's, of `bytes` zeros: as /proc/PID/fd/FILE every process of the same user can open it for
// as long as it is open here. Throws std::runtime_error.
int shared_memory_create(size_t bytes);

// Maps what was made with so many bytes, to be read, or written too; page-aligned. The caller unmaps it. Throws
// std::runtime_error for a path that cannot be opened or is no such memory of that size.
void* shared_memory_open(const std::string& path, size_t bytes, bool writable);

void shared_memory_unmap(void* data, size_t bytes);

}  // namespace weft
