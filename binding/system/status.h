// Errors are values: a stable code for programs and a sentence for people. Nothing in the engine throws.
#pragma once

#include <string>
#include <utility>

namespace onebit {

struct Status {
    const char* code = nullptr;  // null: fine. Otherwise a static string such as "ERR_OUT_OF_MEMORY".
    std::string message;

    bool ok() const { return code == nullptr; }
};

inline Status error(const char* code, std::string message) { return Status{code, std::move(message)}; }

}  // namespace onebit
