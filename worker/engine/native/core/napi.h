// A thin layer over Node-API for addon.cpp: arguments that are checked as they are taken, C++ exceptions that become
// JavaScript's, and objects that no other object passes for.
#pragma once
#include <node_api.h>

#include <cmath>
#include <initializer_list>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace weft {

using std::string;

// Becomes a JavaScript TypeError: the caller passed something wrong.
struct BadArgument : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void check(napi_status status, const char* what) {
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
struct ArrayType<double> {
  static constexpr napi_typedarray_type code = napi_float64_array;
  static constexpr const char* name = "Float64Array";
};
template <>
struct ArrayType<int32_t> {
  static constexpr napi_typedarray_type code = napi_int32_array;
  static constexpr const char* name = "Int32Array";
};
template <>
struct ArrayType<int64_t> {
  static constexpr napi_typedarray_type code = napi_bigint64_array;
  static constexpr const char* name = "BigInt64Array";
};
template <>
struct ArrayType<uint8_t> {
  static constexpr napi_typedarray_type code = napi_uint8_array;
  static constexpr const char* name = "Uint8Array";
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

  double number(napi_value x, const char* name) const {
    double out;
    if (napi_get_value_double(env, x, &out) != napi_ok) throw BadArgument(string(name) + ": expected a number");
    return out;
  }

  int integer(napi_value x, const char* name, int least, int largest) const {
    const double out = number(x, name);
    if (!(out == std::floor(out) && out >= least && out <= largest))
      throw BadArgument(string(name) + ": expected an integer from " + std::to_string(least) + " to " +
                        std::to_string(largest));
    return static_cast<int>(out);
  }

  bool boolean(napi_value x, const char* name) const {
    bool out;
    if (napi_get_value_bool(env, x, &out) != napi_ok) throw BadArgument(string(name) + ": expected true or false");
    return out;
  }

  string text(napi_value x, const char* name) const {
    size_t length = 0;
    if (napi_get_value_string_utf8(env, x, nullptr, 0, &length) != napi_ok)
      throw BadArgument(string(name) + ": expected a string");
    string whole(length + 1, '\0');
    check(napi_get_value_string_utf8(env, x, whole.data(), whole.size(), &length), "reading a string");
    whole.resize(length);
    return whole;
  }

  // The position of a word in a list.
  int choice(napi_value x, const char* name, std::initializer_list<const char*> words) const {
    const string word = text(x, name);
    int i = 0;
    for (const char* candidate : words) {
      if (word == candidate) return i;
      i++;
    }
    throw BadArgument(string(name) + ": \"" + word + "\" is unknown");
  }

  // A field of the object that argument i is.
  napi_value field(size_t i, const char* name) const {
    napi_value out;
    if (napi_get_named_property(env, value(i, name), name, &out) != napi_ok)
      throw BadArgument(string(name) + ": expected an object that has it");
    return out;
  }

  template <class T>
  Span<T> array_of(napi_value x, const char* name) const {
    bool is_array = false;
    napi_typedarray_type type;
    Span<T> span{};
    void* data = nullptr;
    if (napi_is_typedarray(env, x, &is_array) != napi_ok || !is_array ||
        napi_get_typedarray_info(env, x, &type, &span.size, &data, nullptr, nullptr) != napi_ok ||
        type != ArrayType<T>::code)
      throw BadArgument(string(name) + ": expected a " + ArrayType<T>::name);
    span.data = static_cast<T*>(data);
    return span;
  }

  template <class T>
  Span<T> array_of(napi_value x, const char* name, size_t size) const {
    const Span<T> span = array_of<T>(x, name);
    if (span.size != size)
      throw BadArgument(string(name) + ": " + std::to_string(span.size) + " values, expected " + std::to_string(size));
    return span;
  }

  template <class T, class... Size>
  Span<T> array(size_t i, const char* name, Size... size) const {
    return array_of<T>(value(i, name), name, size...);
  }

 private:
  napi_value values_[most];
  napi_value new_target_ = nullptr;
  size_t count_;
};

inline napi_value number(napi_env env, double x) {
  napi_value out;
  check(napi_create_double(env, x, &out), "making a number");
  return out;
}

inline napi_value text(napi_env env, const string& x) {
  napi_value out;
  check(napi_create_string_utf8(env, x.data(), x.size(), &out), "making a string");
  return out;
}

// Keeps a JavaScript value alive. Made and destroyed on the event loop.
class Kept {
 public:
  Kept(napi_env env, napi_value value) : env_(env) {
    check(napi_create_reference(env, value, 1, &reference_), "keeping a value");
  }
  Kept(Kept&& other) noexcept : env_(other.env_), reference_(std::exchange(other.reference_, nullptr)) {}
  Kept& operator=(Kept&& other) noexcept {
    std::swap(env_, other.env_);
    std::swap(reference_, other.reference_);
    return *this;
  }
  ~Kept() {
    if (reference_) napi_delete_reference(env_, reference_);
  }

  napi_value value() const {
    napi_value out;
    check(napi_get_reference_value(env_, reference_, &out), "reading a kept value");
    return out;
  }

 private:
  napi_env env_;
  napi_ref reference_ = nullptr;
};

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

// The C++ object behind a JavaScript one; its type's tag tells it from every other.
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

template <napi_value (*body)(Call&)>
napi_property_descriptor method(const char* name) {
  return {name, nullptr, guarded<body>, nullptr, nullptr, nullptr, napi_default_method, nullptr};
}

template <class T, napi_value (*constructor)(Call&), size_t count>
bool define(napi_env env, napi_value exports, const napi_property_descriptor (&methods)[count]) {
  napi_value type;
  return napi_define_class(env, T::name, NAPI_AUTO_LENGTH, guarded<constructor>, nullptr, count, methods, &type) ==
             napi_ok &&
         napi_set_named_property(env, exports, T::name, type) == napi_ok;
}

}  // namespace weft
