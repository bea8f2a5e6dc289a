#include "pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <climits>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace weft {

#if defined(__x86_64__)
// MXCSR: flush-to-zero is bit 15, denormals-are-zero bit 6.
static uint64_t read_mode() { return _mm_getcsr(); }
static void write_mode(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
static constexpr uint64_t flush_bits = 0x8040;
static void relax() { _mm_pause(); }
#elif defined(__aarch64__)
// FPCR: FZ is bit 24.
static uint64_t read_mode() {
  uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
static void write_mode(uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
static constexpr uint64_t flush_bits = 1u << 24;
static void relax() { asm volatile("yield"); }
#else
static uint64_t read_mode() { return 0; }
static void write_mode(uint64_t) {}
static constexpr uint64_t flush_bits = 0;
static void relax() {}
#endif

DenormalScope::DenormalScope(Denormals mode) : saved_(read_mode()) {
  write_mode(mode == Denormals::flush ? saved_ | flush_bits : saved_ & ~flush_bits);
}
DenormalScope::~DenormalScope() { write_mode(saved_); }

// Sleep while `word` holds `seen`; may return early.
#if defined(__linux__)
static void sleep_on(std::atomic<uint32_t>& word, uint32_t seen) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
static void wake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}
// Spinning helps only where every thread has a core to itself.
static int cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}
#else
static void sleep_on(std::atomic<uint32_t>& word, uint32_t seen) {
  if (word.load() == seen) std::this_thread::sleep_for(std::chrono::microseconds(20));
}
static void wake(std::atomic<uint32_t>&) {}
static int cores() { return static_cast<int>(std::thread::hardware_concurrency()); }
#endif

Pool::Pool(int threads, Denormals mode) : mode_(mode), spins_(threads <= cores() ? 4000 : 0) {
  workers_.reserve(threads > 1 ? threads - 1 : 0);
  for (int slot = 1; slot < threads; slot++) workers_.emplace_back([this, slot] { serve(slot); });
}

Pool::~Pool() {
  closing_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1);
  wake(generation_);
  for (auto& worker : workers_) worker.join();
}

void Pool::region(int count, Call call, void* task) {
  DenormalScope scope(mode_);
  if (workers_.empty() || count <= 1) {
    for (int i = 0; i < count; i++) call(task, i, 0);
    return;
  }
  call_ = call;
  task_ = task;
  count_ = count;
  done_.store(0, std::memory_order_relaxed);
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  ticket_.store(static_cast<uint64_t>(generation) << 32 | static_cast<uint32_t>(count), std::memory_order_release);
  generation_.store(generation, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst)) wake(generation_);
  take(generation, 0);
  for (int spin = 0;;) {
    uint32_t done = done_.load(std::memory_order_acquire);
    if (done == static_cast<uint32_t>(count)) return;
    if (++spin < spins_) {
      relax();
      continue;
    }
    caller_sleeps_.store(1, std::memory_order_seq_cst);
    done = done_.load(std::memory_order_seq_cst);
    if (done != static_cast<uint32_t>(count)) sleep_on(done_, done);
    caller_sleeps_.store(0, std::memory_order_relaxed);
  }
}

void Pool::take(uint32_t generation, int slot) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  for (;;) {
    const uint32_t left = static_cast<uint32_t>(ticket);
    if (ticket >> 32 != generation || left == 0) return;
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    // Once done_ is counted the region may be over and its fields the next one's: take what is needed before.
    const uint32_t count = static_cast<uint32_t>(count_);
    call_(task_, static_cast<int>(count - left), slot);
    if (done_.fetch_add(1, std::memory_order_seq_cst) + 1 == count && caller_sleeps_.load(std::memory_order_seq_cst))
      wake(done_);
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void Pool::serve(int slot) {
  DenormalScope scope(mode_);
  uint32_t seen = 0;
  for (;;) {
    uint32_t generation;
    for (int spin = 0; (generation = generation_.load(std::memory_order_acquire)) == seen;) {
      if (++spin < spins_) {
        relax();
        continue;
      }
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      sleep_on(generation_, seen);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
      spin = 0;
    }
    if (closing_.load(std::memory_order_relaxed)) return;
    seen = generation;
    take(generation, slot);
  }
}

}  // namespace weft
