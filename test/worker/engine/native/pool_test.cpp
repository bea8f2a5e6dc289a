// Every task of a region runs exactly once, regions of any size follow each other at once, several pools live side by
// side, and the caller's denormal mode is its own again afterwards. Under ThreadSanitizer also: no data race.
#include "pool.h"

#include <exception>
#include <memory>

#include "check.h"

using weft::Denormals;
using weft::Pool;

static volatile float tiny = 1e-39f;

static void every_task_once(int threads) {
  Pool pool(threads, Denormals::flush);
  CHECK(pool.threads() == threads, "%d, expected %d", pool.threads(), threads);
  int hits[64];
  for (int region = 0; region < 5000; region++) {
    const int count = region * 7919 % 65;
    for (int& hit : hits) hit = 0;
    pool.run(count, [&](int i, int slot) {
      CHECK(slot >= 0 && slot < threads, "slot %d of %d", slot, threads);
      hits[i]++;
    });
    for (int i = 0; i < 64; i++)
      CHECK(hits[i] == (i < count), "region %d: task %d of %d ran %d times", region, i, count, hits[i]);
  }
}

static void ranges_cover(int threads) {
  Pool pool(threads, Denormals::flush);
  for (size_t n : {0, 1, 15, 16, 17, 1000, 4099}) {
    const std::unique_ptr<int[]> hits(new int[n]());
    pool.run_ranges(n, 16, 4, [&](size_t begin, size_t end, int) {
      CHECK(begin % 16 == 0 && begin < end && end <= n, "%zu to %zu of %zu", begin, end, n);
      for (size_t i = begin; i < end; i++) hits[i]++;
    });
    for (size_t i = 0; i < n; i++) CHECK(hits[i] == 1, "element %zu of %zu: %d times", i, n, hits[i]);
  }
}

static void denormals(int threads) {
  Pool flushing(threads, Denormals::flush), keeping(threads, Denormals::keep);
  flushing.run(64, [](int i, int) { CHECK(tiny * 0.5f == 0, "task %d kept a denormal", i); });
  CHECK(tiny * 0.5f != 0, "the caller's mode changed");
  weft::DenormalScope scope(Denormals::flush);
  keeping.run(64, [](int i, int) { CHECK(tiny * 0.5f != 0, "task %d flushed a denormal", i); });
  CHECK(tiny * 0.5f == 0, "the caller's mode changed");
}

int main() {
  isa_under_test();
  for (int threads : {1, 2, 3, 8}) {
    every_task_once(threads);
    ranges_cover(threads);
    denormals(threads);
  }
  std::printf("pool: ok\n");
}
