// The Node-API edge over plugin.h. What JavaScript holds are opaque handles; whatever XLA may block in runs on a thread
// of its own and settles a promise, so that the event loop turns and any number of devices work at once.
#include <functional>
#include <thread>

#include "../../native/core/napi.h"
#include "plugin.h"

namespace {

using namespace weft;

// ---- Handles ----

enum class Kind { plugin, client, executable, buffer };
constexpr const char* kind_names[] = {"plugin", "client", "executable", "buffer"};
template <class T>
constexpr Kind kind_of = Kind::plugin;
template <>
constexpr Kind kind_of<Client> = Kind::client;
template <>
constexpr Kind kind_of<Executable> = Kind::executable;
template <>
constexpr Kind kind_of<Buffer> = Kind::buffer;

struct Handle {
  Kind kind;
  std::shared_ptr<void> object;
};

template <class T>
napi_value handle(napi_env env, std::shared_ptr<T> object) {
  napi_value out;
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<Handle*>(data); };
  auto* held = new Handle{kind_of<T>, std::move(object)};
  check(napi_create_external(env, held, finalize, nullptr, &out), "making a handle");
  return out;
}

template <class T>
std::shared_ptr<T> object_of(napi_env env, napi_value value) {
  napi_valuetype type;
  void* data = nullptr;
  const string name = kind_names[static_cast<int>(kind_of<T>)];
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_external ||
      napi_get_value_external(env, value, &data) != napi_ok || static_cast<Handle*>(data)->kind != kind_of<T>)
    throw BadArgument("expected a " + name);
  const auto& object = static_cast<Handle*>(data)->object;
  if (!object) throw BadArgument("this " + name + " was released");
  return std::static_pointer_cast<T>(object);
}

// ---- Jobs ----

// One for each JavaScript thread: the way back from the jobs' threads. It keeps the loop alive while a job is open.
struct Loop {
  napi_threadsafe_function settle = nullptr;
  size_t open = 0;
};

struct Job {
  Loop* loop;
  napi_deferred deferred;
  std::function<void()> work;
  std::function<napi_value(napi_env)> finish;
  std::vector<Kept> kept;
  string error;
  int code = 0;
  bool failed = false;
};

void settled(napi_env env, napi_value, void*, void* data) {
  std::unique_ptr<Job> job(static_cast<Job*>(data));
  if (!env) return;  // the thread ends: nobody waits
  if (--job->loop->open == 0) napi_unref_threadsafe_function(env, job->loop->settle);
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  if (!job->failed) {
    napi_resolve_deferred(env, job->deferred, job->finish(env));
  } else {
    napi_value error, code;
    napi_create_error(env, nullptr, text(env, job->error), &error);
    napi_create_int32(env, job->code, &code);
    napi_set_named_property(env, error, "xlaCode", code);
    napi_reject_deferred(env, job->deferred, error);
  }
  napi_close_handle_scope(env, scope);
}

// @param kept values that must live until the job is done, such as typed arrays that it reads or writes
napi_value start(Call& call, std::function<void()> work, std::function<napi_value(napi_env)> finish,
                 std::initializer_list<napi_value> kept = {}) {
  auto job = std::make_unique<Job>();
  void* data;
  check(napi_get_instance_data(call.env, &data), "finding the loop");
  job->loop = static_cast<Loop*>(data);
  job->work = std::move(work);
  job->finish = std::move(finish);
  for (napi_value value : kept) job->kept.emplace_back(call.env, value);
  napi_value promise;
  check(napi_create_promise(call.env, &job->deferred, &promise), "making a promise");
  if (job->loop->open++ == 0) napi_ref_threadsafe_function(call.env, job->loop->settle);
  std::thread([job = job.release()] {
    try {
      job->work();
    } catch (const XlaError& error) {
      job->failed = true;
      job->error = error.what();
      job->code = error.code;
    } catch (const std::exception& error) {
      job->failed = true;
      job->error = error.what();
    }
    job->work = nullptr;  // what it held may take long to free: here, not on the event loop
    napi_call_threadsafe_function(job->loop->settle, job, napi_tsfn_blocking);
  }).detach();
  return promise;
}

// A job whose result becomes a handle.
template <class Made>
napi_value start_making(Call& call, Made make) {
  auto result = std::make_shared<decltype(make())>();
  return start(
      call, [result, make = std::move(make)] { *result = make(); },
      [result](napi_env env) { return handle(env, *result); });
}

// ---- Values ----

string string_of(Call& call, size_t i, const char* name) {
  size_t size = 0;
  const napi_value value = call.value(i, name);
  if (napi_get_value_string_utf8(call.env, value, nullptr, 0, &size) != napi_ok)
    throw BadArgument(string(name) + ": expected a string");
  string out(size, '\0');
  check(napi_get_value_string_utf8(call.env, value, out.data(), size + 1, &size), "reading a string");
  return out;
}

string bytes_of(Call& call, size_t i, const char* name) {
  const auto span = call.array<uint8_t>(i, name);
  return string(reinterpret_cast<const char*>(span.data), span.size);
}

// { name: text | true | false | number }; a number with a fraction is a float.
NamedValues named_values(Call& call, size_t i, const char* name) {
  NamedValues out;
  napi_value keys;
  uint32_t count = 0;
  const napi_value object = call.value(i, name);
  if (napi_get_property_names(call.env, object, &keys) != napi_ok)
    throw BadArgument(string(name) + ": expected an object");
  check(napi_get_array_length(call.env, keys, &count), "reading names");
  for (uint32_t k = 0; k < count; k++) {
    napi_value key, value;
    check(napi_get_element(call.env, keys, k, &key), "reading a name");
    check(napi_get_property(call.env, object, key, &value), "reading a value");
    const string word = call.text(key, name);
    double number;
    if (napi_get_value_double(call.env, value, &number) == napi_ok) {
      if (number == std::floor(number))
        out.integers.emplace_back(word, static_cast<int64_t>(number));
      else
        out.floats.emplace_back(word, static_cast<float>(number));
      continue;
    }
    bool on;
    if (napi_get_value_bool(call.env, value, &on) == napi_ok) {
      out.switches.emplace_back(word, on);
      continue;
    }
    size_t size = 0;
    if (napi_get_value_string_utf8(call.env, value, nullptr, 0, &size) != napi_ok)
      throw BadArgument(word + ": expected text, a number, true or false");
    string text(size, '\0');
    check(napi_get_value_string_utf8(call.env, value, text.data(), size + 1, &size), "reading a string");
    out.texts.emplace_back(word, text);
  }
  return out;
}

napi_value object(napi_env env, std::initializer_list<std::pair<const char*, napi_value>> fields) {
  napi_value out;
  check(napi_create_object(env, &out), "making an object");
  for (const auto& [name, value] : fields) check(napi_set_named_property(env, out, name, value), "setting a field");
  return out;
}

template <class List, class Convert>
napi_value array(napi_env env, const List& list, Convert convert) {
  napi_value out;
  check(napi_create_array(env, &out), "making an array");
  uint32_t i = 0;
  for (const auto& item : list) check(napi_set_element(env, out, i++, convert(item)), "filling an array");
  return out;
}

napi_value bytes(napi_env env, const string& x) {
  void* data;
  napi_value buffer, out;
  check(napi_create_arraybuffer(env, x.size(), &data, &buffer), "making an array");
  std::memcpy(data, x.data(), x.size());
  check(napi_create_typedarray(env, napi_uint8_array, x.size(), buffer, 0, &out), "making an array");
  return out;
}

// ---- What JavaScript sees (worker/engine/xla/pjrt.ts) ----

napi_value open_plugin(Call& call) {
  return start_making(call, [path = string_of(call, 0, "path")] { return std::make_shared<Plugin>(path); });
}

napi_value plugin_facts(Call& call) {
  const auto plugin = object_of<Plugin>(call.env, call.value(0, "plugin"));
  napi_value attributes = object(call.env, {});
  for (const auto& [name, value] : plugin->attributes)
    check(napi_set_named_property(call.env, attributes, name.c_str(), text(call.env, value)), "setting a field");
  return object(call.env, {{"major", number(call.env, plugin->major)},
                           {"minor", number(call.env, plugin->minor)},
                           {"attributes", attributes}});
}

napi_value create_client(Call& call) {
  return start_making(call, [plugin = object_of<Plugin>(call.env, call.value(0, "plugin")),
                             options = named_values(call, 1, "options")] {
    return std::make_shared<Client>(plugin, options);
  });
}

napi_value client_facts(Call& call) {
  const auto client = object_of<Client>(call.env, call.value(0, "client"));
  const Plugin& plugin = *client->plugin;
  auto platform = arguments<PJRT_Client_PlatformName_Args>();
  platform.client = client->client;
  plugin.check(plugin.api->PJRT_Client_PlatformName(&platform));
  auto version = arguments<PJRT_Client_PlatformVersion_Args>();
  version.client = client->client;
  plugin.check(plugin.api->PJRT_Client_PlatformVersion(&version));
  const auto device = [&](PJRT_Device* device) {
    auto description = arguments<PJRT_Device_GetDescription_Args>();
    description.device = device;
    plugin.check(plugin.api->PJRT_Device_GetDescription(&description));
    auto kind = arguments<PJRT_DeviceDescription_Kind_Args>();
    kind.device_description = description.device_description;
    plugin.check(plugin.api->PJRT_DeviceDescription_Kind(&kind));
    auto memory = arguments<PJRT_Device_MemoryStats_Args>();
    memory.device = device;
    napi_value limit, used;
    check(napi_get_undefined(call.env, &limit), "making nothing");
    used = limit;
    try {
      plugin.check(plugin.api->PJRT_Device_MemoryStats(&memory));
      used = number(call.env, static_cast<double>(memory.bytes_in_use));
      if (memory.bytes_limit_is_set) limit = number(call.env, static_cast<double>(memory.bytes_limit));
    } catch (const XlaError&) {
      // A CPU does not tell.
    }
    return object(call.env, {{"kind", text(call.env, string(kind.device_kind, kind.device_kind_size))},
                             {"bytesInUse", used},
                             {"bytesLimit", limit}});
  };
  return object(call.env,
                {{"platform", text(call.env, string(platform.platform_name, platform.platform_name_size))},
                 {"version", text(call.env, string(version.platform_version, version.platform_version_size))},
                 {"devices", array(call.env, client->devices, device)}});
}

napi_value compile_program(Call& call) {
  return start_making(call, [client = object_of<Client>(call.env, call.value(0, "client")),
                             program = string_of(call, 1, "program"), options = bytes_of(call, 2, "options")] {
    return compile(client, program, options);
  });
}

napi_value compile_program_for(Call& call) {
  return start_making(call, [plugin = object_of<Plugin>(call.env, call.value(0, "plugin")),
                             name = string_of(call, 1, "name"), target = named_values(call, 2, "target"),
                             program = string_of(call, 3, "program"), options = bytes_of(call, 4, "options")] {
    return compile_for(plugin, name, target, program, options);
  });
}

napi_value load_executable(Call& call) {
  return start_making(call, [client = object_of<Client>(call.env, call.value(0, "client")),
                             serialized = bytes_of(call, 1, "serialized")] { return load(client, serialized); });
}

// A job that ends in bytes.
napi_value start_reading(Call& call, string (Executable::*read)() const) {
  auto result = std::make_shared<string>();
  return start(
      call,
      [result, read, executable = object_of<Executable>(call.env, call.value(0, "executable"))] {
        *result = (*executable.*read)();
      },
      [result](napi_env env) { return bytes(env, *result); });
}

napi_value serialize_executable(Call& call) { return start_reading(call, &Executable::serialize); }
napi_value optimized_program(Call& call) { return start_reading(call, &Executable::optimized); }

napi_value memory_of(Call& call) {
  const auto memory = object_of<Executable>(call.env, call.value(0, "executable"))->memory();
  const auto count = [&](int64_t x) { return number(call.env, static_cast<double>(x)); };
  return object(call.env, {{"argument", count(memory.argument_size_in_bytes)},
                           {"output", count(memory.output_size_in_bytes)},
                           {"alias", count(memory.alias_size_in_bytes)},
                           {"temporary", count(memory.temp_size_in_bytes)},
                           {"code", count(memory.generated_code_size_in_bytes)},
                           {"peak", count(memory.peak_memory_in_bytes)}});
}

napi_value execute(Call& call) {
  const auto executable = object_of<Executable>(call.env, call.value(0, "executable"));
  if (!executable->client) throw BadArgument("this executable is for devices that are not here");
  const napi_value list = call.value(1, "buffers");
  uint32_t count = 0;
  if (napi_get_array_length(call.env, list, &count) != napi_ok) throw BadArgument("buffers: expected an array");
  std::vector<std::shared_ptr<Buffer>> buffers;
  for (uint32_t i = 0; i < count; i++) {
    napi_value item;
    check(napi_get_element(call.env, list, i, &item), "reading an array");
    buffers.push_back(object_of<Buffer>(call.env, item));
  }
  const int device = call.integer(call.value(2, "device"), "device", 0, 1 << 20);
  auto results = std::make_shared<std::vector<std::shared_ptr<Buffer>>>();
  return start(
      call, [=] { *results = executable->execute(buffers, device); },
      [results](napi_env env) {
        return array(env, *results, [env](const std::shared_ptr<Buffer>& buffer) { return handle(env, buffer); });
      });
}

// upload(client, values: Float32Array | Int32Array | Uint32Array, shape, device)
napi_value upload_array(Call& call) {
  const auto client = object_of<Client>(call.env, call.value(0, "client"));
  const napi_value values = call.value(1, "values");
  napi_typedarray_type type;
  size_t size = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(call.env, values, &type, &size, &data, nullptr, nullptr) != napi_ok)
    throw BadArgument("values: expected a typed array");
  PJRT_Buffer_Type element;
  switch (type) {
    case napi_float32_array: element = PJRT_Buffer_Type_F32; break;
    case napi_int32_array: element = PJRT_Buffer_Type_S32; break;
    case napi_uint32_array: element = PJRT_Buffer_Type_U32; break;
    default: throw BadArgument("values: expected 32-bit floats or integers");
  }
  const napi_value list = call.value(2, "shape");
  uint32_t rank = 0;
  if (napi_get_array_length(call.env, list, &rank) != napi_ok) throw BadArgument("shape: expected an array");
  std::vector<int64_t> shape;
  size_t wanted = 1;
  for (uint32_t i = 0; i < rank; i++) {
    napi_value item;
    check(napi_get_element(call.env, list, i, &item), "reading an array");
    shape.push_back(call.integer(item, "shape", 0, 0x7fffffff));
    wanted *= static_cast<size_t>(shape.back());
  }
  if (wanted != size)
    throw BadArgument("values: " + std::to_string(size) + " of them do not fill a shape of " + std::to_string(wanted));
  const int device = call.integer(call.value(3, "device"), "device", 0, 1 << 20);
  auto result = std::make_shared<std::shared_ptr<Buffer>>();
  return start(
      call, [=] { *result = upload(client, data, element, shape, device); },
      [result](napi_env env) { return handle(env, *result); }, {values});
}

napi_value copy_buffer(Call& call) {
  return start_making(call, [buffer = object_of<Buffer>(call.env, call.value(0, "buffer")),
                             device = call.integer(call.value(1, "device"), "device", 0, 1 << 20)] {
    return copy_to(*buffer, device);
  });
}

napi_value nothing(napi_env env) {
  napi_value out;
  napi_get_undefined(env, &out);
  return out;
}

napi_value download_buffer(Call& call) {
  const auto buffer = object_of<Buffer>(call.env, call.value(0, "buffer"));
  const auto out = call.array<float>(1, "out");
  return start(call, [=] { download(*buffer, out.data, 4 * out.size); }, nothing, {call.value(1, "out")});
}

// Lets go of what handles hold; a job that uses it keeps it to its end. Half a gigabyte takes long to give back, and a
// device may still be at work on it: not on the event loop.
napi_value release(Call& call) {
  const napi_value list = call.value(0, "handles");
  uint32_t count = 0;
  if (napi_get_array_length(call.env, list, &count) != napi_ok) throw BadArgument("handles: expected an array");
  auto objects = std::make_shared<std::vector<std::shared_ptr<void>>>();
  for (uint32_t i = 0; i < count; i++) {
    napi_value item;
    void* data = nullptr;
    check(napi_get_element(call.env, list, i, &item), "reading an array");
    if (napi_get_value_external(call.env, item, &data) != napi_ok) throw BadArgument("expected a handle");
    objects->push_back(std::move(static_cast<Handle*>(data)->object));
  }
  return start(call, [objects] { objects->clear(); }, nothing);
}

}  // namespace

NAPI_MODULE_INIT() {
  auto loop = std::make_unique<Loop>();
  napi_value name;
  napi_create_string_utf8(env, "weft xla", NAPI_AUTO_LENGTH, &name);
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, settled,
                                      &loop->settle) != napi_ok)
    return nullptr;
  napi_unref_threadsafe_function(env, loop->settle);
  napi_set_instance_data(env, loop.release(), [](napi_env, void* data, void*) { delete static_cast<Loop*>(data); },
                         nullptr);
  const napi_property_descriptor functions[] = {
      method<open_plugin>("openPlugin"),
      method<plugin_facts>("pluginFacts"),
      method<create_client>("createClient"),
      method<client_facts>("clientFacts"),
      method<compile_program>("compile"),
      method<compile_program_for>("compileFor"),
      method<load_executable>("load"),
      method<serialize_executable>("serialize"),
      method<optimized_program>("optimizedProgram"),
      method<memory_of>("memory"),
      method<execute>("execute"),
      method<upload_array>("upload"),
      method<copy_buffer>("copyTo"),
      method<download_buffer>("download"),
      method<release>("release"),
  };
  if (napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions) != napi_ok) return nullptr;
  return exports;
}
