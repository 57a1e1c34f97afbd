// Who provides napi_* on Windows: the running program, whatever its name. An import library would name node.exe, and then
// Electron, Bun, Deno and a node.exe of another name could not load the addon. So the pointers that an import library would
// bring are ours, and are filled before anything of the addon runs.
#if defined(ONEBIT_FINDS_HOST)

#include <windows.h>

// Everything of Node-API that the addon calls. One that is missing here is an error of the linker.
#define HOST_FUNCTIONS(X) \
    X(napi_add_env_cleanup_hook) X(napi_adjust_external_memory) X(napi_call_function) X(napi_call_threadsafe_function) \
    X(napi_check_object_type_tag) X(napi_close_escapable_handle_scope) X(napi_close_handle_scope) X(napi_create_array) \
    X(napi_create_array_with_length) X(napi_create_arraybuffer) X(napi_create_double) X(napi_create_error) \
    X(napi_create_function) X(napi_create_object) X(napi_create_promise) X(napi_create_reference) \
    X(napi_create_string_utf8) X(napi_create_threadsafe_function) X(napi_create_type_error) X(napi_create_typedarray) \
    X(napi_define_class) X(napi_define_properties) X(napi_delete_reference) X(napi_escape_handle) X(napi_fatal_error) \
    X(napi_get_and_clear_last_exception) X(napi_get_array_length) X(napi_get_arraybuffer_info) X(napi_get_boolean) \
    X(napi_get_cb_info) X(napi_get_element) X(napi_get_instance_data) X(napi_get_last_error_info) \
    X(napi_get_named_property) X(napi_get_new_target) X(napi_get_null) X(napi_get_property) \
    X(napi_get_reference_value) X(napi_get_typedarray_info) X(napi_get_undefined) X(napi_get_value_bool) \
    X(napi_get_value_double) X(napi_get_value_string_utf8) X(napi_has_property) X(napi_is_array) \
    X(napi_is_exception_pending) X(napi_is_typedarray) X(napi_new_instance) X(napi_open_escapable_handle_scope) \
    X(napi_open_handle_scope) X(napi_ref_threadsafe_function) X(napi_reject_deferred) \
    X(napi_release_threadsafe_function) X(napi_resolve_deferred) X(napi_set_element) X(napi_set_instance_data) \
    X(napi_set_named_property) X(napi_throw) X(napi_throw_type_error) X(napi_type_tag_object) X(napi_typeof) \
    X(napi_unref_threadsafe_function) X(napi_unwrap) X(napi_wrap)

extern "C" {
#define DEFINE(name) void* __imp_##name = nullptr;
HOST_FUNCTIONS(DEFINE)
#undef DEFINE
}

namespace {

// napi_generic_failure: in place of what an old host does not have.
int missing() { return 9; }

void* find(HMODULE host, const char* name) {
    void* found = reinterpret_cast<void*>(GetProcAddress(host, name));
    return found ? found : reinterpret_cast<void*>(missing);
}

struct Finder {
    Finder() {
        const HMODULE host = GetModuleHandleW(nullptr);
#define FIND(name) __imp_##name = find(host, #name);
        HOST_FUNCTIONS(FIND)
#undef FIND
    }
};
const Finder finder;

}  // namespace

#endif
