// The Node-API edge, and all of it: every argument's type and length is checked here before memory is touched, every
// failure becomes a JavaScript error, and whatever takes longer than a stream over memory runs off the event loop.
// No globals: any number of engines, in any number of worker_threads.
#include <node_api.h>

#include <climits>
#include <cmath>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "isa.h"
#include "vector.h"

namespace {

using std::string;

// Becomes a JavaScript TypeError: the caller passed something wrong.
struct BadArgument : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void check(napi_status status, const char* what) {
  if (status != napi_ok) throw std::runtime_error(string("Node-API: ") + what + " failed");
}

template <class T>
struct Span {
  T* data;
  size_t size;
};

template <class T>
struct ArrayType;
template <>
struct ArrayType<float> {
  static constexpr napi_typedarray_type code = napi_float32_array;
  static constexpr const char* name = "Float32Array";
};
template <>
struct ArrayType<uint16_t> {
  static constexpr napi_typedarray_type code = napi_uint16_array;
  static constexpr const char* name = "Uint16Array";
};
template <>
struct ArrayType<uint32_t> {
  static constexpr napi_typedarray_type code = napi_uint32_array;
  static constexpr const char* name = "Uint32Array";
};

// The arguments of one call from JavaScript, checked one by one as they are taken.
class Call {
 public:
  static constexpr size_t most = 8;

  Call(napi_env env, napi_callback_info info) : env(env) {
    count_ = most;
    check(napi_get_cb_info(env, info, &count_, values_, &self, nullptr), "reading the arguments");
    check(napi_get_new_target(env, info, &new_target_), "reading the arguments");
  }

  void require_new(const char* name) const {
    if (!new_target_) throw BadArgument(string(name) + " is made with new");
  }

  napi_env env;
  napi_value self;

  napi_value value(size_t i, const char* name) const {
    if (i >= count_) throw BadArgument(string(name) + ": missing");
    return values_[i];
  }

  int integer(size_t i, const char* name, int least, int largest) const {
    double x = NAN;
    if (napi_get_value_double(env, value(i, name), &x) != napi_ok || x != std::floor(x) || x < least || x > largest)
      throw BadArgument(string(name) + ": expected an integer from " + std::to_string(least) + " to " +
                        std::to_string(largest));
    return static_cast<int>(x);
  }

  string text(size_t i, const char* name) const {
    char buffer[64];
    size_t length = 0;
    if (napi_get_value_string_utf8(env, value(i, name), buffer, sizeof buffer, &length) != napi_ok)
      throw BadArgument(string(name) + ": expected a string");
    return string(buffer, length);
  }

  template <class T>
  Span<T> array(size_t i, const char* name) const {
    bool is_array = false;
    napi_typedarray_type type;
    Span<T> span{};
    void* data = nullptr;
    if (napi_is_typedarray(env, value(i, name), &is_array) != napi_ok || !is_array ||
        napi_get_typedarray_info(env, values_[i], &type, &span.size, &data, nullptr, nullptr) != napi_ok ||
        type != ArrayType<T>::code)
      throw BadArgument(string(name) + ": expected a " + ArrayType<T>::name);
    span.data = static_cast<T*>(data);
    return span;
  }

  template <class T>
  Span<T> array(size_t i, const char* name, size_t size) const {
    const Span<T> span = array<T>(i, name);
    if (span.size != size)
      throw BadArgument(string(name) + ": " + std::to_string(span.size) + " values, expected " + std::to_string(size));
    return span;
  }

 private:
  napi_value values_[most];
  napi_value new_target_ = nullptr;
  size_t count_;
};

napi_value number(napi_env env, double x) {
  napi_value out;
  check(napi_create_double(env, x, &out), "making a number");
  return out;
}

napi_value text(napi_env env, const string& x) {
  napi_value out;
  check(napi_create_string_utf8(env, x.data(), x.size(), &out), "making a string");
  return out;
}

// Wraps a function of Call so that C++ exceptions become JavaScript's.
template <napi_value (*body)(Call&)>
napi_value guarded(napi_env env, napi_callback_info info) {
  try {
    Call call(env, info);
    return body(call);
  } catch (const BadArgument& error) {
    napi_throw_type_error(env, nullptr, error.what());
  } catch (const std::bad_alloc&) {
    napi_throw_error(env, nullptr, "native: out of memory");
  } catch (const std::exception& error) {
    napi_throw_error(env, nullptr, error.what());
  }
  return nullptr;
}

// ---- objects: a C++ object behind a JavaScript one, tagged so that no other object passes for it ----

template <class T>
T& unwrap(napi_env env, napi_value object) {
  bool ours = false;
  void* data = nullptr;
  if (napi_check_object_type_tag(env, object, &T::tag, &ours) != napi_ok || !ours ||
      napi_unwrap(env, object, &data) != napi_ok)
    throw BadArgument(string("expected a ") + T::name);
  return *static_cast<T*>(data);
}

template <class T>
napi_value wrap(Call& call, std::unique_ptr<T> object) {
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<T*>(data); };
  if (napi_wrap(call.env, call.self, object.get(), finalize, nullptr, nullptr) != napi_ok)
    throw std::runtime_error(string(T::name) + ": napi_wrap failed");
  object.release();
  check(napi_type_tag_object(call.env, call.self, &T::tag), "tagging an object");
  return call.self;
}

// ---- Vectors(threads, isa): shared/vector.ts, on the calling thread and its pool ----

struct Vectors {
  static constexpr const char* name = "Vectors";
  static constexpr napi_type_tag tag = {0x6b1f3a0d92e44c57, 0x9d0c5be27f1a8836};
  Vectors(int threads, weft::Isa isa) : ops(threads, isa) {}
  weft::VectorOps ops;
};

napi_value vectors_new(Call& call) {
  call.require_new(Vectors::name);
  const int threads = call.integer(0, "threads", 1, 1024);
  const weft::Isa isa = weft::isa_choose(call.text(1, "isa").c_str());
  return wrap(call, std::make_unique<Vectors>(threads, isa));
}

napi_value vectors_isa(Call& call) { return text(call.env, isa_name(unwrap<Vectors>(call.env, call.self).ops.isa())); }

napi_value vectors_add(Call& call) {
  const auto left = call.array<float>(0, "left");
  const auto right = call.array<float>(1, "right", left.size);
  unwrap<Vectors>(call.env, call.self).ops.add(left.data, right.data, left.size);
  return nullptr;
}

napi_value vectors_sum_of_squares(Call& call) {
  const auto x = call.array<float>(0, "x");
  return number(call.env, unwrap<Vectors>(call.env, call.self).ops.sum_of_squares(x.data, x.size));
}

napi_value vectors_adamw(Call& call) {
  const auto w = call.array<float>(0, "w");
  const auto g = call.array<float>(1, "g", w.size);
  const auto m = call.array<float>(2, "m", w.size);
  const auto v = call.array<float>(3, "v", w.size);
  const auto scalars = call.array<float>(4, "scalars", 9);
  unwrap<Vectors>(call.env, call.self).ops.adamw(w.data, g.data, m.data, v.data, w.size, scalars.data);
  return nullptr;
}

napi_value vectors_digest(Call& call) {
  const auto lanes = call.array<uint32_t>(0, "lanes", 16);
  const auto x = call.array<float>(1, "x");
  unwrap<Vectors>(call.env, call.self).ops.digest(lanes.data, reinterpret_cast<const uint32_t*>(x.data), x.size);
  return nullptr;
}

napi_value vectors_to_bf16(Call& call) {
  const auto out = call.array<uint16_t>(0, "out");
  const auto x = call.array<float>(1, "x", out.size);
  unwrap<Vectors>(call.env, call.self).ops.to_bf16(out.data, x.data, x.size);
  return nullptr;
}

napi_value vectors_from_bf16(Call& call) {
  const auto out = call.array<float>(0, "out");
  const auto x = call.array<uint16_t>(1, "x", out.size);
  unwrap<Vectors>(call.env, call.self).ops.from_bf16(out.data, x.data, x.size);
  return nullptr;
}

// chooseIsa(asked): the set's name, or an error that lists those that run here.
napi_value choose_isa(Call& call) { return text(call.env, isa_name(weft::isa_choose(call.text(0, "isa").c_str()))); }

template <napi_value (*body)(Call&)>
napi_property_descriptor method(const char* name) {
  return {name, nullptr, guarded<body>, nullptr, nullptr, nullptr, napi_default_method, nullptr};
}

}  // namespace

NAPI_MODULE_INIT() {
  const napi_property_descriptor vectors[] = {
      method<vectors_isa>("isa"),
      method<vectors_add>("add"),
      method<vectors_sum_of_squares>("sumOfSquares"),
      method<vectors_adamw>("adamw"),
      method<vectors_digest>("digest"),
      method<vectors_to_bf16>("toBf16"),
      method<vectors_from_bf16>("fromBf16"),
  };
  const auto define = [&](const char* name, napi_callback constructor, const napi_property_descriptor* methods,
                          size_t count) {
    napi_value type;
    return napi_define_class(env, name, NAPI_AUTO_LENGTH, constructor, nullptr, count, methods, &type) == napi_ok &&
           napi_set_named_property(env, exports, name, type) == napi_ok;
  };
  const napi_property_descriptor functions[] = {method<choose_isa>("chooseIsa")};
  if (!define("Vectors", guarded<vectors_new>, vectors, sizeof vectors / sizeof *vectors) ||
      napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions) != napi_ok)
    napi_throw_error(env, nullptr, "native: the addon could not start");
  return exports;
}
