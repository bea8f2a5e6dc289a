// Two mappings of one memory see each other; its size is fixed; whatever else a path leads to is refused.
#include "shared_memory.h"

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <unistd.h>

#include "check.h"

static std::string path_of(int file) { return "/proc/self/fd/" + std::to_string(file); }

static std::string refusal(const std::string& path, size_t bytes) {
  try {
    weft::shared_memory_unmap(weft::shared_memory_open(path, bytes, true), bytes);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

int main() {
  isa_under_test();
  if (!weft::shared_memory_runs_here) return 77;
  const size_t bytes = 100000;
  const int file = weft::shared_memory_create(bytes);
  char* writer = static_cast<char*>(weft::shared_memory_open(path_of(file), bytes, true));
  const char* reader = static_cast<const char*>(weft::shared_memory_open(path_of(file), bytes, false));
  CHECK(reader[bytes - 1] == 0, "it begins with %d, expected zeros", reader[bytes - 1]);
  writer[bytes - 1] = 5;
  CHECK(reader[bytes - 1] == 5, "the other mapping has %d, expected 5", reader[bytes - 1]);
  CHECK(ftruncate(file, 10) != 0 && ftruncate(file, 2 * bytes) != 0, "its size could be changed");
  CHECK(refusal(path_of(file), bytes + 1).find("none of 100001 bytes") != std::string::npos, "another size was mapped");
  FILE* other = tmpfile();
  CHECK(ftruncate(fileno(other), bytes) == 0, "no file of that size");
  CHECK(refusal(path_of(fileno(other)), bytes).find("none of") != std::string::npos, "an ordinary file was mapped");
  fclose(other);
  close(file);
  CHECK(refusal(path_of(file), bytes).find("cannot be opened") != std::string::npos, "a closed one was mapped");
  writer[0] = 1;
  CHECK(reader[0] == 1, "the mappings ended with the file");
  weft::shared_memory_unmap(writer, bytes);
  weft::shared_memory_unmap(const_cast<char*>(reader), bytes);
}
