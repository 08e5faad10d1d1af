// A driver without a device, for tests of what happens where CUDA fails: device memory is host
// memory, kernels do nothing, and one call can be made to fail.
//
//   FAKE_CUDA_SM=80            compute capability, times ten
//   FAKE_CUDA_FAIL=cuMemAlloc_v2:2:3   this function gives error 2 at its third call
//   FAKE_CUDA_KILL=cuGraphLaunch       the process is killed at the first call of this function
//   FAKE_CUDA_LOG=FILE         one line per call

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {

int number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

// What a call gives: zero unless it is the one that is to fail.
int enter(const char* function) {
  static std::map<std::string, int> calls;
  const int call = ++calls[function];
  if (const char* path = std::getenv("FAKE_CUDA_LOG")) {
    if (std::FILE* log = std::fopen(path, "a")) {
      std::fprintf(log, "%s\n", function);
      std::fclose(log);
    }
  }
  const char* kill = std::getenv("FAKE_CUDA_KILL");
  if (kill && !std::strcmp(kill, function)) std::raise(SIGKILL);
  char name[64] = {0};
  int code = 0, at = 1;
  const char* fail = std::getenv("FAKE_CUDA_FAIL");
  if (fail && std::sscanf(fail, "%63[^:]:%d:%d", name, &code, &at) >= 2 && call == at && !std::strcmp(name, function)) return code;
  return 0;
}

constexpr int kMajor = 75, kMinor = 76;

int attribute(int which) {
  const int sm = number("FAKE_CUDA_SM", 80);
  if (which == kMajor) return sm / 10;
  if (which == kMinor) return sm % 10;
  return 1 << 20;
}

}  // namespace

using Handle = void*;
static char anything;

#define CALL(name, parameters, work)             \
  extern "C" int name parameters {               \
    if (const int code = enter(#name)) return code; \
    work;                                        \
    return 0;                                    \
  }

CALL(cuInit, (unsigned), )
CALL(cuDriverGetVersion, (int* version), *version = 13000)
CALL(cuDeviceGetCount, (int* count), *count = number("FAKE_CUDA_DEVICES", 1))
CALL(cuDeviceGet, (int* device, int ordinal), *device = ordinal)
CALL(cuDeviceGetName, (char* name, int len, int), std::snprintf(name, len, "Fake GPU"))
CALL(cuDeviceTotalMem_v2, (size_t* bytes, int), *bytes = size_t(8) << 30)
CALL(cuDeviceGetAttribute, (int* value, int which, int), *value = attribute(which))
CALL(cuDevicePrimaryCtxRetain, (Handle* context, int), *context = &anything)
CALL(cuDevicePrimaryCtxRelease_v2, (int), )
CALL(cuCtxSetCurrent, (Handle), )
CALL(cuStreamCreate, (Handle* stream, unsigned), *stream = &anything)
CALL(cuStreamDestroy_v2, (Handle), )
CALL(cuStreamSynchronize, (Handle), )
CALL(cuStreamBeginCapture_v2, (Handle, int), )
CALL(cuStreamEndCapture, (Handle, Handle* graph), *graph = &anything)
CALL(cuEventCreate, (Handle* event, unsigned), *event = &anything)
CALL(cuEventRecord, (Handle, Handle), )
CALL(cuEventSynchronize, (Handle), )
CALL(cuEventElapsedTime, (float* ms, Handle, Handle), *ms = 1.0f)
CALL(cuEventDestroy_v2, (Handle), )
CALL(cuMemAlloc_v2, (uint64_t* address, size_t len), *address = reinterpret_cast<uint64_t>(std::aligned_alloc(256, (len + 255) / 256 * 256)))
CALL(cuMemFree_v2, (uint64_t address), std::free(reinterpret_cast<void*>(address)))
CALL(cuMemHostAlloc, (void** pointer, size_t len, unsigned), *pointer = std::malloc(len))
CALL(cuMemFreeHost, (void* pointer), std::free(pointer))
CALL(cuMemcpyDtoDAsync_v2, (uint64_t to, uint64_t from, size_t len, Handle), std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), len))
CALL(cuMemcpyHtoDAsync_v2, (uint64_t to, const void* from, size_t len, Handle), std::memcpy(reinterpret_cast<void*>(to), from, len))
CALL(cuMemcpyDtoHAsync_v2, (void* to, uint64_t from, size_t len, Handle), std::memcpy(to, reinterpret_cast<const void*>(from), len))
CALL(cuMemsetD8Async, (uint64_t at, unsigned char byte, size_t len, Handle), std::memset(reinterpret_cast<void*>(at), byte, len))
CALL(cuModuleLoadData, (Handle* module, const void*), *module = &anything)
CALL(cuModuleUnload, (Handle), )
CALL(cuModuleGetFunction, (Handle* function, Handle, const char*), *function = &anything)
CALL(cuFuncSetAttribute, (Handle, int, int), )
CALL(cuLaunchKernelEx, (const void*, Handle, void**, void**), )
CALL(cuTensorMapEncodeTiled, (...), )
CALL(cuTensorMapEncodeIm2col, (...), )
CALL(cuGraphInstantiateWithFlags, (Handle* exec, Handle, unsigned long long), *exec = &anything)
CALL(cuGraphUpload, (Handle, Handle), )
CALL(cuGraphLaunch, (Handle, Handle), )
CALL(cuGraphExecDestroy, (Handle), )
CALL(cuGraphDestroy, (Handle), )

extern "C" int cuGetErrorString(int, const char** text) {
  *text = "as the fake driver was told";
  return 0;
}

extern "C" int cuGetErrorName(int, const char** text) {
  *text = "FAKE";
  return 0;
}
