// A fixed set of threads that share the tasks of one region after another. The caller takes tasks itself and waits only
// for tasks that were taken, never for a thread that has not woken: with fewer cores than threads nothing stands still.
// Idle threads spin for a short, bounded time, then sleep in the kernel.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace weft {

// What happens to numbers too small to be normal. Engines flush them to zero (they carry nothing and can be slow); the
// vector arithmetic of shared/arithmetic/vector.ts keeps them, as JavaScript does.
enum class Denormals { keep, flush };

// Sets this thread's mode and puts the old one back at the end of the scope: Node's own arithmetic runs here too.
class DenormalScope {
 public:
  explicit DenormalScope(Denormals mode);
  ~DenormalScope();
  DenormalScope(const DenormalScope&) = delete;
  DenormalScope& operator=(const DenormalScope&) = delete;

 private:
  uint64_t saved_;
};

class Pool {
 public:
  // `threads` counts the caller: threads - 1 are started. Throws std::system_error when the system has no more.
  Pool(int threads, Denormals mode);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(index, slot) for every index in [0, count), in no order, on the caller and the pool's threads, and
  // returns when all have returned. slot in [0, threads()) belongs to one thread during the region: scratch memory may
  // be indexed by it, results must not be. One region at a time; task must not throw.
  template <class Task>
  void run(int count, Task&& task) {
    using T = std::remove_reference_t<Task>;
    region(count, [](void* t, int index, int slot) { (*static_cast<T*>(t))(index, slot); },
           const_cast<void*>(static_cast<const void*>(&task)));
  }

  // run() over [0, n) in about chunks_per_thread pieces a thread, cut at multiples of `grain`: task(begin, end, slot).
  template <class Task>
  void run_ranges(size_t n, size_t grain, int chunks_per_thread, Task&& task) {
    const size_t units = (n + grain - 1) / grain;
    const size_t wanted = threads() == 1 ? 1 : static_cast<size_t>(threads()) * chunks_per_thread;
    const size_t pieces = wanted < units ? wanted : units;
    run(static_cast<int>(pieces), [&](int i, int slot) {
      const size_t begin = units * i / pieces * grain, end = units * (i + 1) / pieces * grain;
      task(begin, end < n ? end : n, slot);
    });
  }

 private:
  using Call = void (*)(void* task, int index, int slot);
  void region(int count, Call call, void* task);
  void take(uint32_t generation, int slot);
  void serve(int slot);

  // generation << 32 | tasks not yet taken. A thread that arrives late holds an old generation, and its
  // compare-exchange fails: it can take nothing of a region that it did not see begin.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  std::atomic<uint32_t> sleepers_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  std::atomic<uint32_t> caller_sleeps_{0};
  // The region: written before ticket_, read only by a thread that has taken one of its tasks.
  alignas(64) Call call_ = nullptr;
  void* task_ = nullptr;
  int count_ = 0;
  std::atomic<bool> closing_{false};
  Denormals mode_;
  int spins_;
  std::vector<std::thread> workers_;
};

}  // namespace weft
