// Every length to beyond the widest loop, at every alignment, equals the definition bit by bit; no byte outside is read
// (each message is a heap block of exactly its size, for AddressSanitizer).
#include "crc32.h"

#include <memory>

#include "check.h"

static uint32_t by_definition(const uint8_t* bytes, size_t n) {
  uint32_t crc = ~0u;
  for (size_t i = 0; i < 8 * n; i++) {
    const uint32_t odd = (crc ^ bytes[i / 8] >> i % 8) & 1;
    crc = crc >> 1 ^ (odd ? 0xedb88320u : 0);
  }
  return ~crc;
}

int main() {
  isa_under_test();
  if (!weft::crc32_runs_here()) return 77;
  CHECK(weft::crc32(reinterpret_cast<const uint8_t*>("123456789"), 9) == 0xcbf43926u, "the check value of CRC-32");
  uint32_t random = 1;
  for (size_t n = 0; n <= 400; n++) {
    const std::unique_ptr<uint8_t[]> block(new uint8_t[n]);
    for (size_t i = 0; i < n; i++) block[i] = (random = random * 1664525 + 1013904223) >> 24;
    for (size_t from = 0; from <= n && from < 16; from++) {
      const uint32_t expected = by_definition(block.get() + from, n - from);
      const uint32_t got = weft::crc32(block.get() + from, n - from);
      CHECK(got == expected, "%zu bytes from %zu: %08x, expected %08x", n - from, from, got, expected);
    }
  }
}
