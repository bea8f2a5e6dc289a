// The PJRT C API (pjrt_c_api.h, OpenXLA) as C++ objects: a plugin opened by dlopen, clients, executables and buffers
// that free themselves, errors as exceptions with XLA's words. Nothing here knows Node. Every call may block: addon.cpp
// runs them on threads of their own.
#pragma once
#include <dlfcn.h>

#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pjrt_c_api.h"

namespace weft {

using std::string;

struct XlaError : std::runtime_error {
  XlaError(const string& message, int code) : std::runtime_error(message), code(code) {}
  // PJRT_Error_Code: gRPC's numbers, 8 is RESOURCE_EXHAUSTED.
  int code;
};

// An argument struct with its size set, which tells the plugin what this header knows of it.
template <class T>
T arguments() {
  T out;
  std::memset(&out, 0, sizeof out);
  out.struct_size = sizeof out;
  return out;
}

class Plugin {
 public:
  explicit Plugin(const string& path) {
    // Never closed: XLA leaves threads and handlers behind.
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) throw std::runtime_error(dlerror());
    const auto get = reinterpret_cast<const PJRT_Api* (*)()>(dlsym(library, "GetPjrtApi"));
    if (!get) throw std::runtime_error(path + " is no PJRT plugin: it has no GetPjrtApi");
    api = get();
    major = api->pjrt_api_version.major_version;
    minor = api->pjrt_api_version.minor_version;
    constexpr size_t needed = PJRT_STRUCT_SIZE(PJRT_Api, PJRT_Executable_GetCompiledMemoryStats);
    if (major != PJRT_API_MAJOR || api->struct_size < needed)
      throw std::runtime_error(path + " speaks version " + std::to_string(major) + "." + std::to_string(minor) +
                               " of the PJRT API, which has " + std::to_string(api->struct_size) +
                               " bytes of functions; needed are version " + std::to_string(PJRT_API_MAJOR) +
                               " and at least " + std::to_string(needed) + " bytes");
    auto initialize = arguments<PJRT_Plugin_Initialize_Args>();
    check(api->PJRT_Plugin_Initialize(&initialize));
    auto asked = arguments<PJRT_Plugin_Attributes_Args>();
    check(api->PJRT_Plugin_Attributes(&asked));
    for (size_t i = 0; i < asked.num_attributes; i++) {
      const PJRT_NamedValue& value = asked.attributes[i];
      const string name(value.name, value.name_size);
      if (value.type == PJRT_NamedValue_kString) attributes[name] = string(value.string_value, value.value_size);
      if (value.type == PJRT_NamedValue_kInt64) attributes[name] = std::to_string(value.int64_value);
      if (value.type == PJRT_NamedValue_kInt64List)
        for (size_t n = 0; n < value.value_size; n++)
          attributes[name] += (n ? "." : "") + std::to_string(value.int64_array_value[n]);
    }
  }

  // Throws what the plugin complains of.
  void check(PJRT_Error* error) const {
    if (!error) return;
    auto message = arguments<PJRT_Error_Message_Args>();
    message.error = error;
    api->PJRT_Error_Message(&message);
    auto code = arguments<PJRT_Error_GetCode_Args>();
    code.error = error;
    if (PJRT_Error* failed = api->PJRT_Error_GetCode(&code)) destroy(failed);
    const XlaError thrown(string(message.message, message.message_size), code.code);
    destroy(error);
    throw thrown;
  }

  // Waits, frees the event, and throws what it brings.
  void await(PJRT_Event* event) const {
    auto wait = arguments<PJRT_Event_Await_Args>();
    wait.event = event;
    PJRT_Error* error = api->PJRT_Event_Await(&wait);
    auto gone = arguments<PJRT_Event_Destroy_Args>();
    gone.event = event;
    api->PJRT_Event_Destroy(&gone);
    check(error);
  }

  const PJRT_Api* api;
  int major, minor;
  std::map<string, string> attributes;

 private:
  void destroy(PJRT_Error* error) const {
    auto gone = arguments<PJRT_Error_Destroy_Args>();
    gone.error = error;
    api->PJRT_Error_Destroy(&gone);
  }
};

// Options by name.
struct NamedValues {
  std::vector<std::pair<string, string>> texts;
  std::vector<std::pair<string, int64_t>> integers;
  std::vector<std::pair<string, float>> floats;
  std::vector<std::pair<string, bool>> switches;

  // Valid as long as this object stays as it is.
  std::vector<PJRT_NamedValue> list() const {
    std::vector<PJRT_NamedValue> out;
    const auto value = [&](const string& name, PJRT_NamedValue_Type type) -> PJRT_NamedValue& {
      out.push_back(arguments<PJRT_NamedValue>());
      out.back().name = name.data();
      out.back().name_size = name.size();
      out.back().type = type;
      out.back().value_size = 1;
      return out.back();
    };
    for (const auto& [name, text] : texts) {
      PJRT_NamedValue& made = value(name, PJRT_NamedValue_kString);
      made.string_value = text.data();
      made.value_size = text.size();
    }
    for (const auto& [name, number] : integers) value(name, PJRT_NamedValue_kInt64).int64_value = number;
    for (const auto& [name, number] : floats) value(name, PJRT_NamedValue_kFloat).float_value = number;
    for (const auto& [name, on] : switches) value(name, PJRT_NamedValue_kBool).bool_value = on;
    return out;
  }
};

struct Client {
  Client(std::shared_ptr<Plugin> plugin, const NamedValues& options) : plugin(std::move(plugin)) {
    const auto list = options.list();
    auto create = arguments<PJRT_Client_Create_Args>();
    create.create_options = list.data();
    create.num_options = list.size();
    const PJRT_Api* api = this->plugin->api;
    this->plugin->check(api->PJRT_Client_Create(&create));
    client = create.client;
    auto asked = arguments<PJRT_Client_AddressableDevices_Args>();
    asked.client = client;
    this->plugin->check(api->PJRT_Client_AddressableDevices(&asked));
    devices.assign(asked.addressable_devices, asked.addressable_devices + asked.num_addressable_devices);
  }
  Client(const Client&) = delete;
  ~Client() {
    auto gone = arguments<PJRT_Client_Destroy_Args>();
    gone.client = client;
    plugin->api->PJRT_Client_Destroy(&gone);
  }

  PJRT_Device* device(size_t i) const {
    if (i >= devices.size())
      throw std::runtime_error("device " + std::to_string(i) + " of " + std::to_string(devices.size()));
    return devices[i];
  }

  std::shared_ptr<Plugin> plugin;
  PJRT_Client* client;
  std::vector<PJRT_Device*> devices;
};

struct Buffer {
  Buffer(std::shared_ptr<Client> client, PJRT_Buffer* buffer) : client(std::move(client)), buffer(buffer) {}
  Buffer(const Buffer&) = delete;
  ~Buffer() {
    auto gone = arguments<PJRT_Buffer_Destroy_Args>();
    gone.buffer = buffer;
    client->plugin->api->PJRT_Buffer_Destroy(&gone);
  }
  std::shared_ptr<Client> client;
  PJRT_Buffer* buffer;
};

inline std::shared_ptr<Buffer> upload(const std::shared_ptr<Client>& client, const void* data, PJRT_Buffer_Type type,
                                      const std::vector<int64_t>& dims, size_t device) {
  const Plugin& plugin = *client->plugin;
  auto from = arguments<PJRT_Client_BufferFromHostBuffer_Args>();
  from.client = client->client;
  from.data = data;
  from.type = type;
  from.dims = dims.data();
  from.num_dims = dims.size();
  from.host_buffer_semantics = PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes;
  from.device = client->device(device);
  plugin.check(plugin.api->PJRT_Client_BufferFromHostBuffer(&from));
  auto out = std::make_shared<Buffer>(client, from.buffer);
  plugin.await(from.done_with_host_buffer);
  return out;
}

inline void download(const Buffer& buffer, void* out, size_t bytes) {
  const Plugin& plugin = *buffer.client->plugin;
  auto to = arguments<PJRT_Buffer_ToHostBuffer_Args>();
  to.src = buffer.buffer;
  plugin.check(plugin.api->PJRT_Buffer_ToHostBuffer(&to));
  if (to.dst_size != bytes)
    throw std::runtime_error("a buffer of " + std::to_string(to.dst_size) + " bytes into one of " +
                             std::to_string(bytes));
  to.dst = out;
  plugin.check(plugin.api->PJRT_Buffer_ToHostBuffer(&to));
  plugin.await(to.event);
}

inline std::shared_ptr<Buffer> copy_to(const Buffer& buffer, size_t device) {
  const Plugin& plugin = *buffer.client->plugin;
  auto copy = arguments<PJRT_Buffer_CopyToDevice_Args>();
  copy.buffer = buffer.buffer;
  copy.dst_device = buffer.client->device(device);
  plugin.check(plugin.api->PJRT_Buffer_CopyToDevice(&copy));
  auto out = std::make_shared<Buffer>(buffer.client, copy.dst_buffer);
  auto ready = arguments<PJRT_Buffer_ReadyEvent_Args>();
  ready.buffer = copy.dst_buffer;
  plugin.check(plugin.api->PJRT_Buffer_ReadyEvent(&ready));
  plugin.await(ready.event);
  return out;
}

// A compiled program; loaded, when it has a client.
struct Executable {
  Executable(std::shared_ptr<Client> client, PJRT_LoadedExecutable* loaded)
      : plugin(client->plugin), client(std::move(client)), loaded(loaded) {
    auto get = arguments<PJRT_LoadedExecutable_GetExecutable_Args>();
    get.loaded_executable = loaded;
    plugin->check(plugin->api->PJRT_LoadedExecutable_GetExecutable(&get));
    executable = get.executable;
    count_outputs();
  }
  Executable(std::shared_ptr<Plugin> plugin, PJRT_Executable* executable)
      : plugin(std::move(plugin)), executable(executable) {
    count_outputs();
  }
  Executable(const Executable&) = delete;
  ~Executable() {
    auto gone = arguments<PJRT_Executable_Destroy_Args>();
    gone.executable = executable;
    plugin->api->PJRT_Executable_Destroy(&gone);
    if (!loaded) return;
    auto unloaded = arguments<PJRT_LoadedExecutable_Destroy_Args>();
    unloaded.executable = loaded;
    plugin->api->PJRT_LoadedExecutable_Destroy(&unloaded);
  }

  // Queued on one device; who reads a result waits for it, and is told what failed. Arguments that the program aliases to outputs are used up.
  std::vector<std::shared_ptr<Buffer>> execute(const std::vector<std::shared_ptr<Buffer>>& buffers, size_t device) {
    std::vector<PJRT_Buffer*> list;
    for (const auto& buffer : buffers) list.push_back(buffer->buffer);
    std::vector<PJRT_Buffer*> results(outputs);
    PJRT_Buffer* const* lists[] = {list.data()};
    PJRT_Buffer** result_lists[] = {results.data()};
    auto options = arguments<PJRT_ExecuteOptions>();
    auto run = arguments<PJRT_LoadedExecutable_Execute_Args>();
    run.executable = loaded;
    run.options = &options;
    run.argument_lists = lists;
    run.num_devices = 1;
    run.num_args = list.size();
    run.output_lists = result_lists;
    run.execute_device = client->device(device);
    plugin->check(plugin->api->PJRT_LoadedExecutable_Execute(&run));
    std::vector<std::shared_ptr<Buffer>> out;
    for (PJRT_Buffer* result : results) out.push_back(std::make_shared<Buffer>(client, result));
    return out;
  }

  string serialize() const {
    auto asked = arguments<PJRT_Executable_Serialize_Args>();
    asked.executable = executable;
    plugin->check(plugin->api->PJRT_Executable_Serialize(&asked));
    const string out(asked.serialized_bytes, asked.serialized_bytes_size);
    asked.serialized_executable_deleter(asked.serialized_executable);
    return out;
  }

  PJRT_Executable_GetCompiledMemoryStats_Args memory() const {
    auto asked = arguments<PJRT_Executable_GetCompiledMemoryStats_Args>();
    asked.executable = executable;
    plugin->check(plugin->api->PJRT_Executable_GetCompiledMemoryStats(&asked));
    return asked;
  }

  // HloModuleProto (XLA's own optimized program) as bytes.
  string optimized() const {
    auto program = arguments<PJRT_Program>();
    auto asked = arguments<PJRT_Executable_OptimizedProgram_Args>();
    asked.executable = executable;
    asked.program = &program;
    plugin->check(plugin->api->PJRT_Executable_OptimizedProgram(&asked));
    string out(program.code_size, '\0');
    program.code = out.data();
    plugin->check(plugin->api->PJRT_Executable_OptimizedProgram(&asked));
    return out;
  }

  std::shared_ptr<Plugin> plugin;
  std::shared_ptr<Client> client;
  PJRT_LoadedExecutable* loaded = nullptr;
  PJRT_Executable* executable = nullptr;
  size_t outputs = 0;

 private:
  void count_outputs() {
    auto count = arguments<PJRT_Executable_NumOutputs_Args>();
    count.executable = executable;
    plugin->check(plugin->api->PJRT_Executable_NumOutputs(&count));
    outputs = count.num_outputs;
  }
};

inline PJRT_Program program_of(const string& code) {
  auto program = arguments<PJRT_Program>();
  program.code = const_cast<char*>(code.data());
  program.code_size = code.size();
  program.format = "mlir";
  program.format_size = 4;
  return program;
}

// @param code    StableHLO as text
// @param options CompileOptionsProto
inline std::shared_ptr<Executable> compile(const std::shared_ptr<Client>& client, const string& code,
                                           const string& options) {
  const PJRT_Program program = program_of(code);
  auto asked = arguments<PJRT_Client_Compile_Args>();
  asked.client = client->client;
  asked.program = &program;
  asked.compile_options = options.data();
  asked.compile_options_size = options.size();
  client->plugin->check(client->plugin->api->PJRT_Client_Compile(&asked));
  return std::make_shared<Executable>(client, asked.executable);
}

inline std::shared_ptr<Executable> load(const std::shared_ptr<Client>& client, const string& bytes) {
  auto asked = arguments<PJRT_Executable_DeserializeAndLoad_Args>();
  asked.client = client->client;
  asked.serialized_executable = bytes.data();
  asked.serialized_executable_size = bytes.size();
  client->plugin->check(client->plugin->api->PJRT_Executable_DeserializeAndLoad(&asked));
  return std::make_shared<Executable>(client, asked.loaded_executable);
}

// Compiles for devices that need not be here.
inline std::shared_ptr<Executable> compile_for(const std::shared_ptr<Plugin>& plugin, const string& name,
                                               const NamedValues& target, const string& code, const string& options) {
  const auto list = target.list();
  auto create = arguments<PJRT_TopologyDescription_Create_Args>();
  create.topology_name = name.data();
  create.topology_name_size = name.size();
  create.create_options = list.data();
  create.num_options = list.size();
  plugin->check(plugin->api->PJRT_TopologyDescription_Create(&create));
  const PJRT_Program program = program_of(code);
  auto asked = arguments<PJRT_Compile_Args>();
  asked.topology = create.topology;
  asked.program = &program;
  asked.compile_options = options.data();
  asked.compile_options_size = options.size();
  PJRT_Error* error = plugin->api->PJRT_Compile(&asked);
  auto gone = arguments<PJRT_TopologyDescription_Destroy_Args>();
  gone.topology = create.topology;
  plugin->api->PJRT_TopologyDescription_Destroy(&gone);
  plugin->check(error);
  return std::make_shared<Executable>(plugin, asked.executable);
}

}  // namespace weft
