#include "shared_memory.h"

#include <stdexcept>

#if defined(__linux__)
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace weft {

[[noreturn]] static void refuse(const std::string& what) {
  throw std::runtime_error("shared memory: " + what + " (" + strerror(errno) + ")");
}

int shared_memory_create(size_t bytes) {
  const int file = memfd_create("weft", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file < 0) refuse("none can be made");
  if (ftruncate(file, static_cast<off_t>(bytes)) == 0 &&
      fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
    return file;
  const int reason = errno;
  close(file);
  errno = reason;
  refuse(std::to_string(bytes) + " bytes cannot be had");
}

void* shared_memory_open(const std::string& path, size_t bytes, bool writable) {
  const int file = open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) refuse(path + " cannot be opened");
  struct stat status;
  errno = 0;
  // Only such memory has seals, and its size can be relied on.
  const int seals = fcntl(file, F_GET_SEALS);
  const bool is_ours = seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(file, &status) == 0 &&
                       static_cast<size_t>(status.st_size) == bytes;
  const int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* data = is_ours ? mmap(nullptr, bytes, access, MAP_SHARED, file, 0) : MAP_FAILED;
  const int reason = errno;
  close(file);
  errno = reason;
  if (!is_ours) throw std::runtime_error("shared memory: " + path + " is none of " + std::to_string(bytes) + " bytes");
  if (data == MAP_FAILED) refuse(path + " cannot be mapped");
  return data;
}

void shared_memory_unmap(void* data, size_t bytes) { munmap(data, bytes); }

}  // namespace weft

#else

namespace weft {

int shared_memory_create(size_t) { throw std::runtime_error("shared memory: only on Linux"); }
void* shared_memory_open(const std::string&, size_t, bool) { throw std::runtime_error("shared memory: only on Linux"); }
void shared_memory_unmap(void*, size_t) {}

}  // namespace weft

#endif
