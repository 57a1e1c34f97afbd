// Errors are values: a stable code for programs and a sentence for people. Only memory that cannot be had is thrown (by
// the standard library), and `caught` turns that into a value too, at the engine's edges: worker.cpp for what runs there,
// napi/values.cpp for calls from JavaScript.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace onebit {

struct Status {
    const char* code = nullptr;  // null: fine. Otherwise a static string such as "ERR_OUT_OF_MEMORY".
    std::string message;         // empty where there was no memory for one

    bool ok() const { return code == nullptr; }
};

inline Status error(const char* code, std::string message) { return Status{code, std::move(message)}; }

// What body() returns, or ERR_OUT_OF_MEMORY.
template <class Body>
Status caught(const Body& body) {
    try {
        return body();
    } catch (const std::exception&) {  // bad_alloc, length_error: nothing else is thrown
        return {"ERR_OUT_OF_MEMORY", {}};
    }
}

}  // namespace onebit
